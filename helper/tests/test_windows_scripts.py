"""Scripts and INI files that Windows runs or reads: how words survive, what is edited, what is removed."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_image_contract.secret import Secret
from snf_image_helper import windows as package
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.partition_table import Partition, Table
from snf_image_helper.windows import legacy, password, resize_mounted, setup_complete, time_zones
from snf_image_helper.windows.hostname import computer_name
from snf_image_helper.windows.personality import guest_path
from snf_image_helper.windows.sysprep_inf import IniFile
from snf_image_vmtests.windows_scripts import batch_accounts, powershell_accounts
from trees import GuestOf, content, exists

CORPUS = (
    "%", "%%", "%PATH%", "!", "^", "&", "|", "<", ">", "(", ")", '"', "'", ";", ",", "=", "a b", " lead ",
    " trail ", "back\\", 'mix\\"', "\\\\", 'a"b"c', "fifteen-or-more-characters", "!delayed!", "^^",
    "%~f0", "a\tb",
)  # fmt: skip
SETUP = "/Windows/Setup/Scripts/SetupComplete.cmd"
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=127)


# -- PowerShell --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*CORPUS, "schön", "пароль", "密码🔑", "x" * 256])
def test_passwords_reach_powershell_unchanged(text: str) -> None:
    """R-TASK-WPW-2, R-TASK-WPW-4, T-101, T-102"""
    script = password.script(["Administrator", "Jürgen Groß"], Secret(text))
    assert powershell_accounts(script) == [("Administrator", text), ("Jürgen Groß", text)]
    assert script.isascii()
    assert script.count(b"\r\n") == script.count(b"\n")
    # Nothing that a password or name could be stands anywhere else.
    assert re.sub(rb"'[A-Za-z0-9+/=]*'; Password = '[A-Za-z0-9+/=]*'", b"", script) == re.sub(
        rb"'[A-Za-z0-9+/=]*'; Password = '[A-Za-z0-9+/=]*'", b"", password.script(["a", "b"], Secret("c"))
    )


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=100))
def test_any_password_reaches_powershell_unchanged(text: str) -> None:
    """R-TASK-WPW-2, T-101"""
    assert powershell_accounts(password.script(["a"], Secret(text))) == [("a", text)]


def test_the_script_wipes_itself() -> None:
    """R-TASK-WPW-2: both files, overwritten before they are removed; the account is enabled for ever."""
    script = password.script(["a"], Secret("b")).decode()
    assert "$account.SetPassword($password)" in script
    assert "/active:yes /expires:never" in script
    assert script.index(".Write($zeros, 0, $zeros.Length)") < script.index("Remove-Item")
    assert "Remove-Wiped $script" in script
    assert "ChangeExtension($script, '.cmd')" in script


def test_a_password_that_windows_has_no_room_for() -> None:
    """R-OSP-7: an error, never a part of it."""
    password.check_password(Secret("x" * 256))
    for wrong in ("", "x" * 257, "🔑" * 129):
        with pytest.raises(RequestError, match="256"):
            password.check_password(Secret(wrong))


# -- batch files of old Windows ------------------------------------------------------------------------


def demand_password(text: str) -> None:
    script = legacy.script(["Administrator", "a b"], Secret(text))
    assert batch_accounts(script) == [("Administrator", text), ("a b", text)]


@pytest.mark.parametrize("text", [text for text in CORPUS if text.isprintable()])
def test_passwords_survive_both_layers_of_quoting(text: str) -> None:
    """R-TASK-WPW-3, R-TASK-WPW-4, T-101, T-102"""
    demand_password(text)


@settings(max_examples=300)
@given(PRINTABLE)
def test_any_printable_password_survives(text: str) -> None:
    """R-TASK-WPW-3: whatever the keyboard has."""
    demand_password(text)


# -- the end of setup --------------------------------------------------------------------------------


def install(guest: Guest, *paths: str) -> str:
    setup_complete.install(guest, paths or ("/unattend.xml",))
    return content(guest, SETUP).decode("latin-1")


def test_the_end_of_setup_removes_everything(guest_of: GuestOf) -> None:
    """R-TASK-UNA-9, T-106: the answer file by its own name; secrets are overwritten first; CRLF."""
    guest = guest_of({"/Windows": None})
    script = install(guest, "/autounattend.xml", "/Windows/Panther/unattend.xml")
    for name in ("SnfScripts\\ExtendFilesystem", "SnfScripts\\ChangeAdminPassword.cmd",
                 "SnfScripts\\ChangeAdminPassword.ps1", "Panther\\unattend.xml"):  # fmt: skip
        assert f'@del /f /q "C:\\Windows\\{name}"' in script
    assert '@del /f /q "C:\\autounattend.xml"' in script
    assert '@rd /s /q "C:\\Windows\\SnfScripts"' in script
    wiped = script.index('setzerodata offset=0 length=%%~zF "%%~F"', script.index("ChangeAdminPassword.ps1"))
    assert wiped < script.index('@del /f /q "C:\\Windows\\SnfScripts\\ChangeAdminPassword.ps1"')
    assert script.count("\r\n") == script.count("\n")
    assert all(line.startswith("@") for line in script.split("\r\n") if line)


@pytest.mark.parametrize(
    ("theirs", "first"),
    [
        (b"echo done\r\n", False),
        (b"echo done", False),
        (b"rem existing, exited never\r\ncall other.cmd\r\n", False),
        (b"echo done\r\nexit /b 0", True),
        (b"IF ERRORLEVEL 1 EXIT\r\necho x\r\n", True),
        (b"goto :eof\n", True),
        (b"C:\\tools\\other.cmd\r\n", True),
        (b"\xff\xfe\0(exit)\r\n", True),
    ],
)
def test_a_script_of_the_image_is_kept(guest_of: GuestOf, theirs: bytes, first: bool) -> None:
    """R-TASK-UNA-9: ours come first where theirs might leave before its end."""
    guest = guest_of({SETUP: theirs})
    install(guest)
    data = content(guest, SETUP)
    ours = data.index(b"@rem snf-image: begin")
    assert (ours == 0) is first
    rest = (
        data[data.index(b"@rem snf-image: end\r\n") + len(b"@rem snf-image: end\r\n") :]
        if first
        else data[:ours]
    )
    assert rest.rstrip(b"\r\n") == theirs.rstrip(b"\r\n")


def test_a_second_deployment_gives_the_same_script(guest_of: GuestOf) -> None:
    """R-TASK-UNA-9, R-TASK-RDP-1: and what is to be restored is what the image had."""
    guest = guest_of({SETUP: b"echo of the image\r\nexit\r\n"})
    install(guest)
    setup_complete.install_placeholders(guest)
    setup_complete.set_restoring_lines(guest, "@reg add first", anew=False)
    once = content(guest, SETUP)
    install(guest)
    setup_complete.set_restoring_lines(guest, "@reg add second", anew=False)
    assert content(guest, SETUP) == once
    assert once.count(b"@reg add first\r\n") == 1
    assert b"second" not in once
    assert b"echo of the image\r\nexit\r\n" in once


def test_placeholders(guest_of: GuestOf) -> None:
    """R-TASK-UNA-9: files that answer files name, harmless as they are; an old secret goes."""
    guest = guest_of({"/Windows/SnfScripts/ChangeAdminPassword.ps1": "old secret"})
    setup_complete.install_placeholders(guest)
    assert content(guest, "/Windows/SnfScripts/ExtendFilesystem") == b"exit\r\n"
    assert content(guest, "/Windows/SnfScripts/ChangeAdminPassword.cmd") == b"@exit /b 0\r\n"
    assert not exists(guest, "/Windows/SnfScripts/ChangeAdminPassword.ps1")


# -- sysprep.inf ---------------------------------------------------------------------------------------

SLOPPY = (
    b"; a comment with [UserData]\r\n\r\n[unattended]\r\nOemSkipEula = Yes\r\n\r\n[ USERDATA ] ; x\r\n"
    b'computername = "OLD NAME" \r\n;ProductKey=no\r\n\r\n[Other]\r\nProductKey=theirs\r\nComputerName=x'
)


def test_ini_keys_are_set_in_their_section() -> None:
    """R-TASK-UNA-11, T-108, T-129: case-insensitively, once, and never in a later section."""
    ini = IniFile(SLOPPY, "/sysprep/sysprep.inf")
    assert ini.value("UserData", "ComputerName") == b"OLD NAME"
    assert ini.value("UserData", "ProductKey") is None
    ini.set_value("UserData", "ComputerName", "web1")
    ini.set_value("UserData", "ProductKey", "AAAAA-BBBBB")
    ini.set_value("Unattended", "InstallFilesPath", "C:\\sysprep\\i386")
    once = ini.data()
    assert once == (
        b"; a comment with [UserData]\r\n\r\n[unattended]\r\nOemSkipEula = Yes\r\n"
        b"InstallFilesPath=C:\\sysprep\\i386\r\n\r\n[ USERDATA ] ; x\r\nComputerName=web1\r\n"
        b";ProductKey=no\r\n"
        b"ProductKey=AAAAA-BBBBB\r\n\r\n[Other]\r\nProductKey=theirs\r\nComputerName=x"
    )
    for section, key, value in (
        ("USERDATA", "productkey", "AAAAA-BBBBB"),
        ("UserData", "ComputerName", "web1"),
    ):
        ini.set_value(section, key, value)
    assert ini.data().lower() == once.lower()


def test_a_section_that_is_missing_is_made() -> None:
    """R-TASK-UNA-11: at the end, after a line that may lack its end."""
    ini = IniFile(b"[A]\r\nx=1", "f")
    ini.set_value("GuiUnattended", "AdminPassword", "a b")
    assert ini.data() == b'[A]\r\nx=1\r\n[GuiUnattended]\r\nAdminPassword="a b"\r\n'
    empty = IniFile(b"", "f")
    empty.ensure_line("Commands", b'"C:\\a.cmd"')
    empty.ensure_line("commands", b'"c:\\A.CMD"')
    assert empty.data() == b'[Commands]\r\n"C:\\a.cmd"\r\n'


def test_what_an_ini_file_cannot_hold() -> None:
    """R-TASK-WPW-3: refused, not altered."""
    ini = IniFile(b"[A]\r\n", "f")
    for wrong in ('a"b', "a\nb", "a\x7f", "schön"):
        with pytest.raises(RequestError):
            ini.set_value("A", "k", wrong)
    with pytest.raises(ImageError, match="UTF-16"):
        IniFile("[A]\r\n".encode("utf-16"), "f")


@given(st.binary(max_size=400), PRINTABLE.filter(lambda text: '"' not in text))
def test_any_ini_file_can_be_edited(data: bytes, value: str) -> None:
    """R-TASK-UNA-11: what was set is what is read, whatever stood there."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    ini = IniFile(data, "f")
    ini.set_value("UserData", "ComputerName", value)
    assert IniFile(ini.data(), "f").value("UserData", "ComputerName") == value.encode()


def test_the_shipped_sysprep_inf() -> None:
    """T-130: what mini-setup must know is in it, in lines that end as Windows wants."""
    data = resources.files(package).joinpath("sysprep.inf").read_bytes()
    ini = IniFile(data, "sysprep.inf")
    assert ini.value("Unattended", "InstallFilesPath") == b"C:\\sysprep\\i386"
    assert ini.value("UserData", "ComputerName") == b"*"
    assert data.count(b"\r\n") == data.count(b"\n")


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "name", "number"),
    [
        ("GMT Standard Time", "GMT Standard Time", "085"),
        ("u.s. mountain standard time", "US Mountain Standard Time", "015"),
        ("US Eastern Standard Time", "US Eastern Standard Time", "040"),
        ("Mexico Standard Time 2", "Mexico Standard Time 2", "013"),
        ("W. EUROPE Standard Time", "W. Europe Standard Time", "110"),
        ("fiji islands standard time", "Fiji Standard Time", "285"),
        ("Tonga Standard Time", "Tonga Standard Time", "300"),
    ],
)
def test_time_zones(asked: str, name: str, number: str) -> None:
    """R-TASK-UNA-12, T-111: the registry's spelling, and the index of sysprep.inf."""
    assert (time_zones.registry_name(asked), time_zones.index(asked)) == (name, number)


def test_time_zones_that_nobody_knows() -> None:
    """R-TASK-UNA-12, T-26: a later Windows may know a name; none knows markup."""
    assert time_zones.registry_name("Lord Howe Standard Time") == "Lord Howe Standard Time"
    for wrong in ("<x>", "ab", "x" * 65, "Zeitzone\nx", ""):
        with pytest.raises(RequestError):
            time_zones.registry_name(wrong)
    with pytest.raises(RequestError, match="no index"):
        time_zones.index("Lord Howe Standard Time")


@pytest.mark.parametrize(
    ("instance", "name"),
    [
        ("web1.example.org", "web1"),
        ("exactly15chars1.example.org", "exactly15chars1"),
        ("a", "a"),
        ("with-dash_and1", "with-dash_and1"),
    ],
)
def test_computer_names(instance: str, name: str) -> None:
    """R-TASK-HOST-7, T-97, T-98, T-132"""
    assert computer_name(instance) == name


@pytest.mark.parametrize("instance", ["sixteen-chars-16.example.org", "12345", ".x", "a b", "schön", ""])
def test_names_that_no_computer_can_have(instance: str) -> None:
    """R-TASK-HOST-7"""
    with pytest.raises(RequestError, match="cannot name a Windows computer"):
        computer_name(instance)


@pytest.mark.parametrize(
    ("given", "path"),
    [("/Temp/x", "/Temp/x"), ("C:\\Temp\\x", "/Temp/x"), ("c:/Temp/x", "/Temp/x"), ("\\a b\\ü", "/a b/ü")],
)
def test_paths_of_injected_files(given: str, path: str) -> None:
    """R-PERS-2: also those that the host let through, because it did not know the family."""
    assert guest_path(given) == path


@pytest.mark.parametrize(
    "wrong", ["/a?b", "/NUL", "/x/com1.txt", "/end.", "/end ", "/a:stream", "C:", "/..", "/x\ty"]
)
def test_paths_that_windows_cannot_have(wrong: str) -> None:
    """R-PERS-2"""
    with pytest.raises(RequestError, match="personality"):
        guest_path(wrong)


def test_diskpart_counts_by_place() -> None:
    """R-TASK-FSM-1, T-73: number 1 of the table is the second on this disk; a container does not count."""
    partitions = (
        Partition(number=1, start=4000, end=4999, type="0x07"),
        Partition(number=2, start=2048, end=3999, type="0x07"),
        Partition(number=3, start=5000, end=9999, type="0x0f", kind="extended"),
        Partition(number=5, start=6000, end=9999, type="0x07", kind="logical"),
    )
    table = Table(label="mbr", disk_sectors=20000, partitions=partitions)
    assert resize_mounted.script(table, 2, system=True) == b"select volume C\r\nextend filesystem\r\nexit\r\n"
    for number, place in ((1, 2), (2, 1), (5, 3)):
        wanted = f"select disk 0\r\nselect partition {place}\r\nextend filesystem\r\nexit\r\n"
        assert resize_mounted.script(table, number, system=False) == wanted.encode()
