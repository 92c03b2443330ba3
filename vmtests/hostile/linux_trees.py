"""Sound file systems whose files are meant to harm whoever reads or writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostile.image import EITHER, FINE, UNFIT, Rows
from hostile.region import MIB, ImageFile

_BASE: Final = "alpine-mbr-ext4"
_ESCAPES: Final = b"\x1b]0;owned\x07\x1b[2J\x9b31m\r"
_LINES: Final = 10_000


def has(path: str, content: bytes) -> Callable[[ImageFile], None]:
    """A file with that content in the place of another."""
    return lambda image: image.ext.replace(path, content)


def _link(path: str, target: str) -> Callable[[ImageFile], None]:
    return lambda image: image.ext.link(path, target)


def node(path: str, *kind: str) -> Callable[[ImageFile], None]:
    """A pipe (``p``) or a device (``c`` or ``b``, major, minor) in the place of a file."""
    return lambda image: image.ext.node(path, *kind)


def directory(path: str) -> Callable[[ImageFile], None]:
    """A directory in the place of a file."""

    def damage(image: ImageFile) -> None:
        image.ext.remove(path)
        image.ext.debug(f"mkdir {path}", write=True)

    return damage


def _moved(path: str, target: str) -> Callable[[ImageFile], None]:
    """A link in the place of a directory, which is elsewhere then."""

    def damage(image: ImageFile) -> None:
        image.ext.debug(f"ln {path} {path}.away", f"unlink {path}", f"symlink {path} {target}", write=True)

    return damage


def _hard_links(image: ImageFile) -> None:
    """Files that are written have further names."""
    for name in ("shadow", "hostname"):
        image.ext.debug(f"ln /etc/{name} /srv/{name}", f"sif /etc/{name} links_count 2", write=True)


def _chain_of_links(image: ImageFile) -> None:
    """60 links in a row, and the file at their end."""
    image.ext.link("/etc/hostname", "/srv/1")
    image.ext.debug(*(f"symlink /srv/{n} /srv/{n + 1}" for n in range(1, 60)), write=True)
    image.ext.replace("/srv/60", b"image\n")


def _deep_directories(image: ImageFile) -> None:
    image.ext.debug("cd /etc/ssh", *["mkdir d", "cd d"] * 300, write=True)


def many_names(path: str, where: str, count: int) -> Callable[[ImageFile], None]:
    """So many names of one file in a directory; debugfs makes no room for them by itself."""

    def damage(image: ImageFile) -> None:
        blocks = [f"expand_dir {where}"] * (count // 25)
        names = (f"ln {path} {where}/ifcfg-e{n:05}" for n in range(count))
        image.ext.debug(*blocks, *names, f"sif {path} links_count {count + 1}", write=True)

    return damage


def _many_neighbours(image: ImageFile) -> None:
    """2,000 names in the directory where more interfaces may be described."""
    where = "/etc/network/interfaces.d"
    image.ext.debug(f"mkdir {where}", write=True)
    many_names("/etc/hosts", where, 2000)(image)


def _fstab(*lines: str) -> Callable[[ImageFile], None]:
    return has("/etc/fstab", "".join(f"{line}\n" for line in lines).encode())


_MANY_MOUNTS: Final = tuple(f"tmpfs /mnt/{n} tmpfs noauto,size={n} 0 0" for n in range(_LINES))
_ROOT_LINE: Final = "/dev/vda1 / ext4 defaults 0 1"
_ACCOUNTS: Final = b"".join(b"u%d:x:%d:%d::/home/u%d:/bin/sh\n" % (n, n, n, n) for n in range(1000, 800_000))
_HOME_OUTSIDE: Final = b"root:x:0:0:root:/../../../../proc/1/root:/bin/sh\n"
_HOME_ABSURD: Final = b"root:x:99999999999999999999:-1:root:relative/../..\x1b[2J:/bin/sh\n"


_row: Final = Rows("tree", _BASE)
IMAGES: Final = (
    _row("shadow-links-to-itself", "links", _link("/etc/shadow", "shadow"),
         words="/etc/shadow: too many links"),
    _row("hostname-links-to-itself", "links", _link("/etc/hostname", "/etc/hostname"),
         words="/etc/hostname: too many links"),
    _row("60-links-in-a-row", "links", _chain_of_links, words="/etc/hostname: too many links"),
    _row("etc-links-to-itself", "links", _moved("/etc", "etc")),
    _row("root-links-to-proc", "links", _moved("/root", "/proc/1/root/root"), ends=EITHER),
    _row("ssh-links-out", "links", _moved("/etc/ssh", "../../../../../../dev"), ends=EITHER),
    _row("hard-links", "links", _hard_links, ends=FINE),
    _row("home-links-out", "links", _moved("/home", "../../../../run"), base="ubuntu-mbr-home-ext4",
         ends=EITHER),
    _row("hostname-is-a-pipe", "special files", node("/etc/hostname", "p"), words="a FIFO", sampled=True),
    _row("shadow-is-a-disk", "special files", node("/etc/shadow", "b", "254", "0"), words="a block device"),
    _row("passwd-is-a-terminal", "special files", node("/etc/passwd", "c", "5", "1"),
         words="a character device"),
    _row("fstab-is-a-pipe", "special files", node("/etc/fstab", "p"), ends=EITHER),
    _row("os-release-is-endless", "special files", node("/etc/os-release", "c", "1", "5"), ends=EITHER),
    _row("interfaces-is-a-pipe", "special files", node("/etc/network/interfaces", "p"),
         words="/etc/network/interfaces"),
    _row("machine-id-is-a-pipe", "special files", node("/etc/machine-id", "p"), base="arch-gpt-ext4",
         ends=EITHER),
    _row("hostname-is-a-directory", "directories", directory("/etc/hostname"), words="/etc/hostname"),
    _row("passwd-is-a-directory", "directories", directory("/etc/passwd"), words="/etc/passwd"),
    _row("300-directories-deep", "directories", _deep_directories, ends=FINE),
    _row("2000-names", "directories", _many_neighbours, ends=EITHER),
    _row("fstab-of-10000-lines", "fstab", _fstab(_ROOT_LINE, *_MANY_MOUNTS), ends=FINE),
    _row("fstab-mounts-root-10000-times", "fstab", _fstab(*[_ROOT_LINE] * _LINES), ends=EITHER),
    _row("fstab-mounts-everywhere", "fstab",
         _fstab(_ROOT_LINE, *(f"/dev/vda1 /../../{d} ext4 bind 0 0" for d in ("run", "dev", "proc", "etc"))),
         ends=EITHER),
    _row("fstab-of-one-line-of-48-mib", "fstab", has("/etc/fstab", b"x" * (48 * MIB)), ends=EITHER),
    _row("fstab-of-no-text", "fstab", has("/etc/fstab", bytes(range(256)) * 64), ends=EITHER),
    _row("800000-accounts", "accounts", has("/etc/passwd", _ACCOUNTS + b"root:x:0:0::/root:/bin/sh\n"),
         ends=EITHER),
    _row("shadow-of-one-line-of-48-mib", "accounts", has("/etc/shadow", b"root:" + b"$" * (48 * MIB)),
         ends=EITHER),
    _row("shadow-of-no-text", "accounts", has("/etc/shadow", bytes(4096)), ends=UNFIT,
         words="not in /etc/shadow"),
    _row("home-outside", "accounts", has("/etc/passwd", _HOME_OUTSIDE), ends=EITHER),
    _row("home-absurd", "accounts", has("/etc/passwd", _HOME_ABSURD), ends=EITHER),
    _row("os-release-of-48-mib", "identification", has("/etc/os-release", b"ID=alpine\n" * (48 * MIB // 10)),
         ends=EITHER),
    _row("os-release-with-escapes", "identification",
         has("/etc/os-release", b"ID='" + _ESCAPES + b"'\nVERSION_ID='" + _ESCAPES + b"$(reboot)\n"),
         ends=EITHER),
    _row("name-of-a-mebibyte", "identification", has("/etc/os-release", b"ID=" + b"a" * MIB + b"\n"),
         ends=EITHER),
)  # fmt: skip
