"""The base root file system, made of Debian packages and kept until the list of packages changes."""

from __future__ import annotations

import contextlib
import hashlib
import os

from snf_image_process import run

SUITE = "bookworm"
EPOCH = 1700000000
"""The time of everything in the image, so that the same packages give the same bytes."""
_TIMEOUT = 1800.0
# mmdebstrap copies these from the machine that builds; the mirror is the machine's business too.
_FOREIGN = ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list", "var/cache/ldconfig/aux-cache")


def package_list(here: str) -> list[str]:
    """The names in packages.txt."""
    with open(os.path.join(here, "packages.txt"), encoding="ascii") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def base_tar(here: str, cache: str, *, refresh: bool) -> str:
    """Path of the tar archive with the packages; made by mmdebstrap if it is not in the cache."""
    packages = package_list(here)
    key = hashlib.sha256("\n".join([SUITE, *packages, *_FOREIGN]).encode()).hexdigest()[:16]
    path = os.path.join(cache, f"base-{key}.tar")
    if os.path.exists(path) and not refresh:
        return path
    os.makedirs(cache, exist_ok=True)
    print("helper image: installing Debian packages into a base root file system", flush=True)
    # By its name mmdebstrap knows that a tar archive is wanted.
    partial = os.path.join(cache, f"partial-{os.getpid()}.tar")
    try:
        run(
            [
                "mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(packages)}",
                *(f'--customize-hook=rm -f "$1"/{name}' for name in _FOREIGN),
                SUITE, partial,
            ],
            timeout=_TIMEOUT,
            env={"SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC", "HOME": "/root"},
        )  # fmt: skip
        os.rename(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return path
