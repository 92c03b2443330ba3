"""Password hashes made on the host."""

from __future__ import annotations

import ctypes

import pytest

from snf_image_contract.job import AssignHostname, ChangePassword, HashMethod, Job, JobDisk
from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_host import password_hashes
from snf_image_host.password_hashes import PasswordHasher, methods_for

PASSWORD = "pässword & more"


def job(
    *, family: OsFamily | None = None, cloud_init: bool = False, given: str | None = None,
    password: str | None = PASSWORD, method: HashMethod | None = None, users: tuple[str, ...] = (),
) -> Job:  # fmt: skip
    return Job(
        instance="web1",
        clock=0,
        disks=(JobDisk(index=0),),
        os_family=family,
        cloud_init=cloud_init,
        assign_hostname=AssignHostname(name="web1"),
        change_password=ChangePassword(
            users=users,
            method=method,
            password=None if password is None else Secret(password),
            password_hash=None if given is None else Secret(given),
        ),
    )


def made(asked: Job) -> list[str]:
    with PasswordHasher(asked) as hasher:
        return [secret.reveal() for secret in hasher.hashes()]


def verifies(stored: str) -> bool:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    return bool(crypt(PASSWORD.encode(), stored.encode()) == stored.encode())


@pytest.mark.parametrize(
    ("asked", "methods"),
    [
        (job(), ("yescrypt", "sha512")),
        (job(method="auto"), ("yescrypt", "sha512")),
        (job(method="sha256"), ("sha256",)),
        (job(family=OsFamily.FREEBSD), ("sha512",)),
        (job(family=OsFamily.OPENBSD), ("blowfish",)),
        (job(family=OsFamily.NETBSD), ()),  # its sha1 costs the helper little
        (job(family=OsFamily.NETBSD, method="blowfish"), ()),  # whose form is another there
        (job(family=OsFamily.WINDOWS), ()),
        (job(method="md5"), ()),
        (job(password=None), ()),
        (job(given="$6$x$y"), ()),
        (job(cloud_init=True), ()),
        (job(users=("a", "b", "c", "d", "e")), ()),
    ],
)
def test_the_methods_that_are_worth_it(asked: Job, methods: tuple[HashMethod, ...]) -> None:
    """R-TASK-PW-5: what the image may turn out to want."""
    assert methods_for(asked) == methods


@pytest.mark.parametrize("method", ["sha256", "sha512", "yescrypt", "blowfish"])
def test_a_hash_is_of_its_form_and_verifies(method: HashMethod) -> None:
    """R-TASK-PW-5: forms, and costs that are not below libxcrypt's."""
    (stored,) = made(job(method=method))
    begins = {"sha256": "$5$", "sha512": "$6$", "yescrypt": "$y$j9T$", "blowfish": "$2b$12$"}
    assert stored.startswith(begins[method])
    assert "rounds=" not in stored
    assert verifies(stored)


def test_each_account_gets_one_of_its_own() -> None:
    """R-TASK-PW-5: two accounts of one password share no salt."""
    stored = made(job(method="sha512", users=("root", "me")))
    assert len(set(stored)) == 2
    assert all(map(verifies, stored))


@pytest.mark.parametrize("password", ["", "x" * 512, "a\0b", "a\nb"])
def test_a_password_that_the_helper_refuses_is_left_to_it(password: str) -> None:
    """It tells what is wrong."""
    assert made(job(password=password)) == []


def test_a_node_without_libcrypt_leaves_it_to_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_hashes, "_LIBRARY", "libcrypt.so.of-the-future")
    assert made(job()) == []
