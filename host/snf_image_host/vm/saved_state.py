"""The state of a helper that has booted and waits for a job, kept in a file: later ones continue from it.

The state is made before any image is near, is written by this program alone (qemu only gets pipes and
descriptors to read) and is checked against its digest before each use: qemu does not notice a flipped bit
of a guest's memory. Whatever could make it wrong is part of its key.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any, Final, Self

from snf_image_contract.codec import ContractError
from snf_image_contract.events import MAX_LINE, Hello, decode_event
from snf_image_contract.job import CONTRACT_VERSION, SLOTS_WORD
from snf_image_contract.secret import Secret
from snf_image_host.deployment import HelperSettings
from snf_image_host.vm.accelerator import HelperFiles
from snf_image_host.vm.commandline import UsedAccelerator, VmSpec, kernel_words, qemu_argv

PRELOAD_WORD: Final = "snf_image_preload"
"""Kernel word of a VM whose state is to be saved, and of those that continue from it."""
_CHUNK: Final = 1024 * 1024
_ENTROPY_BYTES: Final = 64
_MAX_RECORD: Final = MAX_LINE + 4096
_KEPT: Final = 2
"""States of other settings or builds that stay beside the newest."""


class StateError(Exception):
    """A saved state that cannot be used, or could not be saved; the text says why."""


def directory_of(settings: HelperSettings) -> str:
    """Beside the helper image for root, in the caller's cache otherwise (D-8)."""
    if os.geteuid() == 0 and os.access(settings.directory, os.W_OK):
        return os.path.join(settings.directory, "warm")
    return os.path.join(settings.state_dir, "warm")


def store_of(settings: HelperSettings, image: HelperFiles, accelerator: UsedAccelerator) -> StateStore:
    """Where the state is that fits this helper, this node and these settings, or is to be.

    Another helper, qemu, command line or processor gives another key.
    """
    qemu = os.path.realpath(shutil.which(settings.qemu) or settings.qemu)
    system = os.uname()
    parts = {
        "contract": CONTRACT_VERSION,
        "build": image.build,
        "files": [_identity(path) for path in (image.kernel, image.initrd, image.root, qemu)],
        "argv": qemu_argv(_spec(settings, image, accelerator)),
        "host": [system.release, system.version, system.machine, _processor()],
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return StateStore(directory_of(settings), key)


def fresh_entropy() -> Secret:
    """What a job brings for the helper's random generators, as base64."""
    return Secret(base64.b64encode(os.urandom(_ENTROPY_BYTES)).decode("ascii"))


def _spec(settings: HelperSettings, image: HelperFiles, accelerator: UsedAccelerator) -> VmSpec:
    """The VM with placeholders for descriptors, whose numbers differ from one deployment to the next."""
    return VmSpec(
        qemu=settings.qemu,
        accelerator=accelerator,
        memory=settings.memory,
        cpus=settings.cpus,
        kernel_fd=0,
        initrd_fd=0,
        kernel_words=kernel_words(image, accelerator, debug=False, extra=[SLOTS_WORD, PRELOAD_WORD]),
        root_fd=0,
        qmp_fd=0,
        serial_fds=(0, 0, 0),
        slots="read-write",
    )


def _identity(path: str) -> list[Any]:
    try:
        status = os.stat(path)
    except OSError:
        return [path]
    return [os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino]


def _processor() -> str:
    """Model and features of the host's processor, as far as a guest can see them."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        first = file.read().partition("\n\n")[0]
    wanted = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    return "\n".join(line for line in first.splitlines() if line.partition(":")[0].strip() in wanted)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What stands beside a state.

    ``hello``: the line that the helper said before it was saved. ``qemu``: its version as it told itself, for
    the program that is named may be a script that starts now this one and now that.
    """

    size: int
    sha256: str
    hello: bytes
    qemu: str


class OpenState:
    """A state that is open for reading. A context manager; its digest is computed in a thread meanwhile."""

    def __init__(self, fd: int, record: Record) -> None:
        self.fd = fd
        self.record = record
        self._digest = ""
        self._thread = threading.Thread(target=self._hash, name="helper-state", daemon=True)
        self._thread.start()

    @property
    def hello(self) -> Hello:
        event = decode_event(self.record.hello, 0)
        assert isinstance(event, Hello)  # noqa: S101 - find_state has checked it
        return event

    def demand_build(self, build: str) -> None:
        """:class:`StateError` if the saved helper is of another build, or speaks another contract."""
        if (self.hello.contract_version, self.hello.build) != (CONTRACT_VERSION, build):
            raise StateError("it is of another helper")

    def demand_qemu(self, version: str) -> None:
        """:class:`StateError` if it was saved by another qemu than the one that is to continue from it."""
        if self.record.qemu != version:
            raise StateError("it is of another qemu")

    def verify(self) -> None:
        """Wait for the digest; :class:`StateError` if it is not the recorded one."""
        self._thread.join()
        if self._digest != self.record.sha256:
            raise StateError("its digest is not the one that was recorded")

    def _hash(self) -> None:
        digest = hashlib.sha256()
        with contextlib.suppress(OSError):
            position = 0
            while chunk := os.pread(self.fd, _CHUNK, position):
                digest.update(chunk)
                position += len(chunk)
            if position == self.record.size:
                self._digest = digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        os.close(self.fd)


class StateStore:
    """The states of one directory, of which this deployment can use the one under its key."""

    def __init__(self, directory: str, key: str) -> None:
        self._directory = directory
        self._state = os.path.join(directory, f"{key}.state")
        self._record = os.path.join(directory, f"{key}.json")
        self._new = os.path.join(directory, f"{key}.new")
        self._received: tuple[int, str] | None = None

    @property
    def path(self) -> str:
        return self._state

    def exists(self) -> bool:
        return os.path.exists(self._record)

    def open(self) -> OpenState | None:
        """The state, if there is one; :class:`StateError` if there is one that must not be used."""
        try:
            record = _read_record(_open_private(self._record))
            fd = _open_private(self._state)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(error.strerror or "it cannot be read") from None
        size = os.fstat(fd).st_size
        if size != record.size:
            os.close(fd)
            raise StateError(f"it has {size} bytes, {record.size} were saved")
        return OpenState(fd, record)

    def discard(self) -> None:
        """Remove the state: the next deployment makes another."""
        for path in (self._record, self._state):
            with contextlib.suppress(OSError):
                os.unlink(path)

    @contextlib.contextmanager
    def being_made(self) -> Iterator[bool]:
        """False if somebody else is just making a state here."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fd = os.open(os.path.join(self._directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(fd)

    def receive(self, stream: int, *, limit: int) -> None:
        """Write what comes from ``stream`` until its end to a file that is not the state yet.

        :class:`StateError` if that is more than ``limit`` bytes, or cannot be written.
        """
        try:
            self._received = _receive(stream, self._new, limit)
        except OSError as error:
            raise StateError(f"{self._directory}: {error.strerror}") from None

    def commit(self, hello: bytes, qemu: str) -> None:
        """Make what was received the state: it appears under its name whole or not at all.

        ``hello``, ``qemu``: see :class:`Record`.
        """
        assert self._received is not None  # noqa: S101 - received before
        size, sha256 = self._received
        record = {"size": size, "sha256": sha256, "hello": hello.decode("ascii"), "qemu": qemu}
        try:
            self._unlink(self._record)  # it speaks of the file that is replaced now
            os.replace(self._new, self._state)
            _write_private(self._new, json.dumps(record).encode("ascii"))
            os.replace(self._new, self._record)
        except OSError as error:
            raise StateError(f"{self._directory}: {error.strerror}") from None
        self._remove_old()

    def abandon(self) -> None:
        """Remove what was received and not committed."""
        self._unlink(self._new)

    @staticmethod
    def _unlink(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _remove_old(self) -> None:
        """States of other keys but for the newest, and what others left that were killed at this work."""
        with contextlib.suppress(OSError):
            paths = [os.path.join(self._directory, name) for name in os.listdir(self._directory)]
            states = sorted((path for path in paths if path.endswith(".state")), key=os.path.getmtime)
            old = {path.removesuffix(".state") for path in states[: -_KEPT - 1]}
            for path in paths:
                if path.endswith(".new") or os.path.splitext(path)[0] in old:
                    self._unlink(path)


def _open_private(path: str) -> int:
    """Open a file that only its owner, who must be us, can write to or read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(fd)
        raise StateError(f"{path} is not private to us")
    return fd


def _read_record(fd: int) -> Record:
    with open(fd, "rb") as file:
        data = file.read(_MAX_RECORD)
    try:
        plain = json.loads(data)
        record = Record(
            size=int(plain["size"]),
            sha256=str(plain["sha256"]),
            hello=plain["hello"].encode("ascii"),
            qemu=str(plain["qemu"]),
        )
        if not isinstance(decode_event(record.hello, 0), Hello):
            raise StateError("its record holds no hello")
    except (ValueError, TypeError, KeyError, AttributeError, ContractError):
        raise StateError("its record cannot be read") from None
    return record


def _receive(stream: int, path: str, limit: int) -> tuple[int, str]:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    digest = hashlib.sha256()
    size = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        while chunk := os.read(stream, _CHUNK):
            size += len(chunk)
            if size > limit:
                raise StateError(f"it is larger than {limit} bytes")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _write_private(path: str, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
