"""What an error of the kernel, or a wrong kind of file, says about the image (one line for its user)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, NoReturn

from snf_image_helper.errors import ImageError

ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)
# Never an image's fault: the descriptor, the memory or the kernel of the helper.
_OURS: Final = (errno.EBADF, errno.EFAULT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSYS)
_MEANINGS: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "the file system is full"),
    **dict.fromkeys((errno.EUCLEAN, errno.EBADMSG, errno.EIO), "the file system is damaged"),
    errno.ENOENT: "the directory it belongs in does not exist",
    errno.ENOTDIR: "not a directory, or below something that is none",
    errno.ELOOP: "too many links",
    # Mounted for writing, it is so by its fstab, or because the kernel found damage.
    errno.EROFS: "the file system is read-only, or became so because it is damaged",
}
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}


@contextlib.contextmanager
def blaming(path: str) -> Iterator[None]:
    """Turn errors of the kernel about ``path`` into errors about the image."""
    try:
        yield
    except OSError as error:
        blame(path, error)


def blame(path: str, error: OSError) -> NoReturn:
    """Raise :class:`ImageError` for an error that ``path`` caused, ``error`` itself for one of ours."""
    if error.errno in _OURS:
        raise error
    raise ImageError(f"{path}: {_MEANINGS.get(error.errno or 0, error.strerror)}") from None


def demand_regular(path: str, status: os.stat_result) -> None:
    """:class:`ImageError` unless ``status`` is that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: not a regular file but {_KINDS.get(stat.S_IFMT(status.st_mode), 'odd')}")
