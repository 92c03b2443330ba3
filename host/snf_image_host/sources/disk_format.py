"""Reading an image in a disk format: qemu, sandboxed, turns it into a plain disk that we read from.

qemu gets the image as an open descriptor, the driver's name and nothing else: no machine, no network, no
right to become anybody else or to start a program. What is on the disk comes back over a socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from typing import Final

from snf_image_host.deployment import SourceSettings
from snf_image_host.disk_formats import inspect_disk_format
from snf_image_host.errors import ImageError, NodeError
from snf_image_host.image_container import Container
from snf_image_host.nbd import NbdClient, NbdError
from snf_image_host.vm.account import Account
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_host.vm.qmp import Qmp, QmpError
from snf_image_process import PIPE, Deadline, ProcessError, Running, start

_DRIVERS: Final = {
    Container.QCOW2: "qcow2",
    Container.VMDK: "vmdk",
    Container.VHD: "vpc",
    Container.VHDX: "vhdx",
    Container.VDI: "vdi",
}
_CAN_HAVE_BACKING: Final = (Container.QCOW2, Container.VMDK)
_LIMITS: Final = Limits(address_space=2 << 30, files=128, processes=64, file_size=0)
_EXPORT: Final = "image"
_START_SECONDS: Final = 60.0
_READ_SECONDS: Final = 300.0


class DiskFormatSource:
    """The plain disk, in order. ``size`` in bytes."""

    def __init__(self, client: NbdClient, running: Running, shown: str) -> None:
        self.size: int | None = client.size
        self._end = client.size
        self._client = client
        self._running = running
        self._shown = shown
        self._position = 0

    def read_into(self, view: memoryview) -> int:
        count = min(len(view), self._end - self._position)
        if not count:
            return 0
        try:
            self._client.read_into(view[:count], self._position)
        except NbdError as error:
            raise ImageError(
                f"the image {self._shown} is damaged: it cannot be read at byte {self._position} ({error})"
            ) from None
        self._position += count
        return count

    def abandon(self) -> None:
        self._running.stop()


@contextlib.contextmanager
def open_disk_format(
    fd: int, container: Container, settings: SourceSettings, account: Account, shown: str
) -> Iterator[DiskFormatSource]:
    """What is in the image that ``fd`` is, a file or a block device. Looked at before qemu gets it."""
    size = os.lseek(fd, 0, os.SEEK_END)
    inspect_disk_format(lambda length, offset: os.pread(fd, length, offset), size, container, shown)
    with contextlib.ExitStack() as alive:
        image = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        alive.callback(os.close, image)
        ours, theirs = socket.socketpair()
        alive.enter_context(theirs)
        running = alive.enter_context(_start(image, theirs.fileno(), container, settings, account))
        theirs.close()
        qmp = Qmp(ours)
        alive.callback(qmp.close)
        try:
            client = _export(qmp)
        except (QmpError, NbdError) as error:
            raise ImageError(
                f"the {container} image {shown} cannot be opened: {_said(running) or error}"
            ) from None
        alive.callback(client.close)
        yield DiskFormatSource(client, running, shown)


def _start(
    image: int, monitor: int, container: Container, settings: SourceSettings, account: Account
) -> Running:
    driver = "host_device" if stat.S_ISBLK(os.fstat(image).st_mode) else "file"
    words = [
        *launcher(account, limits=_LIMITS),
        *(settings.qemu, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"),
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        *("-accel", "tcg,tb-size=1"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-add-fd", f"fd={image},set=1"),
        "-blockdev",
        f"driver={driver},node-name=file,filename=/dev/fdset/1,read-only=on,auto-read-only=off,locking=off",
        *("-blockdev", json.dumps(_node(container))),
    ]
    try:
        return start(words, stderr=PIPE, pass_fds=(image, monitor))
    except ProcessError as error:
        raise NodeError(f"{settings.qemu} cannot be started: {error.reason}") from None


def _node(container: Container) -> dict[str, object]:
    """The image as qemu is told of it. Whatever it says of a backing file, none is opened."""
    node: dict[str, object] = {
        "driver": _DRIVERS[container], "node-name": "image", "file": "file", "read-only": True,
    }  # fmt: skip
    return node | ({"backing": None} if container in _CAN_HAVE_BACKING else {})


def _export(qmp: Qmp) -> NbdClient:
    """Have qemu serve the disk on a socket that nobody else can reach, and connect to it."""
    qmp.greet(Deadline(_START_SECONDS))
    with tempfile.TemporaryDirectory(prefix="snf-image-") as directory, socket.socket(socket.AF_UNIX) as door:
        path = os.path.join(directory, "s")
        door.bind(path)
        door.listen(1)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_READ_SECONDS)
        connection.connect(path)
        qmp.execute("getfd", {"fdname": "door"}, fds=(door.fileno(),))
    qmp.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": "door"}}, "max-connections": 1})
    qmp.execute(
        "block-export-add",
        {"type": "nbd", "id": "export", "node-name": "image", "name": _EXPORT, "writable": False},
    )
    return NbdClient(connection, _EXPORT)


def _said(running: Running) -> str:
    """The last line of its complaints, inert."""
    assert running.stderr is not None  # noqa: S101 - it was asked for
    running.stop(grace=0.5)
    os.set_blocking(running.stderr.fileno(), False)
    with contextlib.suppress(OSError):
        lines = os.read(running.stderr.fileno(), 65536).decode("ascii", "replace").strip().splitlines()
        return "".join(char if char.isprintable() else "?" for char in (lines or [""])[-1])[-200:]
    return ""
