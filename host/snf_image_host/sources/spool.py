"""A stream whose format needs to be read here and there is kept in a file without a name, for a while."""

from __future__ import annotations

import os

from snf_image_host.deployment import SourceSettings
from snf_image_host.errors import NodeError, UserError
from snf_image_host.sources.reading import BLOCK, ByteSource

_MIB = 1024 * 1024


def spool(source: ByteSource, settings: SourceSettings, shown: str) -> int:
    """A descriptor of a file with all of ``source``; it is gone when the descriptor is closed.

    :class:`UserError` if it is longer than the operator allows, :class:`NodeError` if there is no room.
    """
    try:
        fd = os.open(settings.spool_dir, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NodeError(
            f"SPOOL_DIR {settings.spool_dir} cannot be used: {error.strerror}",
            hint="an image in a disk format that comes as a stream is kept there for a while",
        ) from None
    try:
        _fill(fd, source, settings, shown)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _fill(fd: int, source: ByteSource, settings: SourceSettings, shown: str) -> None:
    block, total = memoryview(bytearray(BLOCK)), 0
    while count := source.read_into(block):
        total += count
        if total > settings.spool_max:
            raise UserError(
                f"the image {shown} has more than {settings.spool_max // _MIB} MiB before it is unwrapped",
                hint="SPOOL_MAX_SIZE of the configuration sets the limit",
            )
        view = block[:count]
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            raise NodeError(f"SPOOL_DIR {settings.spool_dir}: {error.strerror}") from None
