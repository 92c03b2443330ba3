"""Task EnforcePersonality for Unix: injected files (R-TASK-PER-1, R-TASK-PER-2, R-TASK-PER-4)."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import posixpath
import shlex
from collections.abc import Iterator
from typing import Final

from snf_image_contract.job import PersonalityFile
from snf_image_contract.names import TaskName
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init

DEFAULT_MODE: Final = 0o440
DIRECTORY_MODE: Final = 0o750
STORE: Final = "/var/lib/snf-image/personality"
_MAX_ID: Final = 2**32 - 2
_MAX_ACCOUNTS: Final = 64 * 1024 * 1024

# Files lie beside this script's argument; directories are named one by one, outermost first.
_INSTALLER: Final = f"""\
umask 077
status=0
stored={shlex.quote(STORE)}

make_directory() {{ # path owner:group
    [ -d "$1" ] || {{ mkdir -- "$1" && chown -- "$2" "$1" && chmod {DIRECTORY_MODE:04o} "$1"; }}
}}

install_file() {{ # number path owner:group mode
    if [ -L "$2" ]; then
        cat "$stored/$1" > "$2" && chown -- "$3" "$2" && chmod "$4" "$2" && return
    elif [ ! -d "$2" ]; then
        temporary="$2.snf-image-$$"
        cat "$stored/$1" > "$temporary" && chown -- "$3" "$temporary" && chmod "$4" "$temporary" &&
            mv -f -- "$temporary" "$2" && return
        rm -f -- "$temporary"
    fi
    printf 'snf-image: %s: not installed\\n' "$2" >&2
    status=1
}}

"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A file with its numbers found and its contents decoded."""

    path: str
    data: bytes
    uid: int
    gid: int
    mode: int


def enforce_personality(guest: Guest) -> None:
    """Put every file where it belongs, in the order given; with cloud-init, have the guest do it at boot."""
    files = guest.job.enforce_personality.files
    if not files:
        guest.warn("no personality given: no file is injected")
    elif guest.job.cloud_init:
        _leave_to_first_boot(guest, files)
    else:
        entries = _entries(guest, files)
        for entry in entries:
            _write(guest, entry)


def _entries(guest: Guest, files: tuple[PersonalityFile, ...]) -> list[_Entry]:
    """All files, checked before the first is written (R-PERS-5, R-PERS-6)."""
    users = _ids(guest, "/etc/passwd") if any(file.owner is not None for file in files) else {}
    groups = _ids(guest, "/etc/group") if any(file.group is not None for file in files) else {}
    return [
        _Entry(
            path=file.path,
            data=_decoded(file),
            uid=_number(file.path, "owner", file.owner, users),
            gid=_number(file.path, "group", file.group, groups),
            mode=_mode(file),
        )
        for file in files
    ]


def _mode(file: PersonalityFile) -> int:
    return DEFAULT_MODE if file.mode is None else file.mode


def _decoded(file: PersonalityFile) -> bytes:
    try:
        return base64.b64decode("".join(file.contents.reveal().split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"personality: {file.path}: contents are not valid base64") from None


def _ids(guest: Guest, path: str) -> dict[bytes, int]:
    """Name to number, from fields 1 and 3 of the target's own file; the first line of a name wins."""
    numbers: dict[bytes, int] = {}
    for line in (guest.root.read_optional(path, _MAX_ACCOUNTS) or b"").splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10:
            numbers.setdefault(fields[0], int(fields[2]))
    return numbers


def _number(path: str, role: str, name: str | None, known: dict[bytes, int]) -> int:
    if name is None:
        return 0
    number = known.get(name.encode("utf-8", "surrogateescape"))
    if number is None and name.isascii() and name.isdigit():
        number = int(name)
    if number is None or number > _MAX_ID:
        raise RequestError(f"personality: {path}: {role} {name!r} does not exist in the image")
    return number


def _write(guest: Guest, entry: _Entry) -> None:
    directory = posixpath.dirname(entry.path)
    try:
        guest.root.mkdir(directory, mode=DIRECTORY_MODE, uid=entry.uid, gid=entry.gid)
        guest.root.write(entry.path, entry.data, mode=entry.mode, uid=entry.uid, gid=entry.gid, force=True)
    except ImageError as error:
        raise ImageError(f"personality: {error}") from None


# -- cloud-init ------------------------------------------------------------------------------------


def _leave_to_first_boot(guest: Guest, files: tuple[PersonalityFile, ...]) -> None:
    """Store the contents, and one script that installs them: accounts may exist only then."""
    cloud_init.config_directory(guest)
    guest.root.remove_tree(STORE)
    guest.root.mkdir(STORE, mode=0o700)
    for number, file in enumerate(files):
        guest.root.write(f"{STORE}/{number}", _decoded(file), mode=0o600)
    task = TaskName.ENFORCE_PERSONALITY
    script = _INSTALLER + "".join(f"{line}\n" for line in _calls(files)) + 'rm -rf -- "$stored"\n'
    cloud_init.write_per_once_script(guest, f"98_snf-image-{task.number}{task}", script)


def _calls(files: tuple[PersonalityFile, ...]) -> Iterator[str]:
    for number, file in enumerate(files):
        accounts = shlex.quote(f"{file.owner or 0}:{file.group or 0}")
        for directory in _ancestors(file.path):
            yield f"make_directory {shlex.quote(directory)} {accounts}"
        yield f"install_file {number} {shlex.quote(file.path)} {accounts} {_mode(file):04o}"


def _ancestors(path: str) -> list[str]:
    """The directories above ``path``, outermost first, ``/`` left out."""
    found: list[str] = []
    directory = posixpath.dirname(path)
    while directory.strip("/"):
        found.append(directory)
        directory = posixpath.dirname(directory)
    return found[::-1]
