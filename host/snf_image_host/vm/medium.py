"""The parameter medium: a small ext2 file system with the job, in anonymous memory.

It is built without mounting anything (T-43), without privileges, and without its content ever being in a
file or an argument: mke2fs and debugfs of e2fsprogs work on descriptors.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

from snf_image_contract.job import MEDIUM_SIZE, Job, Variable, dump_job
from snf_image_host.errors import NodeError, UserError
from snf_image_process import ProcessError, run

FLOPPY_BYTES: Final = 1440 * 1024
_SECONDS: Final = 60.0
_INODES: Final = 32
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Nothing may depend on the clock, on chance, or on /etc/mke2fs.conf.
_MKE2FS: Final = (
    "mke2fs", "-q", "-F", "-t", "ext2", "-O", "none,filetype,sparse_super", "-I", "128",
    "-m", "0", "-N", str(_INODES), "-L", "snf-params", "-E", "nodiscard,root_owner=0:0",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MediumFile:
    """A file of the medium's root directory, owned by root, mode 0400."""

    name: str
    content: bytes = dataclasses.field(repr=False)


def job_files(job: Job, *, rules: bool) -> tuple[MediumFile, ...]:
    """What the medium holds: the job, and for foreign helpers (``rules``) the older shell form (D-21)."""
    files = (MediumFile(name="job.json", content=dump_job(job)),)
    return (*files, MediumFile(name="rules", content=shell_rules(job))) if rules else files


def shell_rules(job: Job) -> bytes:
    """The job's environment as lines ``export SNF_IMAGE_<NAME>='<value>'`` (R-HLP-6).

    In single quotes nothing is special but the quote itself, so that no value can become a command.
    """
    given = {variable.name for variable in job.environment}
    derived = [(name, value) for name, value in _derived(job) if name not in given]
    lines = [_export(name, value) for name, value in derived]
    lines += [_export(variable.name, _value(variable)) for variable in job.environment]
    return "".join(lines).encode("utf-8")


def build_medium(files: Sequence[MediumFile], *, floppy: bool = False) -> int:
    """An ext2 image that holds ``files``: a read-only descriptor of sealed anonymous memory.

    The caller closes it. As a ``floppy`` it has exactly 1440 KiB, and :class:`UserError` if that is not
    enough; otherwise the file system is as large as need be (T-41), and the image as its slot.
    """
    content = sum(len(file.content) for file in files)
    size = FLOPPY_BYTES if floppy else _size_for(content)
    image = _memory("snf-image-medium", FLOPPY_BYTES if floppy else max(size, MEDIUM_SIZE))
    try:
        _make_file_system(image, files, size=size, block=1024 if floppy else 4096)
        # Whoever gets this descriptor, and whatever they do with it, reads what was put there.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(image, fcntl.F_ADD_SEALS, seals)
        return os.open(f"/proc/self/fd/{image}", os.O_RDONLY | os.O_CLOEXEC)
    except ProcessError as error:
        if floppy:
            raise UserError(
                f"the parameters ({content} bytes) do not fit on a floppy",
                hint="use PARAM_MEDIUM=virtio, or smaller files",
            ) from None
        raise NodeError("the parameter medium could not be built", details=(str(error),)) from None
    finally:
        os.close(image)


def _size_for(content: int) -> int:
    """Content, its block lists, inodes and bitmaps, with room to spare, in whole MiB."""
    mib = 1024 * 1024
    return (content + content // 64 + mib // 2 + mib) // mib * mib


def _memory(name: str, size: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(fd, 0o600)  # R-SEC-3: /proc/<pid>/fd would let others open it
    os.ftruncate(fd, size)
    return fd


def _make_file_system(image: int, files: Sequence[MediumFile], *, size: int, block: int) -> None:
    path = f"/proc/self/fd/{image}"
    run(
        [*_MKE2FS, "-b", str(block), path, str(size // block)],
        timeout=_SECONDS,
        env={"MKE2FS_CONFIG": "/dev/null"},
        pass_fds=(image,),
    )
    sources = [_source(file) for file in files]
    try:
        commands = "".join(_debugfs_commands(files, sources)).encode("ascii")
        argv = ["debugfs", "-w", "-f", "-", path]
        done = run(argv, timeout=_SECONDS, stdin=commands, pass_fds=(image, *sources))
    finally:
        for source in sources:
            os.close(source)
    # debugfs ends with 0 whatever happens; so each file is read back.
    for file in files:
        read = run(
            ["debugfs", "-R", f"cat {file.name}", path],
            timeout=_SECONDS,
            pass_fds=(image,),
            output_limit=len(file.content) + 1,
        )
        if read.stdout != file.content:
            raise ProcessError(argv, f"{file.name} was not written as a whole", stderr=done.stderr)


def _source(file: MediumFile) -> int:
    fd = _memory("snf-image-job", 0)
    view = memoryview(file.content)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def _debugfs_commands(files: Sequence[MediumFile], sources: Sequence[int]) -> Iterator[str]:
    for file, source in zip(files, sources, strict=True):
        yield f"write /proc/self/fd/{source} {file.name}\n"
        for field, value in (("mode", "0100400"), ("uid", "0"), ("gid", "0")):
            yield f"set_inode_field {file.name} {field} {value}\n"


def _derived(job: Job) -> Iterator[tuple[str, str]]:
    yield "HOSTNAME", job.instance
    yield "TYPE", job.image_format.value
    yield "DEV", "/dev/vda"
    yield "DEV_COUNT", str(len(job.disks))
    for position in range(len(job.disks)):
        yield f"DEV_{position}", f"/dev/vd{disk_letters(position)}"


def disk_letters(position: int) -> str:
    """The kernel's letters of the disk at ``position``: a, b, …, z, aa, ab, … without a gap (T-39)."""
    letters = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def _value(variable: Variable) -> str:
    return variable.value.reveal()


def _export(name: str, value: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise UserError(f"{name[:64]!r} cannot be the name of a variable for a foreign helper")
    if "\0" in value:
        raise UserError(f"SNF_IMAGE_{name}: a value with a NUL byte cannot be given to a foreign helper")
    quoted = value.replace("'", "'\\''")
    return f"export SNF_IMAGE_{name}='{quoted}'\n"
