"""Configuration files: which are believed, and what they say."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from snf_image_host.configuration import ConfigFile, NodeConfig, load_config, main_files
from snf_image_host.configuration.variables import VARIABLES, parse_account
from snf_image_host.errors import NodeError

ME = (os.geteuid(),)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str | bytes, name: str = "conf", mode: int = 0o644) -> ConfigFile:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        os.chown(path, -1, os.getegid())
        return ConfigFile(path=str(path), owners=ME)

    return write_file


def problems(*files: ConfigFile) -> tuple[str, ...]:
    with pytest.raises(NodeError) as caught:
        load_config(files)
    return caught.value.messages


def test_the_table_and_the_typed_result_agree() -> None:
    fields = {field.name for field in dataclasses.fields(NodeConfig)}
    assert fields == {row.field for row in VARIABLES} | {"os_parameters", "warnings"}


@pytest.mark.parametrize("row", VARIABLES, ids=lambda row: row.name)
def test_every_default_is_right(row: Any) -> None:
    assert getattr(NodeConfig.defaults(), row.field) == row.parse(row.default)


# The example of HELPER_USER is an account of the reader's node.
@pytest.mark.parametrize(
    "row", [row for row in VARIABLES if row.parse is not parse_account], ids=lambda row: row.name
)
def test_every_example_is_right(row: Any, write: Any) -> None:
    config = load_config([write(f"{row.name}='{row.example}'\n")])
    assert getattr(config, row.field) == row.parse(row.example) != row.parse(row.default)


def test_the_main_files_in_their_order() -> None:
    """R-CONF-1"""
    assert [file.path for file in main_files()] == ["/etc/default/snf-image", "/etc/snf-image/snf-image.conf"]
    assert all(file.optional and file.owners == (0,) for file in main_files())


def test_the_later_file_wins_per_key(write: Any) -> None:
    """R-CONF-1, R-CONF-5: and the last assignment in a file."""
    first = write("HELPER_MEMORY=600\nHELPER_CPUS=2\nHELPER_CPUS=3\n", "a")
    second = write("HELPER_MEMORY=700\n", "b")
    config = load_config([first, second])
    assert (config.helper_memory, config.helper_cpus) == (700, 3)


def test_missing_files(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert load_config([ConfigFile(path=missing, optional=True)]) == NodeConfig.defaults()
    assert problems(ConfigFile(path=missing)) == (f"{missing}: no such file",)


def test_an_empty_value_is_the_default(write: Any) -> None:
    """R-CONF-6: also after another value."""
    config = load_config([write("HELPER_MEMORY=600\nHELPER_MEMORY=\nWIPE_TAIL=''\nQEMU=\n")])
    assert config.helper_memory == 512
    assert config.wipe_tail == "discard"
    assert config.qemu.startswith("qemu-system-")


def test_an_empty_value_that_means_none(write: Any) -> None:
    """R-CONF-6"""
    text = "DEFAULT_NIC_CONFIG=\nDHCP_TAGS=\nSTATEFUL_DHCPV6_TAGS=\nSTATELESS_DHCPV6_TAGS=''\n"
    config = load_config([write(text)])
    assert config.default_nic_config == ""
    assert config.dhcp_tags == config.stateful_dhcpv6_tags == config.stateless_dhcpv6_tags == ()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("IMAGE_DEBUG=maybe", "must be yes"),
        ("HELPER_SOFT_TIMEOUT=soon", "must be a time"),
        ("HELPER_MEMORY=127", "from 128 to 65536"),
        ("HELPER_CPUS=17", "from 1 to 16"),
        ("DEFAULT_NIC_CONFIG=static", "empty, dhcp, dhcpv6, slaac, slaac_dhcp, dhcp+dhcpv6"),
        ("HELPER_ACCEL=xen", "auto, kvm, tcg"),
        ("HELPER_TCG_TIMEOUT_FACTOR=0.5", "at least 1"),
        ("KVM='/usr/bin/kvm -enable-kvm'", "one program, without arguments"),
        ("IMAGE_DIR=images", "absolute path"),
        ("DNS_SERVERS=dns.example.org", "IP address"),
        ("FETCH_ALLOWED_SCHEMES='https file'", "each word"),
        ("IMAGE_CONTAINERS='raw zip'", "each word"),
        ("HELPER_UID_RANGE=0-65535", "FIRST-LAST"),
        ("HELPER_USER=root", "must not be root"),
        ("HELPER_USER=no-such-account", "must be an account"),
    ],
)
def test_invalid_values_name_file_line_and_variable(line: str, text: str, write: Any) -> None:
    """R-CONF-4, R-CONF-7, R-CONF-8, R-CONF-11: errors at the start."""
    file = write(f"# first\n{line}\n")
    [message] = problems(file)
    assert message.startswith(f"{file.path}:2: {line.partition('=')[0]}")
    assert text in message


def test_all_problems_are_told_together(write: Any) -> None:
    """R-OSP-16"""
    files = write("HELPER_MEMORY=x\nif true\nHELPER_CPUS=x\n"), write("WIPE_TAIL=x\n", "b")
    assert len(problems(*files)) == 4


def test_no_limit_is_warned_of(write: Any) -> None:
    """R-CONF-8"""
    config = load_config([write("HELPER_SOFT_TIMEOUT=0\n")])
    assert config.helper_soft_timeout == 0
    assert "HELPER_SOFT_TIMEOUT: 0 means no limit" in config.warnings[0]


def test_an_unknown_key_is_warned_of_once(write: Any) -> None:
    """R-CONF-5, D-31: with the nearest known name."""
    config = load_config([write("HELPER_MEMROY=1\nHELPER_MEMROY=2\nSITE_NAME=x\n")])
    assert len(config.warnings) == 2
    assert "HELPER_MEMROY is not known and ignored, did you mean HELPER_MEMORY?" in config.warnings[0]


@pytest.mark.parametrize(
    "name",
    ["VERSION_CHECK", "MULTISTRAP_CONFIG", "XEN_CMD", "DD", "TIMEOUT", "RBD_BLOCK_SIZE", "HELPER_PKG",
     "HELPER_SIZE", "PITHOS_DATA", "PITHCAT_INPUT"],
)  # fmt: skip
def test_obsolete_variables_are_ignored_with_a_warning(name: str, write: Any) -> None:
    """R-CONF-10, D-15"""
    config = load_config([write(f"{name}=x\n")])
    assert dataclasses.replace(config, warnings=()) == NodeConfig.defaults()
    assert f":1: {name} is obsolete and ignored: " in config.warnings[0]


def test_an_obsolete_or_unknown_key_may_hold_what_cannot_be_parsed(write: Any) -> None:
    """D-15, T-5"""
    config = load_config([write("MULTISTRAP_CONFIG=$(touch /f)\nSITE=`x`\nHELPER_CPUS=2\n")])
    assert config.helper_cpus == 2
    assert len(config.warnings) == 2
    assert len(problems(write("HELPER_CPUS=$(nproc)\n"))) == 1
    assert len(problems(write("IMG_FORMAT=$(x)\n"))) == 1


def test_kvm_is_the_old_name_of_qemu(write: Any) -> None:
    """R-CONF-11"""
    assert load_config([write("KVM=/usr/bin/kvm\n")]).qemu == "/usr/bin/kvm"
    assert load_config([write("KVM=/usr/bin/kvm\nQEMU=/opt/qemu\n")]).qemu == "/opt/qemu"


def test_curl_is_ignored(write: Any) -> None:
    """R-CONF-11: -k does not switch the verification off."""
    config = load_config([write('CURL="curl -k"\n')])
    assert config.fetch_insecure is False
    assert "FETCH_INSECURE" in config.warnings[0]
    assert "FETCH_INSECURE" not in load_config([write("CURL=curl\n")]).warnings[0]


def test_os_parameters_may_have_defaults(write: Any) -> None:
    """R-CONF-9, R-SEC-1: and print as a marker."""
    config = load_config([write("IMG_FORMAT=extdump\nIMG_PASSWD='x y'\nAUTH_KEYS=\n")])
    assert {name: text.reveal() for name, text in config.os_parameters.items()} == {
        "img_format": "extdump",
        "img_passwd": "x y",
    }
    assert "x y" not in repr(config)


def test_helper_user_is_not_set_by_default() -> None:
    """D-7: each deployment has a uid of its own."""
    assert NodeConfig.defaults().helper_user is None


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"A=\xff\n", "not valid UTF-8"), (b"A=\0\n", "holds a NUL"), (b"#" * (1 << 20) + b"\n", "longer than")],
)
def test_content_that_is_refused(content: bytes, why: str, write: Any) -> None:
    """R-CONF-5"""
    [message] = problems(write(content))
    assert why in message


def test_a_file_that_others_may_write(write: Any) -> None:
    """R-CONF-5"""
    [message] = problems(write("", mode=0o646))
    assert "writable by everybody" in message


def test_a_file_of_another_owner(write: Any) -> None:
    """R-CONF-5"""
    file = dataclasses.replace(write(""), owners=(os.geteuid() + 1,))
    [message] = problems(file)
    assert "must be owned by root" in message


@pytest.mark.requires("root")
def test_a_file_that_a_group_may_write(write: Any) -> None:
    """D-15: an error, unless the group is root's."""
    file = write("HELPER_CPUS=2\n", mode=0o664)
    os.chown(file.path, 0, 0)
    assert load_config([file]).helper_cpus == 2
    os.chown(file.path, 0, 1)
    [message] = problems(file)
    assert "writable by group 1" in message


def test_no_fifo_is_waited_for(tmp_path: Path) -> None:
    """R-CONF-5"""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    assert problems(ConfigFile(path=path, owners=ME)) == (f"{path}: not a regular file",)
    assert problems(ConfigFile(path=str(tmp_path), owners=ME))[0].startswith(f"{tmp_path}: ")


def test_time_zones_are_not_judged_here(write: Any) -> None:
    """T-26: a wrong one must not fail deployments of other families."""
    assert load_config([write("WINDOWS_TIMEZONE='Middle Earth'\n")]).windows_timezone == "Middle Earth"
