"""Task ChangePassword for Linux: passwords and keys of users (R-TASK-PW-1 to -7, R-TASK-KEY-1 to -3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from snf_image_contract.names import TaskName
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init, hash_methods, yaml_text
from snf_image_helper.unix import accounts, authorized_keys, hashing

_SECONDS_A_DAY: Final = 86400
_CLOUD_INIT_TYPED_USERS: Final = (22, 2)
# What cloud-init before 22.2 takes for a hash; anything else it would set as a clear-text password.
_SEEN_AS_HASH: Final = re.compile(r"\$(1|2a|2y|5|6)(\$.+){2}\Z")


def change_password(guest: Guest) -> None:
    """Set what was asked for every user, or, if one of them is missing, nothing at all."""
    asked = guest.job.change_password
    if asked.password is None and asked.password_hash is None and not asked.keys:
        guest.warn("no password and no key given: passwords stay as they are")
        return
    accounts.check_hash(asked.password_hash)
    users = accounts.asked_users(guest)
    if guest.job.cloud_init:
        _leave_to_cloud_init(guest, users)
    else:
        _change(guest, users)


def _change(guest: Guest, users: Sequence[str]) -> None:
    """Everything is looked up and made before the first byte is written (R-TASK-PW-2)."""
    asked = guest.job.change_password
    shadow: bytes | None = None
    if asked.password is not None or asked.password_hash is not None:
        shadow = _new_shadow(guest, users)
    files: tuple[authorized_keys.KeyFile, ...] = ()
    if asked.keys:
        found = accounts.find_accounts(guest.root, users)
        files = authorized_keys.key_files(guest, [found[name] for name in users])
    if shadow is not None:
        guest.root.write(accounts.SHADOW, shadow, detail=f"password of {', '.join(users)}")
    for file in files:
        authorized_keys.add_keys(guest, file, asked.keys)


def _new_shadow(guest: Guest, users: Sequence[str]) -> bytes:
    today = int(guest.job.clock) // _SECONDS_A_DAY
    unknown_yet = dict.fromkeys(users, Secret("*"))
    accounts.change_shadow(guest.root, unknown_yet, today)  # hashing is slow: a missing user is told first
    _demand_shadowed(guest, users)
    shadow, expired = accounts.change_shadow(guest.root, _hashes(guest, users), today)
    for name in expired:
        guest.warn(f"user {name!r}: the account has expired ({accounts.SHADOW}, field 8), login will fail")
    return shadow


def _demand_shadowed(guest: Guest, users: Sequence[str]) -> None:
    """A password that stands in passwd itself would count, and the new one would not."""
    if not guest.root.exists(accounts.PASSWD):
        return
    for line in guest.root.read(accounts.PASSWD).splitlines():
        name, _, rest = line.partition(b":")
        field = rest.partition(b":")[0]
        if field != b"x" and name.decode("utf-8", "surrogateescape") in users:
            raise ImageError(
                f"{accounts.PASSWD}: the password field of user {name.decode('utf-8', 'replace')!r} "
                "is not 'x', so that the guest would not look into shadow"
            )


def _hashes(guest: Guest, users: Sequence[str]) -> dict[str, Secret]:
    """One hash a user: two of one password share no salt."""
    asked = guest.job.change_password
    if asked.password_hash is not None:
        _warn_if_unverifiable(guest, hashing.method_of(asked.password_hash))
        return dict.fromkeys(users, asked.password_hash)
    if asked.password is None:
        return {}
    method = _method(guest)
    hashes = hashing.Hashes(asked.password, asked.made_hashes)
    return {name: hashes.next(method) for name in users}


def _method(guest: Guest) -> hashing.Method:
    asked = guest.job.change_password.method
    if asked is None or asked == "auto":
        return hash_methods.default_method(guest.root)
    _warn_if_unverifiable(guest, asked)
    return asked


def _warn_if_unverifiable(guest: Guest, method: hashing.Method | None) -> None:
    known = hash_methods.verifiable_methods(guest.root)
    if method is not None and known is not None and method not in known:
        guest.warn(f"the image's libcrypt does not know {method}: login with this password will fail")


def _leave_to_cloud_init(guest: Guest, users: Sequence[str]) -> None:
    """Hashes only: clear text is never stored in the guest (R-TASK-PW-7)."""
    asked = guest.job.change_password
    document: dict[str, object] = {}
    if asked.password is not None or asked.password_hash is not None:
        document["ssh_pwauth"] = True
        document["chpasswd"] = {"expire": False} | _chpasswd(guest, users)
    if asked.keys:
        cloud_init.set_meta_data(guest, public_keys=list(asked.keys))
        document |= _who_gets_keys(guest, users)
    if document:
        cloud_init.write_config(guest, TaskName.CHANGE_PASSWORD, document, secret=True)


def _chpasswd(guest: Guest, users: Sequence[str]) -> dict[str, object]:
    hashes = {name: secret.reveal() for name, secret in _cloud_hashes(guest, users).items()}
    version = cloud_init.version(guest)
    if version is not None and version >= _CLOUD_INIT_TYPED_USERS:
        return {"users": [{"name": name, "password": text, "type": "hash"} for name, text in hashes.items()]}
    if not all(_SEEN_AS_HASH.match(text) for text in hashes.values()):
        raise RequestError(
            "cloud-init of this image is older than 22.2, or its version is unknown: it takes hashes of the "
            "forms $1$, $2a$, $2y$, $5$ and $6$ only, and would set another as a clear-text password"
        )
    return {"list": "".join(f"{name}:{text}\n" for name, text in hashes.items())}


def _cloud_hashes(guest: Guest, users: Sequence[str]) -> dict[str, Secret]:
    asked = guest.job.change_password
    if asked.password_hash is not None:
        return dict.fromkeys(users, asked.password_hash)
    if asked.password is None:
        return {}
    if asked.method not in (None, "auto", "sha512"):
        guest.warn(f"with cloud-init the password is hashed by sha512, not {asked.method}")
    return {name: hashing.make_hash(asked.password, "sha512") for name in users}


def _who_gets_keys(guest: Guest, users: Sequence[str]) -> dict[str, object]:
    """cloud-init gives the keys of meta-data to its default user, and to root if that is not disabled."""
    default = _default_user(guest)
    for name in users:
        if name not in ("root", default):
            guest.warn(f"user {name!r}: cloud-init decides whether its keys are set")
    return {"disable_root": False} if "root" in users else {}


def _default_user(guest: Guest) -> str | None:
    path = "/etc/cloud/cloud.cfg"
    data = guest.root.read_optional(path, yaml_text.MAX_DOCUMENT)
    if data is None:
        return None
    try:
        info = yaml_text.load_mapping(data, path).get("system_info")
    except ImageError as error:
        guest.warn(f"default user of cloud-init not found: {error}")
        return None
    user = info.get("default_user") if isinstance(info, dict) else None
    name = user.get("name") if isinstance(user, dict) else None
    return name if isinstance(name, str) else None
