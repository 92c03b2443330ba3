"""Passwords are verified by libcrypt, whatever the method (D-35)."""

import pytest

from snf_image_vmtests import crypt_hash


@pytest.mark.parametrize(
    "setting", ["$6$saltsalt$", "$5$saltsalt$", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$", "$1$salt$"]
)
def test_a_hash_verifies_its_password_and_no_other(setting: str) -> None:
    stored = crypt_hash.hash_password("neu & schön", setting)
    assert crypt_hash.verify("neu & schön", stored)
    assert not crypt_hash.verify("old", stored)


@pytest.mark.parametrize("stored", ["", "!", "*", "!$6$saltsalt$x", "x"])
def test_a_locked_or_empty_field_matches_nothing(stored: str) -> None:
    assert not crypt_hash.verify("old", stored)


def test_hashes_for_operators_differ_each_time() -> None:
    one, two = crypt_hash.new_sha512("a"), crypt_hash.new_sha512("a")
    assert one != two
    assert crypt_hash.verify("a", one)


def test_an_unknown_method_is_an_error_without_the_password() -> None:
    with pytest.raises(ValueError, match="does not know") as caught:
        crypt_hash.hash_password("topsecret", "$zz$")
    assert "topsecret" not in str(caught.value)
