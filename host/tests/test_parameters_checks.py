"""The rules of OS parameters."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_contract.names import ImageFormat, OsFamily
from snf_image_contract.secret import Secret
from snf_image_host.configuration import NodeConfig
from snf_image_host.parameters.authorized_keys import is_key
from snf_image_host.parameters.checks import Parameters, check_parameters, merge_parameters
from snf_image_host.parameters.os_parameters import OS_PARAMETERS
from snf_image_host.parameters.problems import Problems

IMAGE = {"img_id": "debian", "img_format": "diskdump"}


def blob(kind: str) -> str:
    name = kind.encode()
    return base64.b64encode(len(name).to_bytes(4, "big") + name + b"\0\0\0\x20" + b"k" * 32).decode()


ED25519 = f"ssh-ed25519 {blob('ssh-ed25519')}"
RSA = f"ssh-rsa {blob('ssh-rsa')} me@home"


def check(config: NodeConfig | None = None, /, **given: str) -> tuple[Parameters, Problems]:
    problems = Problems()
    secrets = {name: Secret(text) for name, text in (IMAGE | given).items()}
    return check_parameters(secrets, config or NodeConfig.defaults(), problems), problems


def good(**given: str) -> Parameters:
    parameters, problems = check(**given)
    assert problems.errors == []
    return parameters


def wrong(config: NodeConfig | None = None, /, **given: str) -> list[str]:
    _, problems = check(config, **given)
    assert problems.errors
    assert all(line.isprintable() for line in problems.errors)
    return problems.errors


def warnings(**given: str) -> list[str]:
    _, problems = check(**given)
    assert problems.errors == []
    return problems.warnings


def test_there_are_twelve() -> None:
    assert len(OS_PARAMETERS) == 12
    assert {row.name for row in OS_PARAMETERS if row.secret} == {
        "img_passwd",
        "img_passwd_hash",
        "img_personality",
        "os_product_key",
        "cloud_userdata",
    }


def test_later_sources_replace_earlier_ones() -> None:
    """R-OSP-1"""
    merged = merge_parameters({"a": Secret("1"), "b": Secret("1")}, {"b": Secret("2")}, {"c": Secret("3")})
    assert {name: text.reveal() for name, text in merged.items()} == {"a": "1", "b": "2", "c": "3"}


def test_not_set_is_not_empty() -> None:
    """R-OSP-2, R-OSP-3"""
    assert warnings() == []
    assert warnings(auth_keys="") == ["auth_keys is empty and counts as not set"]
    assert good(auth_keys="").auth_keys == ()


@pytest.mark.parametrize("name", ["img_passwd", "img_passwd_hash", "os_product_key"])
def test_empty_secrets_are_errors(name: str) -> None:
    """R-OSP-3, T-83, T-134: no account ever gets an empty password."""
    assert wrong(**{name: ""}) == [f"{name}: must not be empty"]


@pytest.mark.parametrize(
    "name",
    ["img_properties", "inst_properties", "img_personality", "auth_keys", "os_answer_file", "config_url",
     "cloud_userdata"],
)  # fmt: skip
def test_other_empty_parameters_count_as_not_set(name: str) -> None:
    """R-OSP-3"""
    assert warnings(**{name: ""}) == [f"{name} is empty and counts as not set"]
    assert name not in good(**{name: ""}).given


def test_image_and_format_are_required() -> None:
    """R-OSP-3, R-OSP-4"""
    assert wrong(img_id="", img_format="") == ["img_id is missing", "img_format is missing"]
    problems = Problems()
    check_parameters({}, NodeConfig.defaults(), problems)
    assert problems.errors == ["img_id is missing", "img_format is missing"]


def test_nothing_is_missing_with_config_url() -> None:
    """R-OSP-13, R-SCR-VERIFY-2"""
    assert good(img_id="", img_format="", config_url="https://example.org/x").config_url is not None


@pytest.mark.parametrize("text", ["qcow2", "DISKDUMP", "diskdump ", "raw"])
def test_formats(text: str) -> None:
    """R-OSP-5: the error lists the three words."""
    assert wrong(img_format=text) == [
        f"img_format: must be one of diskdump, extdump, ntfsdump, not {text!r}",
    ]
    assert good(img_format="extdump").image_format is ImageFormat.EXTDUMP


def test_password_and_hash_exclude_each_other() -> None:
    """R-OSP-6, T-15"""
    assert wrong(img_passwd="a", img_passwd_hash="$6$a$b") == [
        "img_passwd and img_passwd_hash exclude each other, give one of them"
    ]


def test_passwords_of_every_printable_character_and_utf_8() -> None:
    """R-OSP-7"""
    for text in ("".join(map(chr, range(32, 127))), "pässwörd ☃", " ", "x" * 512, "é" * 256, "\t"):
        password = good(img_passwd=text).password
        assert password is not None
        assert password.reveal() == text


@pytest.mark.parametrize("text", ["a\nb", "a\r", "a\0", "x" * 513, "é" * 257, "a\udcff"])
def test_passwords_that_are_refused(text: str) -> None:
    """R-OSP-7, R-SEC-1"""
    [message] = wrong(img_passwd=text)
    assert message.startswith("img_passwd: ")
    assert text not in message
    assert "'" not in message


def test_a_password_longer_than_bcrypt_reads() -> None:
    """R-OSP-7: an error, never a silent truncation."""
    method = '{"PASSWD_HASHING_METHOD": "blowfish"}'
    assert "72 bytes" in wrong(img_passwd="é" * 37, img_properties=method)[0]
    assert good(img_passwd="é" * 36, img_properties=method).password
    assert "72 bytes" in wrong(img_passwd="x" * 73, img_properties='{"OSFAMILY": "openbsd"}')[0]


@pytest.mark.parametrize(
    "text",
    ["$1$a$b", "$2b$10$abc", "$2y$10$abc", "$5$a$b", "$6$a$b", "$7$a", "$y$j9T$a$b", "$gy$a", "$sha1$1$a",
     "_J9..x", "abJnggxhB/yWI", "*", "!", "!$6$a$b"],
)  # fmt: skip
def test_hashes(text: str) -> None:
    """R-OSP-8"""
    assert warnings(img_passwd_hash=text) == []


@pytest.mark.parametrize("text", ["plain", "$9$a$b", "x", "$6", "abJnggxhB/yWIx"])
def test_hashes_of_no_known_form(text: str) -> None:
    """R-OSP-8: a warning."""
    [warning] = warnings(img_passwd_hash=text)
    assert "no form that crypt(5) knows" in warning
    assert text == "x" or text not in warning


@pytest.mark.parametrize("text", ["a:b", "a b", "a\n", "$6$é", "a\t", "x" * 1025, "\x7f"])
def test_hashes_that_are_refused(text: str) -> None:
    """R-OSP-8"""
    [message] = wrong(img_passwd_hash=text)
    assert message.startswith("img_passwd_hash: must be ")
    assert "'a" not in message


def test_windows_takes_no_hash() -> None:
    """R-OSP-8"""
    assert "Windows" in wrong(img_passwd_hash="$6$a$b", img_properties='{"OSFAMILY": "windows"}')[0]


def test_product_keys() -> None:
    """R-OSP-9, R-SEC-1: the error does not echo the value."""
    key = "AbCdE-12345-FGHIJ-67890-KLMNO"
    windows = '{"OSFAMILY": "windows"}'
    product_key = good(os_product_key=key, img_properties=windows).product_key
    assert product_key is not None
    assert product_key.reveal() == key
    for text in (key + "x", key[:-1], key.replace("-", " "), key + "\n", "x"):
        [message] = wrong(os_product_key=text)
        assert "five groups" in message
        assert "12345" not in message
    assert warnings(os_product_key=key, img_properties='{"OSFAMILY": "linux"}') == [
        "os_product_key is ignored for linux images"
    ]


@pytest.mark.parametrize(
    "line",
    [
        ED25519,
        RSA,
        f"  {ED25519}\ta comment with words  ",
        f'command="echo \\"hi there\\"",no-pty {RSA}',
        f'from="10.0.0.0/8" {ED25519}',
        f"restrict {ED25519}",
        f"sk-ssh-ed25519@openssh.com {blob('sk-ssh-ed25519@openssh.com')}",
        f"ssh-ed25519-cert-v01@openssh.com {blob('ssh-ed25519-cert-v01@openssh.com')} x",
        f"ecdsa-sha2-nistp256 {blob('ecdsa-sha2-nistp256')}",
    ],
)
def test_keys(line: str) -> None:
    """R-OSP-10"""
    assert good(auth_keys=line).auth_keys == (line.strip(" \t"),)


@pytest.mark.parametrize(
    "line",
    [
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        f"ssh-rsa {blob('ssh-ed25519')}",
        f"ssh-ed25519 {blob('ssh-ed25519')[:-1]}!",
        f"ssh-foo {blob('ssh-foo')}",
        "1024 35 12345678",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        f"ssh-ed25519\x1b[2J {blob('ssh-ed25519')}",
        f'command="x {RSA}',
        "hello world",
    ],
)
def test_lines_that_are_no_key(line: str) -> None:
    """R-OSP-10: dropped with a warning that holds nothing of them."""
    assert not is_key(line)
    parameters, problems = check(auth_keys=f"{ED25519}\n{line}\n")
    assert problems.errors == []
    assert parameters.auth_keys == (ED25519,)
    assert problems.warnings == ["auth_keys: line 2 is not an SSH public key and is dropped"]


def test_comments_and_line_ends() -> None:
    """R-OSP-10"""
    assert good(auth_keys=f"# mine\r\n\r\n{ED25519}\r\n\r\n  # x\r\n{RSA}\r\n").auth_keys == (ED25519, RSA)


def test_keys_of_which_none_is_valid() -> None:
    """D-26"""
    assert wrong(auth_keys="nonsense\n") == ["auth_keys: no line is an SSH public key"]
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n"
    assert ".pub" in wrong(auth_keys=private)[0]
    assert wrong(auth_keys="# only a comment\n") == ["auth_keys: there is no key in it"]


def test_bounds_of_keys() -> None:
    """R-OSP-10"""
    assert "longer than 65536" in wrong(auth_keys=f"{ED25519}\n" + "#" * 65536)[0]
    assert "NUL" in wrong(auth_keys=f"{ED25519}\0")[0]
    assert "not valid UTF-8" in wrong(auth_keys=f"{ED25519} \udcff")[0]


def test_windows_ignores_keys() -> None:
    """R-OSP-10"""
    given = {"auth_keys": ED25519, "img_properties": '{"OSFAMILY": "windows"}'}
    assert warnings(**given) == ["auth_keys are ignored for Windows images"]
    assert good(**given).auth_keys == ()


def test_user_data() -> None:
    """R-OSP-11"""
    cloud = '{"CLOUD_INIT": "yes"}'
    data = good(cloud_userdata="I2Ns\nb3Vk\n", img_properties=cloud).user_data
    assert data is not None
    assert data.reveal() == "I2Nsb3Vk"
    assert wrong(cloud_userdata="I2Nsb3V", img_properties=cloud) == ["cloud_userdata: not valid base64"]
    assert wrong(cloud_userdata="I2Nsb3V") == ["cloud_userdata: not valid base64"]
    assert warnings(cloud_userdata="I2Nsb3Vk") == [
        "cloud_userdata is ignored without the property CLOUD_INIT=yes"
    ]
    assert good(cloud_userdata="I2Nsb3Vk").user_data is None


def test_schemes_of_answer_files() -> None:
    """R-OSP-12, T-2"""
    assert good(os_answer_file="https://example.org/u.xml").properties.ignore_unattend is True
    assert "ANSWER_FILE_DIR" in wrong(os_answer_file="file:///etc/shadow")[0]
    assert "ANSWER_FILE_DIR" in wrong(os_answer_file="FILE:/etc/shadow")[0]
    assert "scheme https, http, ftps, ftp" in wrong(os_answer_file="gopher://x/")[0]
    assert "scheme" in wrong(os_answer_file="/etc/shadow")[0]


def test_schemes_of_config_url() -> None:
    """R-OSP-13: never a file, whatever the operator allows."""
    config = NodeConfig.defaults(answer_file_dir="/srv")
    for url in ("file:///etc/shadow", "/etc/shadow", "https://", "http://h/ -o x"):
        assert wrong(config, config_url=url)[0].startswith("config_url: ")
    https = NodeConfig.defaults(fetch_allowed_schemes=("https",))
    assert "scheme https" in wrong(https, config_url="http://h/")[0]


def test_urls_are_never_echoed() -> None:
    """R-SEC-2"""
    for url in ("gopher://user:hunter2@h/?t=1", "http://user:hunter2@h:99999/"):
        assert "hunter2" not in wrong(config_url=url)[0]


def test_everything_is_told_at_once() -> None:
    """R-OSP-16, T-25: one line each."""
    errors = wrong(
        img_id="",
        img_format="x",
        img_passwd="a\nb",
        img_properties="[]",
        inst_properties='{"SWAP": "?"}',
        img_personality="{",
        os_product_key="x",
        cloud_userdata="!",
        config_url="",
    )
    assert sorted(line.partition(":")[0] for line in errors) == [
        "cloud_userdata",
        "img_format",
        "img_id is missing",
        "img_passwd",
        "img_personality",
        "img_properties",
        "os_product_key",
        "property SWAP",
    ]


@pytest.mark.parametrize("name", ["img_properties", "inst_properties", "img_personality"])
@pytest.mark.parametrize("text", ["{", "[1,", '"', "{'a': 1}", "\x00"])
def test_malformed_json(name: str, text: str) -> None:
    """T-16, R-PROP-1: named, with the place, without the text."""
    [message] = wrong(**{name: text})
    assert message.startswith(f"{name}: not valid JSON (")


def test_unknown_parameters() -> None:
    """D-31"""
    assert wrong(img_pasword="x") == ["'img_pasword' is not an OS parameter, did you mean img_passwd?"]


def test_families_that_the_format_implies() -> None:
    """R-PROP-8, T-22"""
    extdump = good(img_format="extdump")
    assert (extdump.family, extdump.root_partition) == (OsFamily.LINUX, 1)
    ntfsdump = good(img_format="ntfsdump")
    assert (ntfsdump.family, ntfsdump.root_partition) == (OsFamily.WINDOWS, 1)
    diskdump = good()
    assert (diskdump.family, diskdump.root_partition) == (None, None)
    given = good(img_properties='{"OSFAMILY": "freebsd", "ROOT_PARTITION": 2}')
    assert (given.family, given.root_partition) == (OsFamily.FREEBSD, 2)


def test_families_that_contradict_the_format() -> None:
    """R-PROP-8"""
    same = good(img_format="extdump", img_properties='{"OSFAMILY": "linux", "ROOT_PARTITION": 1}')
    assert (same.family, same.root_partition) == (OsFamily.LINUX, 1)
    assert wrong(img_format="extdump", img_properties='{"OSFAMILY": "freebsd", "ROOT_PARTITION": 2}') == [
        "property OSFAMILY: must be linux for an image of format extdump",
        "property ROOT_PARTITION: must be 1 for an image of format extdump",
    ]
    legacy = good(img_format="ntfsdump", img_properties='{"OSFAMILY": "windows-legacy"}')
    assert legacy.family is OsFamily.WINDOWS_LEGACY
    assert wrong(img_format="ntfsdump", img_properties='{"OSFAMILY": "linux"}')


def test_properties_of_an_implied_family() -> None:
    """R-PROP-7, R-PROP-8"""
    parameters, problems = check(img_format="ntfsdump", img_properties='{"SWAP": "2:512"}')
    assert parameters.properties.swap is None
    assert problems.warnings == ["property SWAP does not apply to windows images and is ignored"]


def test_what_the_operator_must_allow() -> None:
    """R-TASK-8: an error, not silently ignored; ALLOW_CUSTOM_TASK."""
    task = json.dumps({"CUSTOM_TASK": base64.b64encode(b"#!/bin/sh\n").decode()})
    assert good(img_properties=task).properties.custom_task
    assert "ALLOW_CUSTOM_TASK" in wrong(NodeConfig.defaults(allow_custom_task=False), img_properties=task)[0]
    overwriting = '{"ALLOW_MOUNTED_TASK_OVERWRITING": "yes"}'
    assert "ALLOW_TASK_OVERWRITING" in wrong(img_properties=overwriting)[0]
    _, problems = check(NodeConfig.defaults(allow_task_overwriting=True), img_properties=overwriting)
    assert problems.errors == []


@pytest.mark.parametrize("name", ["a:b", "../x", "a\nb", ""])
def test_names_of_no_account(name: str) -> None:
    """R-TASK-PW-1"""
    [message] = wrong(img_properties=json.dumps({"USERS": [name]}))
    assert message.startswith("property USERS: ")


def test_unix_accounts_have_no_white_space() -> None:
    """R-TASK-PW-1: Windows ones may, and before detection nobody knows."""
    users = {"USERS": ["John Doe"]}
    assert good(img_properties=json.dumps(users)).properties.users == ("John Doe",)
    assert good(img_properties=json.dumps(users | {"OSFAMILY": "windows"})).properties.users == ("John Doe",)
    assert "white space" in wrong(img_properties=json.dumps(users | {"OSFAMILY": "linux"}))[0]


def test_bounds_of_personality_are_the_operators() -> None:
    """R-PERS-7"""
    files = json.dumps([{"path": "/a", "contents": "aGk="}, {"path": "/b", "contents": "aGk="}])
    assert "at most 1" in wrong(NodeConfig.defaults(personality_max_files=1), img_personality=files)[0]
    assert "at most 3" in wrong(NodeConfig.defaults(personality_max_size=3), img_personality=files)[0]
    assert len(good(img_personality=files).personality) == 2


def test_windows_paths_of_an_implied_family() -> None:
    """R-PERS-2, R-PROP-8"""
    files = json.dumps([{"path": "C:\\x", "contents": "aGk="}])
    assert good(img_personality=files, img_format="ntfsdump").personality[0].path == "/x"
    assert wrong(img_personality=files, img_format="extdump")


@pytest.mark.parametrize("text", ["-o/etc/x", "a\nb", "a\0"])
def test_identifiers_that_are_refused(text: str) -> None:
    """T-1"""
    assert wrong(img_id=text)[0].startswith("img_id: ")


@given(st.dictionaries(st.sampled_from([row.name for row in OS_PARAMETERS]), st.text(max_size=40)))
def test_whatever_is_given_is_answered_without_secrets(given: dict[str, str]) -> None:
    """R-SEC-1, R-OSP-16"""
    parameters, problems = check(**given)
    for line in (*problems.errors, *problems.warnings):
        assert line.isprintable()
    for row in OS_PARAMETERS:
        text: Any = given.get(row.name, "")
        if row.secret and len(text) > 30:
            assert text not in repr(parameters)
            assert text not in "".join(problems.errors)
