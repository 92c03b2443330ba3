"""A real Ganeti cluster of one node, in namespaces of its own, and what its operator does with it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import selectors
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Final, Self

from snf_image_process import PIPE, ProcessError, Running, run, start
from snf_image_vmtests import places

NODE: Final = "node1.gnt.test"
CLUSTER: Final = "cluster.gnt.test"
INSTANCES: Final = tuple(f"inst{number}.gnt.test" for number in range(1, 30))
OS_NAME: Final = "snf-image+default"
OS_DIRECTORY: Final = "/srv/ganeti/os/snf-image"
IMAGES: Final = "/srv/images"
START_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 300.0
_OWN: Final = ("etc", "srv", "var/log", "var/cache", "var/tmp", "var/lib/ganeti", "run")
"""Directories that the node has for itself, below its directory of state."""
_ETC: Final = ("ssh_host_rsa_key", "ssh_host_ecdsa_key", "ssh_host_ed25519_key")
_PROVIDER_ACTIONS: Final = (
    "create", "attach", "detach", "remove", "grow", "snapshot", "setinfo", "verify", "open", "close",
)  # fmt: skip
_BOUNDS: Final = {
    "min": "disk-size=1,cpu-count=1,disk-count=0,memory-size=1,nic-count=0,spindle-use=1",
    "max": "disk-size=1048576,cpu-count=8,disk-count=16,memory-size=32768,nic-count=8,spindle-use=12",
}
# By this name qemu emulates where it would otherwise insist on KVM. It emulates cmpxchg16b wrongly, which
# brings down newer kernels of Debian.
_KVM: Final = (
    "kvm:kvm_path=/usr/bin/qemu-system-x86_64,kvm_flag=disabled,kernel_path=,cpu_type=qemu64\\,-cx16"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a command on the node answered."""

    status: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    def demand(self, status: int = 0) -> Self:
        assert self.status == status, f"status {self.status}, not {status}\n{self.text}"
        return self


class Cluster:
    """A context manager: entering brings the cluster up (15 s), leaving takes everything of it away."""

    def __init__(self, state: str) -> None:
        """``state``: a directory on a file system with space, made new and removed in the end."""
        self.state = state
        self._node: Running | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        shutil.rmtree(self.state, ignore_errors=True)
        try:
            self._prepare()
            self._start()
            self._initialise()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the node with its process 1, free its loop devices, remove its files."""
        for device in self.loop_devices():
            with contextlib.suppress(ProcessError):
                run(["losetup", "--detach", device], timeout=30)
        if self._node is not None:
            with self._node:
                self._node.stop()
            self._node = None
        shutil.rmtree(self.state, ignore_errors=True)

    # What an operator does.

    def run(
        self, *words: str, seconds: float = COMMAND_SECONDS, env: Mapping[str, str] | None = None
    ) -> Told:
        """Run a command on the node, as root, to its end."""
        done = run(self.words(*words), timeout=seconds, env=env, accept=range(256))
        stderr = done.stderr.decode("utf-8", "backslashreplace")
        return Told(status=done.status, stdout=done.text, stderr=stderr)

    def words(self, *words: str) -> list[str]:
        """The arguments that run a command on the node."""
        return ["nsenter", f"--target={self._pid}", "--mount", "--uts", "--net", "--pid", "--", *words]

    def add(self, name: str, parameters: Mapping[str, str], *words: str, **options: str) -> Told:
        """``gnt-instance add`` with defaults for what neither ``words`` nor ``options`` say."""
        return self.run(*add_words(name, parameters, *words, **options))

    def disk_of(self, name: str, index: int = 0) -> str:
        """The path, on this machine, of a file that is an instance's disk."""
        directory = os.path.join(self.state, "srv/ganeti/file-storage", name)
        (found,) = [entry for entry in os.listdir(directory) if entry.endswith(f".file.disk{index}")]
        return os.path.join(directory, found)

    def path(self, path: str) -> str:
        """Where a path of the node is on this machine."""
        for place in _OWN:
            if path == f"/{place}" or path.startswith(f"/{place}/"):
                return os.path.join(self.state, path.lstrip("/"))
        return path

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the node's own."""
        place = self.path(path)
        assert place != path, f"{path} is not the node's own"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(place, mode)

    def read(self, path: str) -> str:
        with open(self.path(path), encoding="utf-8", errors="backslashreplace") as file:
            return file.read()

    def processes(self) -> dict[int, str]:
        """The command line of each process of the node, by its id on this machine."""
        own = os.stat(f"/proc/{self._pid}/ns/pid").st_ino
        found = {}
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == own:
                    with open(f"/proc/{name}/cmdline", "rb") as file:
                        words = file.read().replace(b"\0", b" ").strip()
                    if words:
                        found[int(name)] = words.decode("utf-8", "backslashreplace")
        return found

    def loop_devices(self) -> tuple[str, ...]:
        """Loop devices on files of the node; they belong to the whole machine."""
        found = []
        for name in os.listdir("/sys/block"):
            with contextlib.suppress(OSError), open(f"/sys/block/{name}/loop/backing_file") as file:
                backing = file.read().strip()
                if backing.startswith((self.state + "/", "/srv/loop-disks/")):
                    found.append(f"/dev/{name}")
        return tuple(found)

    # How.

    def _prepare(self) -> None:
        for place in _OWN:
            os.makedirs(os.path.join(self.state, place))
        self._copy("/etc", "etc")
        self._copy("/var/lib/ganeti", "var/lib/ganeti")
        self._copy("/var/log/ganeti", "var/log/ganeti")
        for path in (
            "srv/ganeti/file-storage",
            "srv/ganeti/os",
            "srv/images",
            "srv/root",
            "run/lock",
            "var/log/ganeti/extstorage",
        ):
            os.makedirs(os.path.join(self.state, path), exist_ok=True)
        self._replace("etc/hosts", _hosts())
        self._replace("name", f"{NODE}\n")
        self._replace("etc/ganeti/file-storage-paths", "/srv/ganeti/file-storage\n")
        # Root's home is where Ganeti looks for keys.
        with open(os.path.join(self.state, "etc/passwd"), encoding="utf-8") as file:
            users = file.read()
        self._replace("etc/passwd", re.sub(r"(?m)^(root:.*):/root:(.*)$", r"\1:/srv/root:\2", users))
        run(["ssh-keygen", "-A", "-f", self.state], timeout=120)
        self._make_provider()

    def _make_provider(self) -> None:
        directory = os.path.join(self.state, "srv/ganeti/extstorage/loop")
        os.makedirs(directory)
        source = os.path.join(places.CHECKOUT, "vmtests/ganeti/loop-provider")
        for action in _PROVIDER_ACTIONS:
            shutil.copy(source, os.path.join(directory, action))
        self._replace("srv/ganeti/extstorage/loop/parameters.list", "")

    def _copy(self, source: str, name: str) -> None:
        run(["cp", "-a", f"{source}/.", os.path.join(self.state, name)], timeout=60)

    def _replace(self, name: str, text: str) -> None:
        path = os.path.join(self.state, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def _start(self) -> None:
        script = os.path.join(places.CHECKOUT, "vmtests/ganeti/node")
        argv = [
            "unshare",
            "--fork",
            "--kill-child",
            "--pid",
            "--mount-proc",
            "--net",
            "--uts",
            "--mount",
            script,
        ]
        self._node = start([*argv, self.state], stdout=PIPE, stderr=PIPE)
        said = _first_line(self._node, START_SECONDS)
        assert said == "READY\n", f"the node did not start: {said}"
        with open(f"/proc/{self._node.pid}/task/{self._node.pid}/children", encoding="ascii") as file:
            self._pid = int(file.read().split()[0])

    def _initialise(self) -> None:
        argv = [
            "gnt-cluster", "init",
            "--enabled-hypervisors=fake,kvm",
            "--enabled-disk-templates=file,ext,diskless",
            "--file-storage-dir=/srv/ganeti/file-storage",
            "--master-netdev=gnt0", "--master-netmask=24", "--nic-parameters=mode=bridged,link=gnt0",
            "--no-etc-hosts", "--no-ssh-init",
            f"--ipolicy-bounds-specs=min:{_BOUNDS['min']}/max:{_BOUNDS['max']}",
            "--ipolicy-std-specs=disk-size=1024,cpu-count=1,disk-count=1,memory-size=128,nic-count=1,spindle-use=1",
            "-H", _KVM,
            CLUSTER,
        ]  # fmt: skip
        self.run(*argv).demand()


def add_words(name: str, parameters: Mapping[str, str], *words: str, **options: str) -> list[str]:
    """The words of ``gnt-instance add``; options: ``os``, ``template``, ``memory``, ``size``."""
    argv = ["gnt-instance", "add", "-o", options.get("os", OS_NAME), "-t", options.get("template", "file")]
    argv += ["--no-name-check", "--no-ip-check", "-n", NODE, "-B", f"memory={options.get('memory', '64M')}"]
    if "--disk" not in words:
        argv += ["--disk", f"0:size={options.get('size', '300M')}"]
    if "--net" not in words:
        argv.append("--no-nics")
    if parameters:
        argv += ["-O", spell(parameters)]
    return [*argv, *words, name]


def spell(parameters: Mapping[str, str]) -> str:
    """OS parameters as Ganeti's command line wants them: back-slashes and commas escaped."""
    return ",".join(
        f"{name}={value}".replace("\\", "\\\\").replace(",", "\\,") for name, value in parameters.items()
    )


def _hosts() -> str:
    lines = ["127.0.0.1 localhost", f"10.99.0.1 {NODE}", f"10.99.0.2 {CLUSTER}"]
    lines += [f"10.99.0.{number} {name}" for number, name in enumerate(INSTANCES, 11)]
    return "".join(f"{line}\n" for line in lines)


def _first_line(process: Running, seconds: float) -> str:
    """The first line of its output, or what it said instead."""
    assert process.stdout is not None
    assert process.stderr is not None
    end = time.monotonic() + seconds
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while b"\n" not in text and selector.select(max(0.0, end - time.monotonic())):
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                return process.stderr.read().decode("utf-8", "backslashreplace")
            text += chunk
    return text.decode("utf-8", "backslashreplace")


def provided(cluster: Cluster, configuration: Sequence[str]) -> None:
    """Set the provider up as an operator does: a configuration, then ``ganeti install``."""
    cluster.write("/etc/default/snf-image", "".join(f"{line}\n" for line in configuration))
    install = [places.command("snf-image"), "ganeti", "install", "--os-dir", OS_DIRECTORY]
    cluster.run(*install).demand()
