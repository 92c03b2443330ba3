"""Password hashes."""

from __future__ import annotations

import re
import string

import pytest

from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_helper.errors import RequestError
from snf_image_helper.unix import hashing
from snf_image_helper.unix.hashing import Hashes, Method, make_hash, method_of
from trees import libcrypt_accepts

METHODS: tuple[Method, ...] = ("md5", "sha1", "blowfish", "sha256", "sha512", "yescrypt")
EVERY_CHARACTER = string.printable.split("\t")[0] + " åß€漢😀"


@pytest.fixture(autouse=True)
def _quick_bcrypt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """bcrypt's least cost, but where the cost is what is tested."""
    if "cost" not in request.node.name:
        monkeypatch.setattr(hashing, "_BCRYPT_COST", 4)


def verifies(password: str, password_hash: Secret) -> bool:
    """D-35: by libcrypt."""
    return libcrypt_accepts(password, password_hash.reveal())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("password", ["x", "%$'\"\\`!#&;", EVERY_CHARACTER[-60:], " ", "ä" * 36])
def test_a_hash_verifies_its_password_and_no_other(method: Method, password: str) -> None:
    """R-TASK-PW-5: by libcrypt, with every printable character and UTF-8."""
    made = make_hash(Secret(password), method)
    assert verifies(password, made)
    assert not verifies(password + "x" if len(password) < 36 else password[:-1], made)


@pytest.mark.parametrize("method", ["sha256", "sha512", "yescrypt"])
def test_every_printable_character_at_once(method: Method) -> None:
    """R-TASK-PW-5: nothing is cut."""
    made = make_hash(Secret(EVERY_CHARACTER), method)
    assert verifies(EVERY_CHARACTER, made)
    assert not verifies(EVERY_CHARACTER[:-1], made)


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("md5", r"\$1\$[./0-9A-Za-z]{8}\$[./0-9A-Za-z]{22}"),
        ("sha1", r"\$sha1\$24680\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{28}"),
        ("blowfish", r"\$2b\$12\$[./0-9A-Za-z]{53}"),
        ("sha256", r"\$5\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{43}"),
        ("sha512", r"\$6\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}"),
        ("yescrypt", r"\$y\$j9T\$[./0-9A-Za-z]{22}\$[./0-9A-Za-z]{43}"),
    ],
)
def test_forms_and_cost(method: Method, form: str) -> None:
    """R-TASK-PW-5: prefix, cost, and a salt of 96 bits or what the form takes at most."""
    assert re.fullmatch(form, make_hash(Secret("x"), method).reveal())


def test_netbsd_has_its_own_prefix_of_blowfish() -> None:
    """R-TASK-PW-5."""
    assert make_hash(Secret("x"), "blowfish", family=OsFamily.NETBSD).reveal().startswith("$2a$04$")


def test_salts_come_from_the_systems_random_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-85: the kernel's generator, never random; a fixed source gives a fixed salt."""
    monkeypatch.setattr("os.urandom", bytes)
    assert make_hash(Secret("x"), "sha512").reveal().startswith("$6$" + "." * 16 + "$")
    assert make_hash(Secret("x"), "yescrypt").reveal().startswith("$y$j9T$" + "." * 22 + "$")
    assert make_hash(Secret("x"), "blowfish").reveal().startswith("$2b$04$" + "." * 22)


@pytest.mark.parametrize("method", METHODS)
def test_no_two_hashes_share_a_salt(method: Method) -> None:
    """T-133."""
    salt = re.compile(r"(\$2b\$04\$.{22}|\$(?:1|5|6|y\$j9T|sha1\$24680)\$[^$]+)")
    salts = {salt.match(make_hash(Secret("same"), method).reveal()) for _ in range(8)}
    assert len({found[1] for found in salts if found}) == 8


def test_the_salt_of_bcrypt_is_in_its_own_order() -> None:
    """R-TASK-PW-5: 128 bits in 22 characters leave four bits that must be zero."""
    for _ in range(50):
        assert hashing._bcrypt_salt()[-1] in ".Oeu"


@pytest.mark.parametrize(
    ("method", "longest"), [("blowfish", 72), ("sha512", 511), ("yescrypt", 511), ("md5", 511)]
)
def test_a_password_is_never_cut(method: Method, longest: int) -> None:
    """R-OSP-7: a byte more than the method takes is an error; bytes count, not characters."""
    fits = "ä" * (longest // 2) + "x" * (longest % 2)
    assert verifies(fits, make_hash(Secret(fits), method))
    with pytest.raises(RequestError, match=f"takes at most {longest}"):
        make_hash(Secret(fits + "x"), method)


@pytest.mark.parametrize("password", ["", "a\0b", "a\nb", "a\r"])
def test_what_is_no_password(password: str) -> None:
    """T-83, R-OSP-7: and the text of the error does not show it."""
    with pytest.raises(RequestError) as caught:
        make_hash(Secret(password), "sha512")
    assert "a" + "b" not in str(caught.value)
    assert "the password" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_the_method_is_known_from_the_hash(method: Method) -> None:
    made = make_hash(Secret("x"), method)
    assert method_of(made) == method
    assert method_of(Secret("!" + made.reveal())) == method


def test_other_hashes_are_not_guessed() -> None:
    assert method_of(Secret("*")) is None
    assert method_of(Secret("abJnggxhB/yWI")) is None


def test_hashes_of_the_host_are_used_once_each() -> None:
    """R-TASK-PW-5: those of the wanted method first, then own ones; two accounts share no salt."""
    of_host = (Secret("$y$j9T$a$b"), Secret("$6$one$x"), Secret("$6$two$y"))
    hashes = Hashes(Secret("x"), of_host)
    got = [hashes.next("sha512").reveal() for _ in range(3)]
    assert got[:2] == ["$6$one$x", "$6$two$y"]
    assert got[2].startswith("$6$")
    assert got[2] not in got[:2]
    assert hashes.next("yescrypt").reveal() == "$y$j9T$a$b"


def test_a_password_is_judged_before_a_hash_of_the_host_is_used() -> None:
    """R-TASK-PW-5: one that the method would cut."""
    with pytest.raises(RequestError, match="at most 72"):
        Hashes(Secret("x" * 73), (Secret("$2b$12$salt"),)).next("blowfish")


def test_a_hash_of_another_form_of_the_method_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-TASK-PW-5: NetBSD's bcrypt is ``$2a$``; the host, which did not know the family, made ``$2b$``."""
    monkeypatch.setattr(hashing, "_BCRYPT_COST", 4)
    hashes = Hashes(Secret("x"), (Secret("$2b$12$saltandhash"),), family=OsFamily.NETBSD)
    assert hashes.next("blowfish").reveal().startswith("$2a$")
