"""From words on the command line to a request."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from snf_image_contract.secret import Secret
from snf_image_host.cli.arguments import parse_arguments
from snf_image_host.cli.asking import build_request, config_files
from snf_image_host.configuration import NodeConfig
from snf_image_host.deployment import TargetDisk
from snf_image_host.errors import UserError
from snf_image_host.parameters.os_parameters import BY_NAME
from snf_image_host.planning.request import AskedNic, Request


def ask(*words: str, config: NodeConfig | None = None) -> Request:
    return build_request(parse_arguments(list(words)), config or NodeConfig.defaults())


def deploy(*words: str) -> Request:
    return ask("deploy", "image.raw", "disk.raw", *words)


def refused(*words: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        ask(*words)
    assert all(line.isprintable() for line in caught.value.messages)
    return caught.value.messages


def refused_deploy(*words: str) -> tuple[str, ...]:
    return refused("deploy", "image.raw", "disk.raw", *words)


def texts(request: Request) -> dict[str, str]:
    return {name: text.reveal() for name, text in request.parameters.items()}


def properties(request: Request) -> Any:
    return json.loads(request.parameters["inst_properties"].reveal())


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: str | bytes, name: str = "file") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_a_plain_deployment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """D-9: an ordinary path."""
    monkeypatch.chdir(tmp_path)
    request = ask("deploy", "sub/image.raw", "disk.raw", "--disk-size", "4G")
    assert request.action == "deploy"
    assert request.image.path == str(tmp_path / "sub/image.raw")
    assert request.image.shown == "image.raw"
    assert request.image.digest is True
    assert request.disks == (TargetDisk(index=0, path=str(tmp_path / "disk.raw"), create_size=4 << 30),)
    assert request.hostname is None
    assert request.nics is None
    assert texts(request) == {"img_format": "diskdump"}


def test_the_configuration_may_name_the_format() -> None:
    """R-OSP-1"""
    config = NodeConfig.defaults(os_parameters={"img_format": Secret("extdump")})
    assert "img_format" not in texts(ask("deploy", "a", "b", config=config))
    assert texts(ask("deploy", "a", "b", "--format", "ntfsdump", config=config))["img_format"] == "ntfsdump"


@pytest.mark.parametrize(
    ("image", "kind", "path"),
    [
        ("https://u:hunter2@example.org/x?t=1", "url", "https://u:hunter2@example.org/x?t=1"),
        ("local://debian", "image-dir", "debian"),
        ("/srv/debian", "path", "/srv/debian"),
        ("/srv/a:b", "path", "/srv/a:b"),
    ],
)
def test_a_scheme_says_where_the_image_is(image: str, kind: str, path: str) -> None:
    """D-9, R-SEC-2: without one it is a path; what is shown holds no credentials."""
    asked = ask("deploy", image, "disk.raw").image
    assert (asked.kind, asked.path) == (kind, path)
    assert "hunter2" not in asked.shown
    assert "t=1" not in asked.shown


def test_sources_that_are_not_there() -> None:
    """R-BACK-7, R-BACK-10."""
    [message] = refused("deploy", "pithos://account/container/x?token=hunter2", "disk.raw")
    assert "no back-end knows 'pithos://account/container/x'; Pithos needs a back-end of its own" in message
    assert "hunter2" not in message
    [message] = refused("inspect", "https://u:hunter2@example.org/x", "--format", "diskdump")
    assert "only a file or block device is inspected" in message
    assert "hunter2" not in message


def test_auto_takes_apart_whatever_the_image_is_wrapped_in() -> None:
    """R-FMT-1, D-3: on the command line only, and only if it was asked for."""
    assert ask("deploy", "a", "b", "--format", "auto").image.any_container
    assert texts(ask("deploy", "a", "b", "--format", "auto"))["img_format"] == "diskdump"
    assert not ask("deploy", "a.qcow2", "b", "--format", "diskdump").image.any_container
    assert not ask("deploy", "a.qcow2", "b").image.any_container


def test_more_disks() -> None:
    request = deploy("--add-disk", "/b.raw", "--add-disk", "/c.raw", "--swap", "b")
    assert [(disk.index, disk.path) for disk in request.disks[1:]] == [(1, "/b.raw"), (2, "/c.raw")]
    assert properties(request) == {"SWAP": "b"}


def test_an_inspection_reads_only() -> None:
    """D-28"""
    request = ask("inspect", "/image.raw")
    assert request.action == "inspect"
    assert request.disks == (TargetDisk(index=0, path="/image.raw", read_only=True),)
    assert not request.image.digest


def test_customizing_copies_nothing() -> None:
    request = ask("customize", "/disk.raw", "--hostname", "x")
    assert request.action == "customize"
    assert request.image.path is None
    assert request.disks == (TargetDisk(index=0, path="/disk.raw"),)


def test_digests() -> None:
    assert deploy("--digest", "none").image.digest is False
    assert deploy("--sha256", "A" * 64).image.sha256 == "a" * 64
    assert deploy("--sha256", "a" * 64, "--digest", "none").image.digest is True
    assert "64 hexadecimal" in refused_deploy("--sha256", "abc")[0]


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("pw\n", "pw"),
        ("pw", "pw"),
        ("pw\r\n", "pw"),
        ("pw\n\n", "pw\n"),
        (" p w \n", " p w "),
        ("pä\n", "pä"),
        ("\n", ""),
    ],
)
def test_the_newline_at_the_end_of_a_password_file(content: str, password: str, file: Any) -> None:
    """D-17: that one and nothing else is left out."""
    assert texts(deploy("--password-file", file(content)))["img_passwd"] == password


def test_everything_that_comes_from_files(file: Any) -> None:
    """D-17"""
    personality = '[{"path": "/a", "contents": "aGk="}]'
    request = deploy(
        "--password-hash-file", file("$6$a$b\n", "hash"),
        "--auth-keys", file("ssh-rsa x\n", "keys"),
        "--personality", file(personality, "personality"),
        "--cloud-userdata", file(b"#cloud\xff", "user"),
        "--custom-task", file("#!/bin/sh\n", "task"),
    )  # fmt: skip
    assert texts(request) == {
        "img_format": "diskdump",
        "img_passwd_hash": "$6$a$b",
        "auth_keys": "ssh-rsa x\n",
        "img_personality": personality,
        "cloud_userdata": base64.b64encode(b"#cloud\xff").decode(),
        "inst_properties": json.dumps({"CUSTOM_TASK": base64.b64encode(b"#!/bin/sh\n").decode()}),
    }


def test_standard_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """D-17"""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hunter2\n")))
    assert texts(deploy("--password-file", "-"))["img_passwd"] == "hunter2"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hunter2\n")))
    messages = refused_deploy("--password-file", "-", "--auth-keys", "-")
    assert messages == ("--auth-keys and --password-file cannot both be standard input",)


def test_a_password_from_a_pipe() -> None:
    """D-17: --password-file <(pass show web1)."""
    reader, writer = os.pipe()
    os.write(writer, b"hunter2\n")
    os.close(writer)
    try:
        assert texts(deploy("--password-file", f"/dev/fd/{reader}"))["img_passwd"] == "hunter2"
    finally:
        os.close(reader)


def test_files_that_cannot_be_read(file: Any, tmp_path: Path) -> None:
    messages = refused_deploy(
        "--password-file", "/nonexistent", "--auth-keys", file(b"\xff"), "--personality", str(tmp_path)
    )
    assert messages == (
        "--password-file: /nonexistent: No such file or directory",
        f"--auth-keys: {tmp_path}/file: not valid UTF-8",
        f"--personality: {tmp_path}: Is a directory",
    )


def test_properties() -> None:
    """R-PROP-2"""
    assert properties(deploy("--property", "users=a b", "--property", "X=a=b", "--property", "Y=")) == {
        "USERS": "a b",
        "X": "a=b",
        "Y": "",
    }


def test_what_a_windows_needs(file: Any) -> None:
    """D-17, R-OSP-9, R-OSP-12: the key is read from a file, the answer file is one, or a URL."""
    key = "ABCDE-12345-FGHIJ-67890-KLMNO"
    request = deploy("--product-key-file", file(f"{key}\n", "key"), "--answer-file", file(b"<\xff/>", "xml"))
    assert texts(request)["os_product_key"] == key
    assert request.answer_file is not None
    assert base64.b64decode(request.answer_file.reveal()) == b"<\xff/>"
    assert "os_answer_file" not in texts(request)
    request = deploy("--answer-file", "https://example.org/u.xml")
    assert (request.answer_file, texts(request)["os_answer_file"]) == (None, "https://example.org/u.xml")
    messages = refused_deploy("--product-key-file", "/nonexistent", "--answer-file", "/nonexistent")
    assert messages == (
        "--product-key-file: /nonexistent: No such file or directory",
        "--answer-file: /nonexistent: No such file or directory",
    )


def test_every_os_parameter_has_an_option() -> None:
    """D-17: whatever a cluster can ask of one instance can be asked on the command line, secrets in files."""
    options = vars(parse_arguments(["deploy", "image.raw", "disk.raw"])).keys()
    named = {
        "img_id": "image", "img_format": "format", "img_passwd": "password_file",
        "img_passwd_hash": "password_hash_file", "img_properties": "property", "inst_properties": "property",
        "img_personality": "personality", "auth_keys": "auth_keys", "os_product_key": "product_key_file",
        "os_answer_file": "answer_file", "cloud_userdata": "cloud_userdata",
    }  # fmt: skip
    assert named.keys() == BY_NAME.keys() - {"config_url"}
    assert set(named.values()) <= options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SWAP"], "--property: 'SWAP' must be NAME=VALUE"),
        (["A=1", "a=2"], "--property: A is given twice"),
    ],
)
def test_properties_that_are_refused(words: list[str], message: str) -> None:
    assert refused_deploy(*(word for text in words for word in ("--property", text))) == (message,)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("CUSTOM_TASK", "--custom-task"),
        ("passwd", "--password-file"),
        ("PASSWD_HASH", "--password-hash-file"),
        ("PERSONALITY", "--personality"),
        ("CLOUD_USERDATA", "--cloud-userdata"),
        ("OS_PRODUCT_KEY", "--product-key-file"),
    ],
)
def test_secret_properties(name: str, option: str) -> None:
    """D-17, R-SEC-1: refused, without showing them once more."""
    [message] = refused_deploy("--property", f"{name}=hunter2")
    assert option in message
    assert "hunter2" not in message


def test_swap() -> None:
    assert properties(deploy("--swap", "2:512")) == {"SWAP": "2:512"}
    assert properties(deploy("--swap", "2:512", "--property", "swap=2:512")) == {"SWAP": "2:512"}
    assert refused_deploy("--swap", "2:512", "--property", "swap=b") == ("--swap and --property SWAP differ",)
    assert "must be <partition number>:<MB>" in refused_deploy("--swap", "2")[0]


def test_interfaces() -> None:
    """D-33"""
    word = "mac=aa:00:00:12:34:56,ip=192.0.2.10,subnet=192.0.2.0/24,gateway=192.0.2.1,subnet6=2001:db8::/64"
    request = deploy("--nic", f"{word},gateway6=2001:db8::1,tags=a b,model=e1000", "--nic", "mac=x")
    assert request.nics == (
        AskedNic(
            mac="aa:00:00:12:34:56",
            ip="192.0.2.10",
            subnet="192.0.2.0/24",
            gateway="192.0.2.1",
            subnet6="2001:db8::/64",
            gateway6="2001:db8::1",
            tags="a b",
            model="e1000",
            origin="option",
        ),
        AskedNic(mac="x", origin="option"),
    )


def test_an_address_with_its_prefix_length() -> None:
    nics = deploy("--nic", "mac=x,ip=192.0.2.10/24").nics
    assert nics == (AskedNic(mac="x", ip="192.0.2.10", subnet="192.0.2.10/24", origin="option"),)


def test_interfaces_that_are_refused() -> None:
    """D-33, D-31"""
    assert refused_deploy("--nic", "mc=x", "--nic", "mac=x,mac=y,ip") == (
        "--nic 1: unknown key 'mc', did you mean mac?",
        "--nic 1: mac is missing",
        "--nic 2: mac is given twice",
        "--nic 2: 'ip' must be key=value",
    )


def test_overrides() -> None:
    overrides = deploy(
        "--helper-dir", "/h", "--accel", "tcg", "--memory", "600", "--cpus", "2", "--timeout", "2m", "--debug"
    ).overrides
    assert (overrides.helper_dir, overrides.accelerator) == ("/h", "tcg")
    assert (overrides.memory, overrides.cpus, overrides.soft_timeout) == (600, 2, 120.0)
    assert overrides.debug is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["deply"], "there is no command 'deply', did you mean deploy?"),
        (["deploy", "--hostnam=x"], "unknown option '--hostnam', did you mean --hostname?"),
        (
            ["deploy", "a", "b", "--pasword-file", "x"],
            "unknown option '--pasword-file', did you mean --password-file?",
        ),
        (["deploy", "a", "b", "c"], "there is one argument too many: 'c'"),
        (["deploy", "a"], "the following arguments are required: DISK"),
        (["deploy", "a", "b", "--format", "raw"], "--format: there is no 'raw'"),
        (
            ["deploy", "a", "b", "--memory", "1"],
            "--memory: must be a whole number from 128 to 65536, not '1'",
        ),
        (
            ["deploy", "a", "b", "--disk-size", "1000"],
            "--disk-size: must be a multiple of 512 bytes, not '1000'",
        ),
        (
            ["deploy", "a", "b", "--password-file", "x", "--password-hash-file", "y"],
            "not allowed with argument",
        ),
        (["inspect", "a", "--report", "x"], "unknown option '--report'"),  # nothing is done to tell of
        (["helper", "verfy"], "there is no command 'verfy', did you mean verify?"),
        (["deploy", "a", "b", "--host", "x"], "unknown option '--host'"),
        (["deploy", "a", "b", "-z"], "unknown option '-z'"),
        (["deploy", "a", "b", "--hostname"], "--hostname: expected one argument"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    """D-16, D-31: an error like any other, with the nearest name; nothing is abbreviated."""
    with pytest.raises(UserError) as caught:
        parse_arguments(words)
    assert message in caught.value.messages[0]
    assert caught.value.messages[0].isprintable()
    assert caught.value.hint.endswith("--help`")


def test_configuration_files(tmp_path: Path) -> None:
    """R-CONF-1, R-CONF-5"""
    assert [file.path for file in config_files(parse_arguments(["doctor"]))] == [
        "/etc/default/snf-image",
        "/etc/snf-image/snf-image.conf",
    ]
    own = config_files(parse_arguments(["doctor", "--config", "/a", "--config", "/b"]))
    assert [(file.path, file.optional) for file in own] == [("/a", False), ("/b", False)]
    assert set(own[0].owners) == {0, os.geteuid()}


@pytest.mark.parametrize("command", ["deploy", "customize", "inspect", "doctor", "helper"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"snf-image {command}" in text
    assert "exit codes:" in text
