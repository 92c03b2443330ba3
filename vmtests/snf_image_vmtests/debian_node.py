"""A fresh Debian 12 below a directory, with packages installed in it by apt, as a node has them.

Its archive, with what the packages depend on, is kept in the cache; what is under test is installed anew.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Sequence
from typing import Final, Self

from snf_image_process import Completed, run
from snf_image_vmtests import places

SUITE: Final = "bookworm"
DEPENDS: Final = (
    "apt", "bash-completion", "curl", "e2fsprogs", "openssh-client", "python3", "qemu-system-x86",
)  # fmt: skip
_FOREIGN: Final = ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list")
"""What mmdebstrap copies from the machine it runs on."""
_CONTAINED: Final = """\
set -eu
root=$1
shift
mount --rbind --make-rslave /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
exec chroot "$root" "$@"
"""


def built_package(name: str) -> str:
    """The package that `make deb` built."""
    found = glob.glob(os.path.join(places.build_directory(), f"deb/{name}_*.deb"))
    assert len(found) == 1, f"{name}: {found}; run `make deb`"
    return found[0]


def rootfs_archive(sources: Sequence[str]) -> str:
    """Path of the archive; made by mmdebstrap from ``sources`` (its arguments) if it is not in the cache."""
    key = hashlib.sha256(" ".join([SUITE, *DEPENDS, *_FOREIGN]).encode()).hexdigest()[:16]
    cache = os.path.join(places.build_directory(), "cache/packages-test")
    path = os.path.join(cache, f"node-{key}.tar")
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        partial = os.path.join(cache, f"partial-{os.getpid()}.tar")
        hooks = [f'--customize-hook=rm -f "$1"/{name}' for name in _FOREIGN]
        argv = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(DEPENDS)}"]
        try:
            run([*argv, *hooks, SUITE, partial, *sources], timeout=1200, env={"HOME": "/root"})
            os.rename(partial, path)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)
    return path


class DebianNode:
    """A context manager: the tree is removed at its end. Programs see /dev and a /proc of their own.

    ``sources``: where its packages come from, as arguments of mmdebstrap.
    """

    def __init__(self, directory: str, sources: Sequence[str]) -> None:
        self.directory = directory
        self._sources = sources

    def __enter__(self) -> Self:
        archive = rootfs_archive(self._sources)
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        run(
            ["tar", "-C", self.directory, "-xpf", archive, "--numeric-owner", "--exclude=./dev/*"],
            timeout=300,
        )
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory)

    def path(self, name: str) -> str:
        """Where a path of the node is on this machine."""
        return os.path.join(self.directory, name.lstrip("/"))

    def run(self, *argv: str, accept: Sequence[int] = (0,), timeout: float = 300) -> Completed:
        """Run a program of the node, in namespaces that end with it."""
        # Processes that a program leaves behind end with it, and so do its mounts.
        contained = ["unshare", "--mount", "--pid", "--ipc", "--net", "--fork", "--kill-child"]
        return run(
            [*contained, "sh", "-c", _CONTAINED, "sh", self.directory, *argv],
            timeout=timeout,
            accept=accept,
            env={"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"},
        )

    def install(self, *packages: str) -> Completed:
        """Install or upgrade by apt from files; configuration that was changed stays."""
        names = []
        for package in packages:
            names.append(f"/srv/{os.path.basename(package)}")
            shutil.copy(package, self.path(names[-1]))
        words = ["apt-get", "-q", "-y", "-o", "Dpkg::Options::=--force-confold", "install", *names]
        try:
            return self.run(*words)
        finally:
            for name in names:
                os.unlink(self.path(name))

    def files(self) -> frozenset[str]:
        """Every path of the node but those of package management and of what programs of Debian cache."""
        ours = ("./var/lib/dpkg", "./var/lib/apt", "./var/log", "./var/cache", "./dev", "./proc", "./run")
        prune = [word for name in ours for word in ("-path", name, "-o")][:-1]
        argv = ["find", ".", "(", *prune, ")", "-prune", "-o", "-print"]
        return frozenset(run(argv, timeout=120, cwd=self.directory).text.splitlines())
