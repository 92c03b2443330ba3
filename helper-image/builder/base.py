"""The base root file system, made of Debian packages and kept until the list of packages changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re

from snf_image_process import ProcessError, run

SUITE = "bookworm"
EPOCH = 1700000000
"""The time of everything in the image, so that the same packages give the same bytes."""
_TIMEOUT = 1800.0
# mmdebstrap copies these from the machine that builds; the mirror is the machine's business too.
_FOREIGN = ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list", "var/cache/ldconfig/aux-cache")


_KERNEL = re.compile(
    r"^Package: linux-image-([0-9]\S*-cloud-amd64)$.*?^Version: (\S+)$", re.MULTILINE | re.DOTALL
)


def package_list(here: str) -> list[str]:
    """The names in packages.txt."""
    with open(os.path.join(here, "packages.txt"), encoding="ascii") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def base_tar(here: str, cache: str, *, refresh: bool) -> str:
    """Path of the tar archive with the packages; made by mmdebstrap if it is not in the cache."""
    packages = package_list(here)
    key = hashlib.sha256("\n".join([SUITE, *packages, *_FOREIGN]).encode()).hexdigest()[:16]
    path = os.path.join(cache, f"base-{key}.tar")
    if refresh or not os.path.exists(path):
        print("helper image: installing Debian packages into a base root file system", flush=True)
        _mmdebstrap(packages, path)
    return path


def module_tar(base: str, cache: str, *, refresh: bool) -> str:
    """Path of the tar archive with compiler, headers and source for modules of the kernel in ``base``.

    Of the source only the parts that modules are built from are kept. :class:`OSError` if the mirror no
    longer has the source of that kernel.
    """
    release, version = kernel_of(base)
    source = f"linux-source-{'.'.join(release.split('.')[:2])}"
    packages = ["gcc", "kmod", "make", f"linux-headers-{release}={version}", f"{source}={version}"]
    hooks = (
        f'tar -C "$1/usr/src" -xJf "$1/usr/src/{source}.tar.xz" {source}/fs/ufs',
        f'rm -rf "$1"/usr/src/{source}.tar.xz "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale',
    )
    key = hashlib.sha256("\n".join([SUITE, *packages, *hooks, *_FOREIGN]).encode()).hexdigest()[:16]
    path = os.path.join(cache, f"modules-{key}.tar")
    if refresh or not os.path.exists(path):
        print(f"helper image: installing what modules of kernel {release} are built with", flush=True)
        try:
            _mmdebstrap(packages, path, hooks)
        except ProcessError as error:
            raise OSError(
                f"the source of kernel {version} cannot be installed (is it no longer on the mirror? "
                f"--refresh takes the newest kernel): {error}"
            ) from None
    return path


def kernel_of(base: str) -> tuple[str, str]:
    """Release and package version of the one kernel in a base archive."""
    status = run(["tar", "-xOf", base, "./var/lib/dpkg/status"], timeout=_TIMEOUT).text
    found = _KERNEL.findall(status)
    if len(found) != 1:
        raise OSError(f"one kernel expected among the packages, found {len(found)}")
    return str(found[0][0]), str(found[0][1])


def _mmdebstrap(packages: list[str], path: str, hooks: tuple[str, ...] = ()) -> None:
    cache = os.path.dirname(path)
    os.makedirs(cache, exist_ok=True)
    hooks += tuple(f'rm -f "$1"/{name}' for name in _FOREIGN)
    # By its name mmdebstrap knows that a tar archive is wanted.
    partial = os.path.join(cache, f"partial-{os.getpid()}.tar")
    try:
        run(
            [
                "mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(packages)}",
                *(f"--customize-hook={hook}" for hook in hooks),
                SUITE, partial,
            ],
            timeout=_TIMEOUT,
            env={"SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC", "HOME": "/root"},
        )  # fmt: skip
        os.rename(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
