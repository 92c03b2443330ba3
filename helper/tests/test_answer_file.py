"""Answer files as XML: what is changed, what stays, and what is refused."""

from __future__ import annotations

from importlib import resources

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import windows_trees as windows
from snf_image_helper import windows as package
from snf_image_helper.errors import ImageError
from snf_image_helper.windows.answer_file import DEPLOYMENT, MAX_DEPTH, SHELL_SETUP, SPECIALIZE, AnswerFile

SHIPPED = resources.files(package).joinpath("unattend.xml").read_bytes()
TOP = b'<unattend xmlns="urn:schemas-microsoft-com:unattend">'
EMPTY = TOP + b"</unattend>"
PREFIXED = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!-- Gr\xfc\xdfe --><?keep me?>
<u:unattend xmlns:u="urn:schemas-microsoft-com:unattend" xmlns:q="urn:other">
 <q:own q:name="of the image">text</q:own>
 <u:settings pass="specialize">
  <u:component name="Microsoft-Windows-Deployment" processorArchitecture="AMD64"
    publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS" xmlns:w="http://schemas.microsoft.com/WMIConfig/2002/State">
   <u:RunSynchronous><u:RunSynchronousCommand w:action="add"><u:Order>41</u:Order>
    <u:Path>cmd /c c:\\windows\\SNFSCRIPTS\\changeadminpassword.cmd</u:Path></u:RunSynchronousCommand>
   </u:RunSynchronous></u:component>
 </u:settings></u:unattend>"""


def read(data: bytes, architecture: str = "amd64") -> AnswerFile:
    return AnswerFile(data, path="/unattend.xml", architecture=architecture)


def test_the_shipped_answer_file_is_valid_for_three_architectures() -> None:
    """R-TASK-UNA-6: every component, for each architecture."""
    windows.demand_valid_answer_file(SHIPPED)
    for architecture in ("amd64", "x86", "arm64"):
        assert windows.setting(SHIPPED, "ComputerName", architecture) == "*"
        assert windows.setting(SHIPPED, "TimeZone", architecture) == "GMT Standard Time"
        paths = " ".join(path for _, path in windows.commands(SHIPPED, architecture))
        assert "UnattendCreatedUser /t REG_DWORD /d 1" in paths
        assert "AUOptions /t REG_DWORD /d 4" in paths
        locale = windows.component(
            SHIPPED, "oobeSystem", "Microsoft-Windows-International-Core", architecture
        )
        assert [setting.text for setting in locale] == ["en-US"] * 5
        shell = windows.component(SHIPPED, "oobeSystem", SHELL_SETUP, architecture)
        assert shell.findtext(f".//{windows.NAMESPACE}HideEULAPage") == "true"
        assert shell.find(f".//{windows.NAMESPACE}ProtectYourPC") is not None
        assert shell.find(f".//{windows.NAMESPACE}NetworkLocation") is not None


@pytest.mark.parametrize("architecture", ["amd64", "x86", "arm64"])
def test_what_is_missing_is_made(architecture: str) -> None:
    """R-TASK-UNA-7, T-128: pass and component of the detected architecture, with their attributes."""
    file = read(EMPTY, architecture)
    file.set_text(SPECIALIZE, SHELL_SETUP, "ComputerName", "web1")
    assert file.ensure_command(r"C:\Windows\SnfScripts\X.cmd", "X.cmd", "x")
    data = file.data()
    windows.demand_valid_answer_file(data)
    assert windows.setting(data, "ComputerName", architecture) == "web1"
    assert windows.commands(data, architecture) == [(1, r"C:\Windows\SnfScripts\X.cmd")]
    assert data.startswith(b'<?xml version="1.0" encoding="utf-8"?>')


def test_other_architectures_stay_as_they_are() -> None:
    """R-TASK-UNA-8: of the detected architecture."""
    file = read(SHIPPED, "x86")
    file.set_text(SPECIALIZE, SHELL_SETUP, "ComputerName", "web1")
    file.ensure_command("a.cmd", "a.cmd", "a")
    data = file.data()
    assert [windows.setting(data, "ComputerName", name) for name in ("amd64", "x86", "arm64")] == [
        "*",
        "web1",
        "*",
    ]
    assert windows.commands(data, "x86")[-1] == (3, "a.cmd")
    assert len(windows.commands(data, "amd64")) == 2


def test_a_command_is_there_once_and_comes_last() -> None:
    """R-TASK-UNA-8: whatever letter case names the file; Order is one above the highest."""
    file = read(PREFIXED)
    assert not file.ensure_command(
        r"C:\Windows\SnfScripts\ChangeAdminPassword.cmd", "ChangeAdminPassword.cmd", ""
    )
    assert file.ensure_command("diskpart.exe /s x", "ExtendFilesystem", "")
    assert not file.has_command("ExtendFilesystem")
    text = file.data().decode()
    assert (
        '<u:RunSynchronousCommand w:action="add"><u:Order>42</u:Order><u:Path>diskpart.exe /s x</u:Path>'
        in text
    )
    with pytest.raises(ValueError, match="255"):
        file.ensure_command("x" * 256, "nothing", "")


def test_what_is_not_edited_is_kept() -> None:
    """R-TASK-UNA-7: prefixes, comments, instructions, and elements of others; UTF-8 whatever it was."""
    data = read(PREFIXED).data()
    for kept in ("<!-- Grüße -->", "<?keep me?>", '<q:own q:name="of the image">text</q:own>'):
        assert kept.encode() in data
    assert read(data).data() == data


def test_a_setting_stands_once() -> None:
    """R-TASK-HOST-7: a second value would decide instead."""
    file = read(EMPTY)
    file.set_text(SPECIALIZE, SHELL_SETUP, "ComputerName", "one")
    doubled = file.data().replace(
        b"</ComputerName>", b"</ComputerName><ComputerName>two<!-- x --></ComputerName>"
    )
    file = read(doubled)
    file.set_text(SPECIALIZE, SHELL_SETUP, "ComputerName", "three")
    assert file.data().count(b"<ComputerName>") == 1
    assert windows.setting(file.data(), "ComputerName") == "three"


def test_a_pass_that_was_processed_is_processed_again() -> None:
    """R-TASK-UNA-8: else nothing in it would run."""
    file = read(TOP + b'<settings pass="specialize" wasPassProcessed="true"/></unattend>')
    assert file.revive_pass(SPECIALIZE)
    assert b"wasPassProcessed" not in file.data()
    assert not file.revive_pass(SPECIALIZE)


def test_local_accounts() -> None:
    """R-TASK-WPW-1: of this architecture, and of pass oobeSystem."""
    account = b"<LocalAccounts><LocalAccount><Name> alice </Name></LocalAccount></LocalAccounts>"
    data = TOP + (
        b'<settings pass="oobeSystem"><component name="Microsoft-Windows-Shell-Setup"'
        b' processorArchitecture="amd64"><UserAccounts>' + account + b"</UserAccounts></component></settings>"
        b"</unattend>"
    )
    assert read(data).local_accounts() == ["alice"]
    assert read(data, "x86").local_accounts() == []


BILLION = (
    b"<!DOCTYPE unattend ["
    + b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else b"lol") for n in range(12))
    + b"]>"
    + TOP
    + b"&l11;</unattend>"
)
EXTERNAL = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + TOP + b"&e;</unattend>"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BILLION, "declares a document type"),
        (EXTERNAL, "declares a document type"),
        (b"<!DOCTYPE unattend>" + EMPTY, "declares a document type"),
        ("<!DOCTYPE unattend>".encode("utf-16") + EMPTY.decode().encode("utf-16-le"), "declares a document"),
        (b"", "not well-formed"),
        (b"not XML", "not well-formed"),
        (TOP, "not well-formed"),
        (TOP + b"&undefined;</unattend>", "not well-formed"),
        (TOP + b"\xff</unattend>", "not well-formed"),
        (b'<?xml version="1.0" encoding="no-such"?>' + EMPTY, "not readable|not well-formed"),
        (b"<unattend/>", "not an answer file"),
        (b'<other xmlns="urn:schemas-microsoft-com:unattend"/>', "not an answer file"),
        (TOP + b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH + b"</unattend>", "deeply nested"),
        (TOP + b"<a/>" * 60_000 + b"</unattend>", "more elements"),
        (EMPTY + b" " * 5_000_000, "larger than"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    """R-TASK-UNA-7, T-109: entities are never expanded, nothing is read from anywhere else."""
    with pytest.raises(ImageError, match=rf"^/unattend\.xml: .*({reason})"):
        read(data)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(SHIPPED) - 1), st.binary(min_size=1, max_size=4))
@example(at=849, noise=b"-")  # a prefix that was not declared
def test_any_damage_is_refused_or_read(at: int, noise: bytes) -> None:
    """R-TASK-UNA-7: no other exception, whatever the image holds."""
    data = SHIPPED[:at] + noise + SHIPPED[at + len(noise) :]
    try:
        file = read(data)
    except ImageError:
        return
    file.ensure_command("a.cmd", "a.cmd", "a")
    file.set_text(SPECIALIZE, DEPLOYMENT, "X", "y")
    file.local_accounts()
    assert read(file.data()).has_command("a.cmd")
