"""Building the Containerfile: by Buildah, or by a Docker-compatible service through the docker SDK."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator
from typing import Protocol

from builder.base import EPOCH
from snf_image_process import run

_TIMEOUT = 3600.0
_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables that say how registries and archives are reached; they do not get into the image."""


class Engine(Protocol):
    """Builds a directory with a Containerfile into a root file system."""

    def build(
        self, context: str, base: str | None, workspace: str, *, refresh: bool
    ) -> contextlib.AbstractContextManager[str]:
        """The root file system of the last stage as a directory, writable, for the time of the context.

        ``base``: an image of a registry, None for packages. ``refresh``: the registry's present image,
        and packages that are installed into it anew.
        """

    def base_digest(self, base: str) -> str:
        """``sha256:…`` of the registry's manifest of the image that was built from; "" if not known."""


def arguments(base: str | None) -> dict[str, str]:
    """The Containerfile's arguments: a base of a registry also serves to build the kernel modules."""
    modules = "base" if base else "module-packages"
    return {"BASE": base or "packages", "MODULES": modules, "EPOCH": str(EPOCH)}


def is_on_this_machine(image: str) -> bool:
    """Whether an image's name begins with a registry at an address of the loopback interface.

    There one without TLS will do, as it does for Docker; of others /etc/containers/registries.conf says it.
    """
    registry, slash, _ = image.partition("/")
    host = registry.rpartition(":")[0] if re.search(r":\d+$", registry) else registry
    if not slash or host == "localhost":
        return bool(slash)
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Buildah:
    """Buildah without a runtime: chroot isolation and plain directories, which work in containers too."""

    def __init__(self, storage: str) -> None:
        """``storage``: directory for layers, which makes the next build fast."""
        self._temporary = os.path.join(storage, "tmp")
        os.makedirs(self._temporary, exist_ok=True)
        self._program = [
            "buildah", "--storage-driver", "vfs",
            "--root", os.path.join(storage, "layers"), "--runroot", os.path.join(storage, "run"),
        ]  # fmt: skip

    @contextlib.contextmanager
    def build(self, context: str, base: str | None, workspace: str, *, refresh: bool) -> Iterator[str]:
        identity = os.path.join(workspace, "image-id")
        self._run(
            "build", "--quiet", "--isolation", "chroot", "--layers", "--timestamp", str(EPOCH),
            *(word for pair in arguments(base).items() for word in ("--build-arg", "=".join(pair))),
            *(["--tls-verify=false"] if base and is_on_this_machine(base) else []),
            *(["--pull-always", "--no-cache"] if base and refresh else []),
            "--iidfile", identity, context,
        )  # fmt: skip
        with open(identity, encoding="ascii") as file:
            image = file.read().strip()
        container = self._run("from", image)
        try:
            yield self._run("mount", container)
        finally:
            self._run("rm", container)

    def base_digest(self, base: str) -> str:
        return self._run("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", base)

    def _run(self, *words: str) -> str:
        # HOME: Buildah looks for its configuration there. TMPDIR: /tmp may be a small memory file system.
        env = {"HOME": "/root", "TMPDIR": self._temporary}
        env |= {name: os.environ[name] for name in _NETWORK if name in os.environ}
        return run([*self._program, *words], timeout=_TIMEOUT, env=env).text.strip()


class Docker:
    """A Docker-compatible service (DOCKER_HOST, or its default socket), such as podman's."""

    @contextlib.contextmanager
    def build(self, context: str, base: str | None, workspace: str, *, refresh: bool) -> Iterator[str]:
        import docker  # noqa: PLC0415 - only those who choose this engine need it

        try:
            client = docker.from_env(timeout=int(_TIMEOUT))
            image, _ = client.images.build(
                path=context, dockerfile="Containerfile", buildargs=arguments(base), rm=True, forcerm=True,
                pull=bool(base and refresh), nocache=bool(base and refresh),
            )  # fmt: skip
            container = client.containers.create(image, command=["none"])
        except docker.errors.BuildError as error:
            # What the failing step said is in the log, not in the error's text.
            log = "".join(str(entry.get("stream", "")) for entry in error.build_log)
            raise OSError(f"the Docker-compatible service: {error}: {log[-500:]}") from None
        except docker.errors.DockerException as error:
            raise OSError(f"the Docker-compatible service: {error}") from None
        root, archive = os.path.join(workspace, "rootfs"), os.path.join(workspace, "rootfs.tar")
        try:
            with open(archive, "wb") as file:
                file.writelines(container.export())
            os.mkdir(root)
            run(["tar", "-C", root, "-xpf", archive], timeout=_TIMEOUT)
            for name in (".dockerenv", "run/.containerenv"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(root, name))
            yield root
        finally:
            container.remove()
            client.close()

    def base_digest(self, base: str) -> str:
        import docker  # noqa: PLC0415 - only those who choose this engine need it

        client = docker.from_env()
        try:
            known = client.images.get(base).attrs.get("RepoDigests") or [""]
        except docker.errors.DockerException as error:
            raise OSError(f"the Docker-compatible service: {error}") from None
        finally:
            client.close()
        return str(known[0]).rpartition("@")[2]
