"""The job: everything the helper must know, decided by the host, as data.

One frozen dataclass per task. Whatever can be decided without looking at the image (merging properties,
exclusions, which address a NIC gets) is decided by the host; the helper looks at the image and acts.

Bytes travel as base64 text. Sizes are bytes unless a name says otherwise.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Final, Literal

from snf_image_contract import codec
from snf_image_contract.names import ImageFormat, OsFamily, TaskName
from snf_image_contract.secret import Secret

CONTRACT_VERSION: Final = 3
MAX_JOB_BYTES: Final = 64 * 1024 * 1024
MAX_HOST_KEYS_BYTES: Final = 64 * 1024
PARAMETER_SERIAL: Final = "snf-params"
HELPER_SERIAL: Final = "snf-helper"
DISK_SERIAL_PREFIX: Final = "snf-disk-"
SLOTS_WORD: Final = "snf_image_slots"
"""On the kernel's command line: disk 0 and the medium have slots, devices that were there before them."""
MEDIUM_SIZE: Final = 128 * 1024 * 1024
"""Bytes of the parameter medium, whatever is on it, so that a slot's size is right before it is filled."""
SLOTS_FILLED: Final = b"slots filled\n"
"""What the host then says on the port of the helper's events, when both are; other disks follow the job."""


def disk_serial(index: int) -> str:
    """The virtio serial of instance disk ``index`` (R-HLP-4)."""
    return f"{DISK_SERIAL_PREFIX}{index}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobDisk:
    """One disk of the instance; ``index`` 0 holds the image."""

    index: int
    read_only: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SwapPartition:
    """SWAP=<number>:<megabytes>: a swap partition with exactly that number on disk 0."""

    KIND: ClassVar = "partition"
    number: int
    megabytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SwapDisk:
    """SWAP=<letter>: a whole disk as swap; index 1 is letter b."""

    KIND: ClassVar = "disk"
    index: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FixPartitionTable:
    swap: SwapPartition | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemResizeUnmounted:
    sync: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MountImage:
    allow_unclean_ntfs: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InitializeDatasource:
    """``user_data`` is base64; ``instance_id`` is unique per deployment (R-TASK-CI-4)."""

    user_data: Secret | None = None
    instance_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InstallUnattend:
    """Windows. ``answer_file`` (base64) stands in for the helper's own, and for the image's too with
    ``ignore_existing``.
    """

    answer_file: Secret | None = None
    ignore_existing: bool = False
    product_key: Secret | None = None
    time_zone: str = "GMT Standard Time"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemResizeMounted:
    offline_ntfs: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddSwap:
    swap: SwapPartition | SwapDisk | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AssignHostname:
    name: str


MachineIdMode = Literal["auto", "random", "uninitialized", "empty", "keep"]
HashMethod = Literal["auto", "md5", "sha1", "blowfish", "sha256", "sha512", "yescrypt"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMachineId:
    mode: MachineIdMode = "auto"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword:
    """``users`` empty: the family's default account, with a warning. ``method`` None: the family's default.

    ``keys`` are lines of authorized_keys, already checked by the host. ``made_hashes``: hashes of
    ``password`` that the host made, because that is slow in emulation; of methods that the image may want,
    each with a salt of its own and for one account. The helper makes what is not among them.
    """

    users: tuple[str, ...] = ()
    password: Secret | None = None
    password_hash: Secret | None = None
    made_hashes: tuple[Secret, ...] = ()
    keys: tuple[str, ...] = ()
    method: HashMethod | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network interface as the host decided it (R-NET-2 to R-NET-5).

    ``mac`` lower case with colons. ``address`` is in CIDR form and given if ``ipv4`` is static.
    ``gateway_on_link``: the gateway lies outside the address's subnet.
    """

    mac: str
    ipv4: Literal["none", "dhcp", "static"] = "none"
    address: str | None = None
    gateway: str | None = None
    gateway_on_link: bool = False
    ipv6: Literal["none", "dhcp", "slaac", "slaac_dhcp"] = "none"
    model: str = "paravirtual"


NetworkBackend = Literal[
    "ifupdown", "ifcfg", "nm", "netplan", "networkd", "wicked", "netifrc", "rc.inet1", "cloud-init",
    "freebsd", "openbsd", "netbsd", "none",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConfigureNetwork:
    """``backend`` None: chosen from what the image has (R-NET-11). DNS is for static NICs (R-NET-6)."""

    nics: tuple[Nic, ...] = ()
    backend: NetworkBackend | None = None
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """An SSH host key the host made while the copy ran: OpenSSH private key text, public key line."""

    type: Literal["rsa", "ecdsa", "ed25519"]
    private: Secret
    public: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSSHKeys:
    """``host_keys_follow``: the host makes keys, which takes seconds, and sends them as :class:`HostKeys`.

    They are for images that must not boot without (R-TASK-SSH-2), and unused if the image makes its own.
    """

    host_keys_follow: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """What the host sends when the keys are made; none if they could not be: the helper makes them then."""

    keys: tuple[HostKey, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DisableRemoteDesktopConnections:
    pass


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SELinuxAutorelabel:
    pass


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PersonalityFile:
    """A file to inject; ``contents`` base64. Owner and group are names or decimal ids; None is 0.

    ``mode`` None is 0440 (R-PERS-5).
    """

    path: str
    contents: Secret
    owner: str | None = None
    group: str | None = None
    mode: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnforcePersonality:
    files: tuple[PersonalityFile, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunCustomTask:
    """``program`` is base64 of a script with a ``#!`` line."""

    program: Secret | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UmountImage:
    pass


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemResizeAfterUmount:
    offline_ntfs: bool = False
    skip_check: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SkippedTask:
    """A task that a property excludes, with the warning's text (R-TASK-3)."""

    task: TaskName
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable of a custom task's environment, without the prefix SNF_IMAGE_."""

    name: str
    value: Secret


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTask:
    """A task that the operator added to the helper: its file ``NNName``, and why it is skipped if it is."""

    file: str
    skipped: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done with the disks of one instance.

    ``os_family`` or ``root_partition`` None: detect (R-DET-1). ``environment`` is for custom,
    overwriting and operators' tasks, filled by the host only if one may run. ``operator_tasks``: those of the
    helper's that have their turn in this job. ``clock``: the host's, seconds since the
    epoch, UTC (R-HLP-16). ``entropy``: base64 of fresh random bytes of the host's, for the helper's kernel:
    one that continues from a saved state would make the same keys, salts and identifiers each time.
    """

    contract_version: int = CONTRACT_VERSION
    action: Literal["customize", "inspect"] = "customize"
    instance: str
    clock: float
    entropy: Secret | None = None
    image_format: ImageFormat = ImageFormat.DISKDUMP
    disks: tuple[JobDisk, ...]
    os_family: OsFamily | None = None
    root_partition: int | None = None
    cloud_init: bool = False
    cloud_init_debug: bool = False
    allow_task_overwriting: bool = False
    skipped: tuple[SkippedTask, ...] = ()
    environment: tuple[Variable, ...] = ()
    operator_tasks: tuple[OperatorTask, ...] = ()
    fix_partition_table: FixPartitionTable = FixPartitionTable()
    filesystem_resize_unmounted: FilesystemResizeUnmounted = FilesystemResizeUnmounted()
    mount_image: MountImage = MountImage()
    initialize_datasource: InitializeDatasource = InitializeDatasource()
    install_unattend: InstallUnattend = InstallUnattend()
    filesystem_resize_mounted: FilesystemResizeMounted = FilesystemResizeMounted()
    add_swap: AddSwap = AddSwap()
    assign_hostname: AssignHostname
    change_machine_id: ChangeMachineId = ChangeMachineId()
    change_password: ChangePassword = ChangePassword()
    configure_network: ConfigureNetwork = ConfigureNetwork()
    delete_ssh_keys: DeleteSSHKeys = DeleteSSHKeys()
    disable_remote_desktop_connections: DisableRemoteDesktopConnections = DisableRemoteDesktopConnections()
    selinux_autorelabel: SELinuxAutorelabel = SELinuxAutorelabel()
    enforce_personality: EnforcePersonality = EnforcePersonality()
    run_custom_task: RunCustomTask = RunCustomTask()
    umount_image: UmountImage = UmountImage()
    filesystem_resize_after_umount: FilesystemResizeAfterUmount = FilesystemResizeAfterUmount()


def dump_job(job: Job) -> bytes:
    """The bytes of ``job.json`` on the parameter medium; secrets in clear."""
    return codec.dumps(job).encode("ascii")


def load_job(data: bytes) -> Job:
    """Read ``job.json``; :class:`~snf_image_contract.codec.ContractError` if it is not of this contract."""
    plain = codec.loads(data, limit=MAX_JOB_BYTES, where="job")
    version = plain.get("contract_version") if isinstance(plain, dict) else None
    if version != CONTRACT_VERSION:
        raise codec.ContractError(f"job of contract version {version}, this helper speaks {CONTRACT_VERSION}")
    return codec.decode(Job, plain, where="job")


def dump_host_keys(keys: HostKeys) -> bytes:
    """The line that brings the helper its SSH host keys on the port of its events; secrets in clear."""
    return codec.dumps(keys).encode("ascii") + b"\n"


def load_host_keys(line: bytes) -> HostKeys:
    """Read such a line; :class:`~snf_image_contract.codec.ContractError` if it is none."""
    return codec.decode(HostKeys, codec.loads(line, limit=MAX_HOST_KEYS_BYTES, where="host keys"))
