"""Which accelerator the helper VM uses: ``auto`` believes what it has tried, not what it sees.

On nested and para-virtual hosts ``/dev/kvm`` can open and still no ordinary guest get past its early boot.
So a trial VM boots the helper's own kernel, once per kernel, qemu and helper; the verdict is remembered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from typing import Any, Final, Protocol

from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import NodeError
from snf_image_host.reporter import Reporter
from snf_image_host.vm.account import Account
from snf_image_host.vm.commandline import KernelWords, UsedAccelerator, kernel_words
from snf_image_host.vm.evidence import EvidenceFile
from snf_image_host.vm.kvm import KvmAccess, kvm_access
from snf_image_host.vm.qemu import Qemu
from snf_image_host.vm.result import ResultPort
from snf_image_host.vm.serial import Ignored, Port

PROBE_SECONDS: Final = 10.0
PROBE_WORD: Final = b"PROBE"
_FAILURE_LASTS: Final = 24 * 3600.0
_BUSY_LOAD_PER_CPU: Final = 1.5


class HelperFiles(KernelWords, Protocol):
    """What is used of a helper image."""

    @property
    def kernel(self) -> str: ...
    @property
    def initrd(self) -> str: ...
    @property
    def root(self) -> str: ...
    @property
    def build(self) -> str: ...
    @property
    def contract_version(self) -> int: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a guest runs under KVM.

    ``remembered``: known from an earlier trial. ``certain``: worth remembering.
    """

    works: bool
    reason: str = ""
    remembered: bool = False
    certain: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``groups``: supplementary groups that qemu needs for it."""

    accelerator: UsedAccelerator
    groups: tuple[int, ...] = ()


def choose_accelerator(
    settings: HelperSettings, image: HelperFiles, account: Account, reporter: Reporter
) -> Choice:
    """What ``settings.accelerator`` means on this node. ``auto`` falls back to TCG and says so once.

    :class:`NodeError` if KVM is demanded and not to be had.
    """
    if settings.accelerator == "tcg":
        return Choice(accelerator="tcg")
    access = kvm_access(account)
    if settings.accelerator == "kvm":
        if not access.allowed:
            raise NodeError(
                f"KVM is demanded but cannot be used: {access.reason}",
                hint="set HELPER_ACCEL=auto, or give the helper's user access to /dev/kvm",
            )
        return Choice(accelerator="kvm", groups=access.groups)
    verdict = check_kvm(settings, image, account, access=access)
    if verdict.works:
        return Choice(accelerator="kvm", groups=access.groups)
    known = " (known from an earlier trial)" if verdict.remembered else ""
    reporter.info(f"the helper VM runs in emulation (TCG), slower than with KVM: {verdict.reason}{known}")
    return Choice(accelerator="tcg")


def check_kvm(
    settings: HelperSettings,
    image: HelperFiles,
    account: Account,
    *,
    access: KvmAccess | None = None,
    again: bool = False,
) -> Verdict:
    """Whether the helper runs under KVM here; tries it unless that is known. ``again``: try in any case."""
    access = access or kvm_access(account)
    if not access.allowed:
        return Verdict(works=False, reason=access.reason)
    memory = ProbeMemory(settings, image)
    if not again and (known := memory.recall()) is not None:
        return known
    verdict = _trial(settings, image, account, access)
    if verdict.certain:
        memory.remember(verdict)
    return verdict


def _trial(settings: HelperSettings, image: HelperFiles, account: Account, access: KvmAccess) -> Verdict:
    """Boot the helper's kernel as far as its initial RAM disk, which answers on the second port."""
    result = ResultPort(EvidenceFile(None, ""))
    quiet = dataclasses.replace(settings, debug=False, cpus=1)
    ports = (Port("console", Ignored()), Port("result", result), Port("events", Ignored()))
    with Qemu(
        quiet, account=account, groups=access.groups, accelerator="kvm", ports=ports, evidence_dir=None
    ) as qemu:
        words = kernel_words(image, "kvm", debug=False, extra=["snf_image_probe"])
        try:
            qemu.start(kernel=image.kernel, initrd=image.initrd, words=words, root=None)
        except NodeError as error:
            last = f": {error.details[-1]}" if error.details else ""
            return Verdict(works=False, reason=f"qemu does not start under KVM{last}")
        if qemu.wait(PROBE_SECONDS) is None:
            return Verdict(
                works=False,
                reason=f"a guest under KVM does not get past its early boot within {PROBE_SECONDS:g} s",
                certain=not _node_is_busy(),
            )
        qemu.settle()
        if result.first_line == PROBE_WORD:
            return Verdict(works=True)
        last = f": {qemu.printed[-1]}" if qemu.printed else ""
        return Verdict(works=False, reason=f"a guest under KVM ends before it has started{last}")


def _node_is_busy() -> bool:
    """Whether a guest may have been slow only because the node has too much to do."""
    return os.getloadavg()[0] > _BUSY_LOAD_PER_CPU * (os.cpu_count() or 1)


class ProbeMemory:
    """Verdicts of earlier trials, in a private file of the state directory (D-25).

    A success holds for one kernel, qemu and helper; a failure only until the node restarts, and for a day
    at most. Whatever is wrong with the file, it counts as empty.
    """

    def __init__(self, settings: HelperSettings, image: HelperFiles) -> None:
        self._directory = settings.state_dir
        self._path = os.path.join(settings.state_dir, "kvm-probe.json")
        self._key = _key(settings.qemu, image.build)

    def recall(self) -> Verdict | None:
        """What is known, or None."""
        entry = self._load().get(self._key)
        if not isinstance(entry, dict) or type(entry.get("works")) is not bool:
            return None
        if entry["works"]:
            return Verdict(works=True, remembered=True)
        when = entry.get("time")
        fresh = isinstance(when, int | float) and 0 <= time.time() - when < _FAILURE_LASTS
        if not fresh or entry.get("boot") != _boot_id():
            return None
        return Verdict(works=False, reason=str(entry.get("reason"))[:500], remembered=True)

    def remember(self, verdict: Verdict) -> None:
        """Keep a verdict; a state directory that cannot be written means that it is tried again."""
        entry = {"works": verdict.works, "reason": verdict.reason, "time": time.time(), "boot": _boot_id()}
        new = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600), "w", encoding="ascii") as file:
                # Only the newest: an older kernel, qemu or helper is not coming back every day.
                json.dump({self._key: entry}, file)
            os.replace(new, self._path)

    def _load(self) -> dict[str, Any]:
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
                state = os.fstat(file.fileno())
                if state.st_uid != os.geteuid() or state.st_mode & 0o022:
                    return {}
                data = json.loads(file.read(65536))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}


def _key(qemu: str, build: str) -> str:
    """Changes with the running kernel, the helper, and qemu: its size and time stand for its version."""
    path = shutil.which(qemu) or qemu
    try:
        state = os.stat(path)
        binary = f"{os.path.realpath(path)} {state.st_size} {state.st_mtime_ns}"
    except OSError:
        binary = path
    system = os.uname()
    parts = f"{system.release}\n{system.version}\n{binary}\n{build}"
    return hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
