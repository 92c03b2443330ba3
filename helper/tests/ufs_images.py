"""UFS file systems for tests, made by the fixtures' maker, which shares no code with the helper."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ufs.mkfs import Node, make
from ufs.superblock import Shape

MIB = 1024 * 1024
NODES = (
    Node(path="etc", mode=0o755),
    Node(path="etc/rc.conf", data=b'hostname="image"\n'),
    Node(path="etc/same", same_as="etc/rc.conf"),
    Node(path="big", data=bytes(range(256)) * 3000),
    Node(path="link", link="etc/rc.conf"),
    Node(path="attributes", data=b"a" * 5000, attributes=b"of the file"),
)


@contextlib.contextmanager
def filesystem(path: Path, shape: Shape, *, device: int | None = None) -> Iterator[int]:
    """A new file system in a file that is then as large as the device: its descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        make(fd, shape, NODES)
        os.ftruncate(fd, device or shape.size)
        yield fd
    finally:
        os.close(fd)
