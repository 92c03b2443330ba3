"""The node's configuration, typed and frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from snf_image_contract.secret import Secret
from snf_image_host.configuration.files import ConfigFile, read_config_file
from snf_image_host.configuration.grammar import Entry, parse_assignments
from snf_image_host.configuration.variables import BY_NAME, OBSOLETE, OBSOLETE_PREFIXES, VARIABLES, Variable
from snf_image_host.deployment import Accelerator, VerifyPolicy, WipeTail
from snf_image_host.parameters.nearest import did_you_mean
from snf_image_host.parameters.os_parameters import OS_PARAMETERS
from snf_image_host.parameters.problems import Problems
from snf_image_host.parameters.values import parse_duration, parse_program

_OS_PARAMETERS: Final = {row.name.upper(): row.name for row in OS_PARAMETERS}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What the operator decided. Fields are the variables of the table in lower case; times in seconds.

    ``os_parameters``: defaults of OS parameters by name (R-CONF-9). ``warnings``: what was odd about the
    files.
    """

    image_debug: bool
    cloud_init_debug: bool
    helper_dir: str
    log_dir: str
    log_keep: int
    log_max_size: int
    helper_soft_timeout: float
    helper_hard_timeout: float
    helper_user: str | None
    helper_uid_range: tuple[int, int]
    helper_memory: int
    helper_cpus: int
    helper_debug: bool
    helper_accel: Accelerator
    helper_warm: bool
    helper_parallel: int
    helper_wait_timeout: float
    helper_tcg_timeout_factor: float
    helper_protocol: Literal["json", "text"]
    helper_sha256: str | None
    helper_url: str
    qemu: str
    qemu_nbd: str
    disk_uri_user: str | None
    param_medium: Literal["auto", "virtio", "floppy"]
    progress_monitor: str
    monitor_max_messages: int
    dhcp_tags: tuple[str, ...]
    stateful_dhcpv6_tags: tuple[str, ...]
    stateless_dhcpv6_tags: tuple[str, ...]
    default_nic_config: str
    dns_servers: tuple[str, ...]
    dns_search: tuple[str, ...]
    unattend: str | None
    windows_timezone: str
    variants_dir: str
    image_dir: str
    image_dir_allow_symlinks: bool
    image_containers: tuple[str, ...]
    image_verify: VerifyPolicy
    trusted_keys_dir: str
    spool_dir: str
    spool_max_size: int
    image_cache_dir: str | None
    image_cache_size: int
    copy_idle_timeout: float
    wipe_tail: WipeTail
    allow_custom_task: bool
    allow_task_overwriting: bool
    personality_max_files: int
    personality_max_size: int
    rename_guest: bool
    import_grow: bool
    answer_file_dir: str | None
    fetch_allowed_schemes: tuple[str, ...]
    fetch_allowed_hosts: tuple[str, ...]
    fetch_allow_private: bool
    fetch_max_redirects: int
    fetch_timeout: float
    fetch_min_rate: int
    fetch_max_param_size: int
    fetch_user: str | None
    fetch_insecure: bool
    fetch_ca_file: str | None
    os_parameters: Mapping[str, Secret] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def defaults(cls, **changes: Any) -> NodeConfig:
        """The configuration of a node without configuration files; ``changes`` replace fields."""
        values: dict[str, Any] = {row.field: row.parse(row.default or "") for row in VARIABLES}
        return cls(**(values | changes))


def load_config(files: Iterable[ConfigFile]) -> NodeConfig:
    """Read ``files`` in order, the later wins per key. Every mistake in them is one line of a NodeError."""
    problems = Problems()
    reader = _Reader(problems)
    for file in files:
        text = read_config_file(file, problems)
        if text is not None:
            reader.read(file, parse_assignments(text))
    problems.raise_node_error(hint="mend the configuration; `snf-image doctor` checks it")
    values = reader.values
    qemu = values.pop("qemu", reader.kvm)
    changes = values | ({"qemu": qemu} if qemu is not None else {})
    return NodeConfig.defaults(
        **changes, os_parameters=reader.os_parameters, warnings=tuple(problems.warnings)
    )


class _Reader:
    """Sorts the assignments of files by what their keys are."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self.values: dict[str, Any] = {}
        self.os_parameters: dict[str, Secret] = {}
        self.kvm: str | None = None
        self._everywhere: Final = BY_NAME.keys() | _OS_PARAMETERS.keys()

    def read(self, file: ConfigFile, entries: list[Entry]) -> None:
        unknown: set[str] = set()
        for entry in entries:
            where = f"{file.path}:{entry.line}"
            name = entry.name
            if name in self._everywhere and file.only is not None and name not in file.only:
                self._problems.warn(f"{where}: {name} has no effect in this file and is ignored")
            elif entry.value is None:
                self._unparsable(where, entry)
            elif name in BY_NAME:
                self._known(where, BY_NAME[name], entry.value)
            elif name in _OS_PARAMETERS:
                self._os_parameter(_OS_PARAMETERS[name], entry.value)
            elif name == "KVM":
                self.kvm = self._problems.parse(f"{where}: KVM (new name QEMU)", parse_program, entry.value)
            elif name is not None and name not in unknown:
                unknown.add(name)
                self._problems.warn(_why_ignored(where, name, entry.value))

    def _known(self, where: str, row: Variable, text: str) -> None:
        if not text and not row.empty_is_value:
            self.values.pop(row.field, None)
            return
        if row.name == "UNATTEND":
            self._problems.warn(f"{where}: UNATTEND is deprecated, use the parameter os_answer_file")
        value = self._problems.parse(f"{where}: {row.name}", row.parse, text)
        if row.parse is parse_duration and value == 0:
            self._problems.warn(f"{where}: {row.name}: 0 means no limit")
        self.values[row.field] = value

    def _os_parameter(self, name: str, text: str) -> None:
        if text:
            self.os_parameters[name] = Secret(text)
        else:
            self.os_parameters.pop(name, None)

    def _unparsable(self, where: str, entry: Entry) -> None:
        """An error, unless the key would have been ignored anyway (D-15)."""
        name = entry.name
        if name is None or name in BY_NAME or name in _OS_PARAMETERS or name == "KVM":
            self._problems.error(f"{where}: {name + ': ' if name else ''}{entry.error}")
        else:
            self._problems.warn(f"{where}: {name} is ignored: {entry.error}")


def _why_ignored(where: str, name: str, value: str) -> str:
    if name in OBSOLETE:
        return f"{where}: {name} is obsolete and ignored: {OBSOLETE[name]}"
    if name.startswith(OBSOLETE_PREFIXES):
        return f"{where}: {name} is obsolete and ignored: Pithos needs a back-end of its own"
    if name == "CURL":
        insecure = {"-k", "--insecure"} & set(value.split())
        more = "; certificates are verified unless FETCH_INSECURE=yes says otherwise" if insecure else ""
        return f"{where}: CURL is obsolete and ignored{more}"
    return f"{where}: {name} is not known and ignored{did_you_mean(name, BY_NAME)}"
