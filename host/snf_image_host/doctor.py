"""Is this node able to deploy? Each check says what it found and what to do about it (D-32)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from snf_image_host import helper_image
from snf_image_host.configuration.files import ConfigFile
from snf_image_host.configuration.node_config import NodeConfig, load_config
from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.fetching import confined
from snf_image_host.helper_image import HelperImage
from snf_image_host.planning.helper_settings import helper_settings
from snf_image_host.planning.request import Overrides
from snf_image_host.reporter import Reporter
from snf_image_host.vm.accelerator import check_kvm
from snf_image_host.vm.account import account_for
from snf_image_host.vm.kvm import kvm_access
from snf_image_process import ProcessError, clean_environment, run

_MIB: Final = 1024 * 1024
_OLDEST_QEMU: Final = (7, 2)
_EVIDENCE_BYTES: Final = 64 * _MIB
_QEMU_OVERHEAD_MIB: Final = 192
_VARIANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.conf")
_PROGRAMS: Final = {
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "setpriv": "util-linux",
    "prlimit": "util-linux",
}
_HELPFUL_PROGRAMS: Final = {"ssh-keygen": "openssh-client"}

Status = Literal["fine", "warning", "problem"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. A ``problem`` prevents deployments. ``advice``: what to do."""

    check: str
    status: Status
    message: str
    advice: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the checks look; tests put something broken there."""

    search_path: str = dataclasses.field(default_factory=lambda: clean_environment()["PATH"])
    evidence_dir: str = dataclasses.field(default_factory=lambda: os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108
    meminfo: str = "/proc/meminfo"
    subuid: str = "/etc/subuid"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the checks are about. ``helper``: None if there is no usable helper image."""

    config: NodeConfig
    settings: HelperSettings
    places: Places
    helper: HelperImage | None
    probe: bool


def examine(
    files: Sequence[ConfigFile], overrides: Overrides, *, probe: bool = False, places: Places | None = None
) -> list[Finding]:
    """Every finding, in the order of the checks. ``probe``: boot a trial VM in any case."""
    findings: list[Finding] = []
    try:
        config = load_config(files)
    except NodeError as error:
        advice = "mend the file; the other checks use defaults"
        findings += (_problem("configuration", message, advice) for message in error.messages)
        config = NodeConfig.defaults()
    else:
        findings += (_warning("configuration", message, "") for message in config.warnings)
        if not findings:
            findings.append(_fine("configuration", "nothing odd"))
    settings = helper_settings(config, overrides)
    helper: HelperImage | None = None
    with contextlib.suppress(NodeError):
        helper = helper_image.load(settings.directory)
    node = Node(config=config, settings=settings, places=places or Places(), helper=helper, probe=probe)
    for check in CHECKS:
        findings += check(node)
    return findings


def check_programs(node: Node) -> Iterator[Finding]:
    """The programs that a deployment starts."""
    missing = [name for name in _PROGRAMS if not _which(node, name)]
    for name in missing:
        yield _problem("programs", f"{name} is not installed", f"apt-get install {_PROGRAMS[name]}")
    for name, package in _HELPFUL_PROGRAMS.items():
        if not _which(node, name):
            message = f"{name} is not installed, the helper makes SSH host keys, which is slower"
            yield _warning("programs", message, f"apt-get install {package}")
    if not missing:
        yield _fine("programs", ", ".join(_PROGRAMS))


def check_qemu(node: Node) -> Iterator[Finding]:
    """qemu is there, starts, and is new enough."""
    path = _which(node, node.settings.qemu)
    if path is None:
        advice = "apt-get install qemu-system-x86, or set QEMU to the path of the program"
        yield _problem("qemu", f"{node.settings.qemu} is not installed", advice)
        return
    try:
        printed = run([path, "--version"], timeout=20).text
    except ProcessError as error:
        yield _problem("qemu", f"{path} does not start: {error.reason}", "install qemu-system-x86 again")
        return
    match = re.search(r"version (\d+)\.(\d+)[\w.]*", printed)
    if match is None:
        yield _warning("qemu", f"{path} does not tell its version", "")
    elif (int(match[1]), int(match[2])) < _OLDEST_QEMU:
        oldest = ".".join(map(str, _OLDEST_QEMU))
        yield _warning(
            "qemu", f"{path} is {match[0]}, older than {oldest}", f"install QEMU {oldest} or later"
        )
    else:
        yield _fine("qemu", f"{path}, {match[0]}")


def check_helper(node: Node) -> Iterator[Finding]:
    """The helper image is there, is ours, and every digest is right (R-HLP-17, R-HLP-18)."""
    directory = node.settings.directory
    problems = helper_image.verify(directory)
    for message in problems:
        yield _problem("helper image", message, f"snf-image helper build --output {directory}")
    if not problems and node.helper is None:
        yield _problem("helper image", f"{directory} cannot be used", "see `snf-image helper info`")
    elif node.helper is not None and not problems:
        yield _fine("helper image", f"{directory}, build {node.helper.build[:12]}")


def check_accelerator(node: Node) -> Iterator[Finding]:
    """KVM is there, may be used, and runs a guest (D-1, D-25)."""
    asked = node.settings.accelerator
    if asked == "tcg":
        yield _fine("accelerator", "tcg, as HELPER_ACCEL says; KVM is not tried")
        return
    verdict = None
    try:
        with account_for(node.settings, Reporter()) as account:
            access = kvm_access(account)
            if access.allowed and node.helper is not None and _which(node, node.settings.qemu):
                verdict = check_kvm(node.settings, node.helper, account, access=access, again=node.probe)
    except NodeError as error:
        yield _problem("accelerator", error.messages[0], error.hint or "see the checks of accounts and space")
        return
    works, reason = access.allowed, access.reason
    remembered = False
    if verdict is not None:
        works, reason, remembered = verdict.works, verdict.reason, verdict.remembered
    known = ", known from an earlier trial; --probe tries again" if remembered else ""
    if works:
        tried = "a guest runs" if verdict is not None else "may be used; not tried without a helper image"
        yield _fine("accelerator", f"KVM: {tried}{known}")
    elif asked == "kvm":
        advice = f"{_kvm_advice(reason)}; or set HELPER_ACCEL=auto"
        yield _problem("accelerator", f"HELPER_ACCEL=kvm, but {reason}{known}", advice)
    else:
        advice = f"{_kvm_advice(reason)}; emulation works, but is several times slower"
        yield _warning("accelerator", f"no KVM: {reason}{known}", advice)


def _kvm_advice(reason: str) -> str:
    if reason.startswith("permission denied"):
        return "chgrp kvm /dev/kvm; chmod 0660 /dev/kvm; without root: add the user to group kvm"
    if "there is no" in reason:
        return "enable virtualisation in the firmware, or nested virtualisation on the host of this VM"
    return "this machine's KVM does not run guests; set HELPER_ACCEL=tcg to stop trying"


def check_space(node: Node) -> Iterator[Finding]:
    """Room for the evidence of a deployment, and for what is remembered."""
    place = node.places.evidence_dir
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield _problem("space", f"{place}: {error.strerror}", "create it, or set TMPDIR to a directory")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        yield _problem("space", f"{place} cannot be written", "set TMPDIR to a directory that can")
    elif free < _EVIDENCE_BYTES:
        message = f"{place} has {free // _MIB} MiB left, {_EVIDENCE_BYTES // _MIB} MiB are needed"
        yield _problem("space", message, "make room, or set TMPDIR to a directory with more")
    else:
        yield _fine("space", f"{place} has {free // _MIB} MiB left")
    if not _can_be_made(node.settings.state_dir):
        message = f"{node.settings.state_dir} cannot be written, so the trial of KVM is repeated each time"
        yield _warning("space", message, "let its owner be the user who deploys")


def check_memory(node: Node) -> Iterator[Finding]:
    """Enough memory for one helper VM."""
    needed = node.settings.memory + _QEMU_OVERHEAD_MIB
    try:
        with open(node.places.meminfo, encoding="ascii") as file:
            match = re.search(r"^MemAvailable: +(\d+) kB$", file.read(), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        yield _warning("memory", "how much is available cannot be told", "")
        return
    available = int(match[1]) // 1024
    if available < needed:
        message = f"{available} MiB are available, a deployment needs {needed} MiB"
        yield _problem("memory", message, "end something, or lower HELPER_MEMORY (at least 128)")
    else:
        yield _fine("memory", f"{available} MiB available, a deployment needs {needed} MiB")


def check_variants(node: Node) -> Iterator[Finding]:
    """Every variant file can be read (R-SCR-3)."""
    directory = node.config.variants_dir
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
    except OSError:
        yield _fine("variants", f"no {directory}, which only Ganeti needs")
        return
    good = 0
    for name in names:
        path = os.path.join(directory, name)
        if not _VARIANT.fullmatch(name):
            yield _warning("variants", f"{path!r} cannot be the name of a variant", "rename it")
            continue
        try:
            load_config([ConfigFile(path=path)])
            good += 1
        except NodeError as error:
            for message in error.messages:
                yield _problem("variants", message, "mend the file")
    yield _fine("variants", f"{good} in {directory}")


def check_accounts(node: Node) -> Iterator[Finding]:
    """The accounts and user ids that programs run as (D-7)."""
    if node.settings.user is not None:
        message = f"HELPER_USER={node.settings.user}: helpers of parallel deployments can reach each other"
        yield _warning("accounts", message, "unset HELPER_USER, so that each gets a user id of its own")
        return
    first, last = node.settings.uid_range
    clashes = [entry.pw_name for entry in pwd.getpwall() if first <= entry.pw_uid <= last]
    clashes += [f"subordinate ids of {name}" for name in _subordinates(node.places.subuid, first, last)]
    for name in clashes:
        message = f"HELPER_UID_RANGE {first}-{last} overlaps with {name}"
        yield _problem("accounts", message, "choose a range that nobody uses")
    if not clashes:
        yield _fine("accounts", f"user ids {first} to {last} are free")


def check_fetching(_: Node) -> Iterator[Finding]:
    """The kernel can keep curl from the node's files (R-FETCH-4)."""
    version = confined.landlock_version()
    if version:
        yield _fine("fetching", f"curl can open only programs and CA certificates (Landlock {version})")
        return
    message = "the kernel offers no Landlock: what all users of this node can read, curl can read"
    advice = "start Linux 5.13 or later, with landlock among lsm= if that is on its command line"
    yield _warning("fetching", message, advice)


def _subordinates(path: str, first: int, last: int) -> Iterator[str]:
    """Whose subordinate user ids, as containers use them, overlap with a range."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            match = re.fullmatch(r"([^:]+):(\d+):(\d+)\s*", line)
            if match and int(match[2]) <= last and int(match[2]) + int(match[3]) > first:
                yield match[1]


CHECKS: Final[tuple[Callable[[Node], Iterator[Finding]], ...]] = (
    check_programs,
    check_qemu,
    check_helper,
    check_accelerator,
    check_space,
    check_memory,
    check_variants,
    check_accounts,
    check_fetching,
)


def _which(node: Node, name: str) -> str | None:
    return shutil.which(name, path=node.places.search_path)


def _can_be_made(directory: str) -> bool:
    """Whether a directory can be written, or made below the nearest one that exists."""
    while not os.path.exists(directory) and directory != "/":
        directory = os.path.dirname(directory)
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _fine(check: str, message: str) -> Finding:
    return Finding(check=check, status="fine", message=message)


def _warning(check: str, message: str, advice: str) -> Finding:
    return Finding(check=check, status="warning", message=message, advice=advice)


def _problem(check: str, message: str, advice: str) -> Finding:
    return Finding(check=check, status="problem", message=message, advice=advice)
