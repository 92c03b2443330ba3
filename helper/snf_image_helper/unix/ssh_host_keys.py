"""Host keys of the guest's sshd: found, removed, made anew (R-TASK-SSH-1 to R-TASK-SSH-3)."""

from __future__ import annotations

import base64
import dataclasses
import os
import posixpath
import re
import stat
from typing import Final, Literal

from snf_image_contract.job import HostKey
from snf_image_contract.secret import Secret
from snf_image_helper.errors import TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.unix import sshd_config
from snf_image_helper.unix.ssh_key_types import UNKNOWN, key_type
from snf_image_process import ProcessError, run

KeyType = Literal["rsa", "ecdsa", "ed25519"]
DIRECTORY: Final = "/etc/ssh"
_BITS: Final[dict[KeyType, str]] = {"rsa": "3072", "ecdsa": "256", "ed25519": "256"}
KEY_TYPES: Final = tuple(_BITS)
_NAME: Final = re.compile(r"ssh_host_([a-z0-9]+)_key")
_MAX_KEY: Final = 65536
_TIMEOUT: Final = 300.0
# ssh-keygen ends with 255 because it cannot put a .pub file beside an anonymous memory file; whether the
# private key is whole is found out by deriving the public one from it.
_SAVED_PRIVATE_ONLY: Final = 255


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OldKey:
    """A private key that sshd had, or that its configuration names; ``type`` as in ssh_key_types."""

    path: str
    type: str


def remove_host_keys(guest: Guest) -> tuple[OldKey, ...]:
    """Remove every host key with what belongs to it; which private keys there were."""
    found = sshd_config.directives(guest.root, guest.warn)
    if found is None:
        guest.warn(f"{sshd_config.CONFIG}: missing; only {DIRECTORY}/ssh_host_* is removed")
        found = ()
    named = [posixpath.join("/", path) for path in sshd_config.all_values(found, "HostKey")]
    certificates = [posixpath.join("/", path) for path in sshd_config.all_values(found, "HostCertificate")]
    usual = [f"{DIRECTORY}/{name}" for name in _names(guest) if name.startswith("ssh_host_")]
    private = dict.fromkeys([*named, *(path for path in usual if _NAME.fullmatch(posixpath.basename(path)))])
    old = tuple(OldKey(path=path, type=_type_at(guest, path)) for path in private)
    for path in usual:
        _remove_usual(guest, path)
    for path in (*named, *(f"{path}.pub" for path in named), *certificates):
        _remove_named(guest, path)
    return old


def _names(guest: Guest) -> list[str]:
    return guest.root.list(DIRECTORY) if guest.root.is_dir(DIRECTORY) else []


def _type_at(guest: Guest, path: str) -> str:
    """From the public key, else the private one; a key that is only named: from its usual name."""
    for candidate in (f"{path}.pub", path):
        if guest.root.is_file(candidate):
            found = key_type(guest.root.read_head(candidate, _MAX_KEY))
            if found is not None:
                return found
    usual = _NAME.fullmatch(posixpath.basename(path))
    return usual[1] if usual and not guest.root.exists(path) else UNKNOWN


def _remove_usual(guest: Guest, path: str) -> None:
    status = guest.root.lstat(path)
    if status is not None and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        guest.root.remove(path)


def _remove_named(guest: Guest, path: str) -> None:
    """A file that the configuration names goes only if it is a key: an image may name anything."""
    if guest.root.is_file(path) and key_type(guest.root.read_head(path, _MAX_KEY)) is not None:
        guest.root.remove(path)


def make_host_keys(guest: Guest, old: tuple[OldKey, ...], comment: str) -> None:
    """Put a new key of each usual type where sshd looks for it, and where it had one of these types."""
    keys: dict[str, HostKey] = {key.type: key for key in guest.host_keys()}
    for kind in KEY_TYPES:
        keys[kind] = keys.get(kind) or _generate(kind, comment)
    places: dict[str, str] = {f"{DIRECTORY}/ssh_host_{name}_key": name for name in keys}
    for lost in old:
        if lost.type in keys:
            places.setdefault(lost.path, lost.type)
        elif lost.path not in places:
            guest.warn(f"{lost.path}: a host key of type {lost.type} is not made anew")
    for path, name in places.items():
        _write(guest, path, keys[name])


def _write(guest: Guest, path: str, key: HostKey) -> None:
    guest.root.mkdir(posixpath.dirname(path))
    private = key.private.reveal().rstrip("\n") + "\n"
    detail = f"{key.type} {fingerprint(key.public)}"
    guest.root.write(path, private.encode("ascii"), mode=0o600, force=True, detail=detail)
    public = key.public.strip() + "\n"
    guest.root.write(f"{path}.pub", public.encode("utf-8"), mode=0o644, force=True, detail=detail)


def fingerprint(public: str) -> str:
    """SHA256 of a public key line, as ``ssh-keygen -l`` prints it."""
    import hashlib  # noqa: PLC0415 - a tenth of a second at the start, before the first task

    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _generate(kind: KeyType, comment: str) -> HostKey:
    """A key made by the helper's own ssh-keygen, in memory only; never by a program of the image."""
    fd = os.memfd_create("ssh-host-key", os.MFD_CLOEXEC)
    try:
        run(
            ["ssh-keygen", "-q", "-t", kind, "-b", _BITS[kind], "-N", "", "-C", comment,
             "-f", f"/proc/self/fd/{fd}"],
            timeout=_TIMEOUT,
            stdin=b"y\n",  # the memory file is there already: yes, overwrite it
            accept=(0, _SAVED_PRIVATE_ONLY),
            pass_fds=(fd,),
        )  # fmt: skip
        private = os.pread(fd, _MAX_KEY, 0)
        public = run(["ssh-keygen", "-y", "-f", "/dev/stdin"], timeout=_TIMEOUT, stdin=private).text.strip()
    except ProcessError as error:
        raise TaskError(f"an SSH host key of type {kind} could not be made: {error}") from None
    finally:
        os.close(fd)
    return HostKey(type=kind, private=Secret(private.decode("ascii")), public=public)
