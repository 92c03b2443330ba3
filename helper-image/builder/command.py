"""The command: what is rebuilt when, and in what order."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time

from builder.base import EPOCH, base_tar, module_tar
from builder.convert import kernel_and_initrd, root_image, self_booting_disk, tree_digest
from builder.engine import Buildah, Docker, Engine
from builder.manifest import Base, write_manifest
from builder.tasks import add_tasks, digest_of, read_tasks
from snf_image_contract.job import CONTRACT_VERSION
from snf_image_process import ProcessError

_CODE = ("contract", "process", "helper")
_STAMP = ".inputs"
_MOST_LAYERS = 32
"""Of about a third of a gigabyte each; the first build makes about twenty, a change of the code two."""


def main(source: str) -> int:
    """Build if something changed; the exit status (0, or 5 with one line that says what failed)."""
    asked = _parse(source)
    os.umask(0o022)
    begun = time.monotonic()
    try:
        asked.added = read_tasks(asked.tasks) if asked.tasks else []
        inputs = _inputs_digest(source, asked)
        if not asked.force and _read(os.path.join(asked.output, _STAMP)) == inputs:
            print(f"helper image: {asked.output} is up to date")
            return 0
        _build(source, asked, inputs)
    except (ProcessError, OSError) as error:
        print(f"error: the helper image was not built: {error}", file=sys.stderr)
        return 5
    print(f"helper image: {asked.output} built in {time.monotonic() - begun:.0f} s")
    return 0


def _parse(source: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="helper-image/build",
        description="Build the helper's kernel, initrd, root image and disk from Debian packages.",
    )
    build = os.path.join(source, "build")
    parser.add_argument("--output", default=os.path.join(build, "helper"), help="directory to make")
    parser.add_argument("--cache", default=os.path.join(build, "cache/helper"), help="kept between builds")
    parser.add_argument("--engine", choices=("buildah", "docker"), default="buildah")
    parser.add_argument("--base", help="an image of Debian 12 to start from, not one made of packages")
    parser.add_argument("--tasks", metavar="DIR", help="add the files NNName of this directory as tasks")
    parser.add_argument("--refresh", action="store_true", help="install the packages anew, for their updates")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    asked = parser.parse_args()
    asked.output, asked.cache = os.path.abspath(asked.output), os.path.abspath(asked.cache)
    asked.force = asked.force or asked.refresh
    return asked


def _build(source: str, asked: argparse.Namespace, inputs: str) -> None:
    _bound_cache(asked.cache)
    engine: Engine = Buildah(os.path.join(asked.cache, "buildah")) if asked.engine == "buildah" else Docker()
    os.makedirs(os.path.dirname(asked.output), exist_ok=True)
    os.makedirs(asked.cache, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.cache, prefix="work-") as workspace:
        context, output = os.path.join(workspace, "context"), os.path.join(workspace, "output")
        os.mkdir(output)
        _make_context(source, context, asked)
        print("helper image: building the container", flush=True)
        with engine.build(context, asked.base, workspace, refresh=asked.refresh) as root:
            print("helper image: converting the root file system", flush=True)
            os.chmod(root, 0o755)  # noqa: S103 - engines differ in the mode of the top directory
            build = tree_digest(root)
            _write(os.path.join(root, "usr/share/snf-image/build"), build + "\n")
            kernel_and_initrd(root, output)
            root_image(root, os.path.join(output, "root.img"), build)
            self_booting_disk(output, build, workspace)
            base = Base(image=asked.base, digest=engine.base_digest(asked.base)) if asked.base else None
            write_manifest(root, output, build, CONTRACT_VERSION, asked.added, base=base)
        _write(os.path.join(output, _STAMP), inputs)
        shutil.rmtree(asked.output, ignore_errors=True)
        os.rename(output, asked.output)


def _bound_cache(cache: str) -> None:
    """Layers of builds long ago fill the disk: beyond a number the next build starts without any."""
    layers = os.path.join(cache, "buildah/layers/vfs/dir")
    with contextlib.suppress(FileNotFoundError):
        if len(os.listdir(layers)) > _MOST_LAYERS:
            shutil.rmtree(os.path.join(cache, "buildah"))


def _make_context(source: str, context: str, asked: argparse.Namespace) -> None:
    """What the Containerfile sees, with the times and modes that a checkout happens to have made even."""
    here = os.path.join(source, "helper-image")
    shutil.copytree(here, context, ignore=shutil.ignore_patterns("build", "builder", "__pycache__"))
    for folder in _CODE:
        package = f"snf_image_{folder}"
        shutil.copytree(
            os.path.join(source, folder, package),
            os.path.join(context, "code", package),
            ignore=shutil.ignore_patterns("__pycache__", "py.typed"),
        )
    add_tasks(asked.tasks, asked.added, os.path.join(context, "code"))
    for directory, names, files in os.walk(context):
        for name in names + files:
            path = os.path.join(directory, name)
            executable = os.path.isdir(path) or os.stat(path).st_mode & stat.S_IXUSR
            os.chmod(path, 0o755 if executable else 0o644)
            os.utime(path, (EPOCH, EPOCH))
    if asked.base is None:
        tar = base_tar(here, asked.cache, refresh=asked.refresh)
        os.link(tar, os.path.join(context, "base.tar"))
        os.link(module_tar(tar, asked.cache, refresh=asked.refresh), os.path.join(context, "modules.tar"))
    else:
        for name in ("base.tar", "modules.tar"):
            _write(os.path.join(context, name), "")


def _inputs_digest(source: str, asked: argparse.Namespace) -> str:
    """A digest over everything a build depends on that this checkout holds, and the operator's tasks."""
    roots = [os.path.join(source, "helper-image")]
    roots += [os.path.join(source, folder, f"snf_image_{folder}") for folder in _CODE]
    digest = hashlib.sha256(f"{asked.engine} {asked.base}".encode())
    for root in roots:
        for directory, names, files in sorted(os.walk(root)):
            names[:] = [name for name in names if name != "__pycache__"]
            for name in sorted(files):
                if "__pycache__" in directory:
                    continue
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    digest.update(f"{os.path.relpath(path, source)}\0".encode() + file.read() + b"\0")
    digest.update(digest_of(asked.tasks, asked.added))
    return digest.hexdigest()


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
