"""The tasks of Windows on trees with real hives."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import windows_trees as windows
from image_recipes.hive import empty_hive, make_hive
from snf_image_contract import job as jobs
from snf_image_contract.names import OsFamily, TaskName
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError, TaskError
from snf_image_helper.guest import Guest
from snf_image_helper.windows import installation, registry
from snf_image_helper.windows.layout import (
    ACCOUNTS_COMMAND,
    ACCOUNTS_SCRIPT,
    EXTEND,
    RUN_ACCOUNTS_COMMAND,
    RUN_EXTEND,
    SETUP_COMPLETE,
)
from snf_image_process import run
from trees import File, GuestOf, Node, changes, content, exists, mode, warnings

pytestmark = pytest.mark.requires("hivex")
OWN = (
    b'<unattend xmlns="urn:schemas-microsoft-com:unattend"><settings pass="oobeSystem">'
    b'<component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64"'
    b' publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS"><UserAccounts>'
    b"<LocalAccounts><LocalAccount><Name>alice</Name></LocalAccount></LocalAccounts></UserAccounts></component></settings>"
    b"</unattend>"
)
RUNS_OURS = OWN.replace(
    b"</settings>",
    b'</settings><settings pass="specialize"><component name="Microsoft-Windows-Deployment"'
    b' processorArchitecture="amd64"><RunSynchronous><RunSynchronousCommand><Path>c:\\windows\\'
    b"snfscripts\\changeadminpassword.cmd</Path></RunSynchronousCommand></RunSynchronous></component></settings>",
    1,
)
CONTRACT = [RUN_ACCOUNTS_COMMAND, RUN_EXTEND]
PANTHER = "/Windows/Panther/unattend.xml"
KEY = "ABCDE-12345-FGHIJ-67890-KLMNO"
SETUP_TASKS = ("install_unattend", "assign_hostname", "change_password", "disable_remote_desktop_connections")


def windows_guest(guest_of: GuestOf, tree: Mapping[str, Node] | None = None, **fields: Any) -> Guest:
    return windows.make_windows(guest_of, dict(tree or windows.windows_tree()), **fields)


def legacy_guest(guest_of: GuestOf, tree: Mapping[str, Node] | None = None, **fields: Any) -> Guest:
    fields["os_family"] = OsFamily.WINDOWS_LEGACY
    return windows.make_windows(guest_of, dict(tree or windows.legacy_tree()), **fields)


def perform(guest: Guest, *tasks: str) -> None:
    for task in tasks:
        action = getattr(guest.family, task)
        assert action is not None
        action(guest)


def password(*users: str, text: str = 'new %PATH% ^&<>|"! schön') -> jobs.ChangePassword:
    return jobs.ChangePassword(users=users, password=Secret(text))


# -- the registry --------------------------------------------------------------------------------------


def test_an_empty_hive_is_one_for_everybody(tmp_path: Path) -> None:
    """The hives of the tests are hives for hivex's programs too."""
    path = tmp_path / "hive"
    path.write_bytes(empty_hive())
    assert run(["hivexsh", str(path)], timeout=30, stdin=b"ls\nlsval\n").status == 0
    assert "[\\]" in run(["hivexregedit", "--export", str(path), "\\"], timeout=30).text
    path.write_bytes(make_hive({r"A\B": {"n": 7, "t": "täxt", "b": b"x" * 5000, "l": ("a", "b")}}))
    assert run(["hivexget", str(path), "A\\B", "t"], timeout=30).text.strip() == "täxt"
    assert "dword:00000007" in run(["hivexregedit", "--export", str(path), "\\A"], timeout=30).text


def test_keys_and_values_are_found_whatever_the_case(guest_of: GuestOf) -> None:
    """R-TASK-UNA-1: as Windows finds them."""
    guest = windows_guest(guest_of)
    with registry.opened(guest.root, registry.SYSTEM) as hive:
        assert hive.number("select", "CURRENT") == 1
        assert hive.number("Select", "absent") is None
        assert hive.text("Select", "Current") is None
        assert hive.text(r"Absent\Key", "x") is None


@pytest.mark.parametrize(
    ("version", "text", "family"),
    [
        ({"CurrentVersion": "6.3", "CurrentMajorVersionNumber": 10, "CurrentBuildNumber": "20348"},
         "10.0.20348", OsFamily.WINDOWS),
        ({"CurrentVersion": "6.1", "CurrentBuildNumber": "7601"}, "6.1.7601", OsFamily.WINDOWS),
        ({"CurrentVersion": "10.0"}, "10.0", OsFamily.WINDOWS),
        ({"CurrentVersion": "5.1"}, "5.1", OsFamily.WINDOWS_LEGACY),
    ],
)  # fmt: skip
def test_versions(guest_of: GuestOf, version: Any, text: str, family: OsFamily) -> None:
    """R-TASK-UNA-1, R-TASK-UNA-2, T-110: the number before the text, which never changed after 6.3."""
    guest = windows_guest(guest_of, windows.windows_tree(SOFTWARE=windows.software_hive(version=version)))
    found = installation.version(guest.root)
    assert (found.text, found.family) == (text, family)


@pytest.mark.parametrize("name", ["AMD64", "x86", "ARM64"])
def test_architectures(guest_of: GuestOf, name: str) -> None:
    """R-TASK-UNA-1: of the control set that is current."""
    system = windows.system_hive(architecture=name, control_set=3)
    guest = windows_guest(guest_of, windows.windows_tree(SYSTEM=system))
    assert installation.architecture(guest.root) == name.lower()


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("SYSTEM", lambda: b"x" * 9000, "not a registry hive"),
        ("SYSTEM", lambda: b"regf" + bytes(9000), "damaged"),
        ("SYSTEM", lambda: b"regf", "damaged"),
        ("SYSTEM", lambda: windows.system_hive()[:5000], "damaged"),
        ("SOFTWARE", lambda: b"regf\xff" * 3000, "damaged"),
        ("SYSTEM", lambda: make_hive({"Nothing": {}}), "Select is missing"),
        ("SYSTEM", lambda: make_hive({"Select": {"Current": 4}}), "ControlSet004 is missing"),
        ("SYSTEM", lambda: windows.system_hive(architecture=None), "does not tell PROCESSOR_ARCHITECTURE"),
        ("SYSTEM", lambda: windows.system_hive(architecture="IA64"), "'IA64' is not supported"),
        ("SOFTWARE", lambda: make_hive({"Nothing": {}}), "does not tell the version"),
    ],
)
def test_hives_that_do_not_tell(guest_of: GuestOf, name: str, make: Any, words: str) -> None:
    """R-TASK-UNA-1, R-TASK-RDP-2: an error that names the file, for damaged hives too."""
    guest = windows_guest(guest_of, windows.windows_tree(**{name: make()}))
    with pytest.raises(ImageError, match=f"^{windows.CONFIG}/{name}.*{words}"):
        perform(guest, "install_unattend")
    assert changes(guest) == []


def test_a_missing_hive(guest_of: GuestOf) -> None:
    """R-TASK-UNA-1"""
    guest = windows_guest(guest_of, {"/Windows/System32/config": None})
    with pytest.raises(ImageError, match="SOFTWARE: the registry hive is missing"):
        perform(guest, "install_unattend")


# -- InstallUnattend -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("IMAGE_STATE_COMPLETE", "has not been sysprepped"),
        ("IMAGE_STATE_UNDEPLOYABLE", "cannot be deployed"),
        ("IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE", "without /generalize"),
        ("IMAGE_STATE_SPECIALIZE_RESEAL_TO_AUDIT", "without /generalize"),
        ("something", "unknown state"),
        (None, "there is no ImageState"),
    ],
)
def test_states_of_sysprep(guest_of: GuestOf, state: str | None, words: str) -> None:
    """R-TASK-UNA-3: each with its own words, and nothing is written."""
    guest = windows_guest(guest_of, windows.windows_tree(SOFTWARE=windows.software_hive(state=state)))
    with pytest.raises(ImageError, match=words):
        perform(guest, "install_unattend")
    assert changes(guest) == []


def test_an_image_that_awaits_audit_is_ready_too(guest_of: GuestOf) -> None:
    """R-TASK-UNA-3"""
    software = windows.software_hive(state="IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT")
    guest = windows_guest(guest_of, windows.windows_tree(SOFTWARE=software))
    perform(guest, "install_unattend")
    assert exists(guest, "/unattend.xml")


def test_the_wrong_family_is_named(guest_of: GuestOf) -> None:
    """R-TASK-UNA-2"""
    with pytest.raises(ImageError, match="set OSFAMILY=windows-legacy"):
        perform(windows_guest(guest_of, windows.legacy_tree()), "install_unattend")
    with pytest.raises(ImageError, match=r"set OSFAMILY=windows$"):
        perform(legacy_guest(guest_of, windows.windows_tree()), "install_unattend")


def test_the_shipped_answer_file(guest_of: GuestOf) -> None:
    """R-TASK-UNA-6, R-TASK-UNA-8, R-TASK-UNA-9, R-TASK-UNA-10, R-TASK-UNA-12"""
    asked = jobs.InstallUnattend(product_key=Secret(KEY), time_zone="w. europe standard time")
    guest = windows_guest(guest_of, install_unattend=asked)
    perform(guest, "install_unattend", "assign_hostname")
    data = content(guest, "/unattend.xml")
    windows.demand_valid_answer_file(data)
    assert windows.setting(data, "TimeZone") == "W. Europe Standard Time"
    assert windows.setting(data, "ProductKey") == KEY
    assert windows.setting(data, "ComputerName") == "web1"
    assert [path for _, path in sorted(windows.commands(data))][-2:] == CONTRACT
    assert exists(guest, EXTEND)
    assert exists(guest, ACCOUNTS_COMMAND)
    assert b'del /f /q "C:\\unattend.xml"' in content(guest, SETUP_COMPLETE)


@pytest.mark.parametrize(
    "path", ["/unattend.xml", "/autounattend.xml", "/Windows/Panther/Unattend/unattend.xml", PANTHER]
)
def test_an_answer_file_of_the_image_is_extended(guest_of: GuestOf, path: str) -> None:
    """R-TASK-UNA-5, R-TASK-UNA-7, T-106, T-128: where it stands, with a warning; no time zone is judged."""
    asked = jobs.InstallUnattend(time_zone="Middle Earth\n")
    guest = windows_guest(guest_of, windows.windows_tree() | {path: OWN}, install_unattend=asked)
    perform(guest, "install_unattend")
    assert any("the image's own answer file is kept" in warning for warning in warnings(guest))
    data = content(guest, path)
    windows.demand_valid_answer_file(data)
    assert [command for _, command in windows.commands(data)] == CONTRACT
    assert b"<Name>alice</Name>" in data
    removed = path.replace("/", "\\")
    assert f'del /f /q "C:{removed}"'.encode() in content(guest, SETUP_COMPLETE)
    assert exists(guest, "/unattend.xml") is (path == "/unattend.xml")


def test_several_answer_files_are_all_extended(guest_of: GuestOf) -> None:
    """R-TASK-UNA-5, T-128: whichever Windows takes, the password is set."""
    guest = windows_guest(guest_of, windows.windows_tree() | {"/unattend.xml": OWN, PANTHER: OWN})
    perform(guest, "install_unattend", "assign_hostname")
    for path in ("/unattend.xml", PANTHER):
        assert windows.setting(content(guest, path), "ComputerName") == "web1"
        assert len(windows.commands(content(guest, path))) == 2


@pytest.mark.parametrize("provided", [False, True])
def test_an_answer_file_of_the_image_is_replaced(guest_of: GuestOf, provided: bool) -> None:
    """R-TASK-UNA-5, R-TASK-UNA-12: by IGNORE_UNATTEND, ours or the one that is given; no other is left."""
    tree = windows.windows_tree() | {"/autounattend.xml": OWN, PANTHER: OWN}
    answer = Secret(base64.b64encode(OWN.replace(b"alice", b"given")).decode()) if provided else None
    asked = jobs.InstallUnattend(ignore_existing=True, answer_file=answer)
    guest = windows_guest(guest_of, tree, install_unattend=asked)
    perform(guest, "install_unattend")
    data = content(guest, "/unattend.xml")
    windows.demand_valid_answer_file(data)
    assert (b"given" in data) is provided
    assert b"alice" not in data
    assert not exists(guest, "/autounattend.xml")
    assert not exists(guest, PANTHER)


def test_a_default_answer_file_leaves_that_of_the_image(guest_of: GuestOf) -> None:
    """R-TASK-UNA-5: it takes the place of the shipped one only."""
    asked = jobs.InstallUnattend(answer_file=Secret(base64.b64encode(b"not read").decode()))
    guest = windows_guest(guest_of, windows.windows_tree() | {PANTHER: OWN}, install_unattend=asked)
    perform(guest, "install_unattend")
    assert b"alice" in content(guest, PANTHER)
    assert not exists(guest, "/unattend.xml")


def test_a_given_answer_file_that_is_none(guest_of: GuestOf) -> None:
    """R-TASK-UNA-7: the request's fault, not the image's."""
    for data in (b"<!DOCTYPE x><x/>", b"<x/>"):
        answer = Secret(base64.b64encode(data).decode())
        guest = windows_guest(guest_of, install_unattend=jobs.InstallUnattend(answer_file=answer))
        with pytest.raises(RequestError, match="answer file that was given"):
            perform(guest, "install_unattend")
    guest = windows_guest(guest_of, install_unattend=jobs.InstallUnattend(answer_file=Secret("!")))
    with pytest.raises(TaskError, match="base64"):
        perform(guest, "install_unattend")


def test_a_wrong_time_zone(guest_of: GuestOf) -> None:
    """R-TASK-UNA-12, T-26: an error where it would be written."""
    guest = windows_guest(guest_of, install_unattend=jobs.InstallUnattend(time_zone="<x>"))
    with pytest.raises(RequestError, match="WINDOWS_TIMEZONE"):
        perform(guest, "install_unattend")


def test_everything_twice_is_the_same(guest_of: GuestOf) -> None:
    """R-TASK-UNA-9, R-TASK-RDP-1: a second deployment onto the same disk changes nothing more."""
    guest = windows_guest(
        guest_of, windows.windows_tree() | {"/unattend.xml": OWN}, change_password=password()
    )
    perform(guest, *SETUP_TASKS)
    paths = ("/unattend.xml", SETUP_COMPLETE, ACCOUNTS_COMMAND, ACCOUNTS_SCRIPT, registry.SYSTEM)
    once = {path: content(guest, path) for path in paths}
    perform(guest, *SETUP_TASKS)
    assert {path: content(guest, path) for path in paths} == once


# -- AssignHostname, ChangePassword ----------------------------------------------------------------------


def test_no_answer_file_for_the_name(guest_of: GuestOf) -> None:
    """R-TASK-HOST-7, R-TASK-3: the error names the task that was excluded."""
    skipped = (jobs.SkippedTask(task=TaskName.INSTALL_UNATTEND, reason="excluded"),)
    for family in (windows_guest, legacy_guest):
        with pytest.raises(ImageError, match="InstallUnattend is excluded"):
            perform(family(guest_of, skipped=skipped), "assign_hostname")
        with pytest.raises(ImageError, match="the image has no"):
            perform(family(guest_of), "assign_hostname")


def test_passwords_of_several_accounts(guest_of: GuestOf) -> None:
    """R-TASK-WPW-1, R-TASK-WPW-2: of the SAM, whatever the letter case, and of the answer file."""
    tree = windows.windows_tree() | {"/unattend.xml": OWN}
    guest = windows_guest(guest_of, tree, change_password=password("ADMINISTRATOR", "alice", "Alice"))
    perform(guest, "install_unattend", "change_password")
    script = content(guest, ACCOUNTS_SCRIPT)
    encoded = [part.split(b"'")[1] for part in script.split(b"@{ Name = ")[1:]]
    assert [base64.b64decode(name).decode("utf-16-le") for name in encoded] == ["ADMINISTRATOR", "alice"]
    command = content(guest, ACCOUNTS_COMMAND)
    assert b"powershell.exe" in command
    ending = content(guest, SETUP_COMPLETE)
    assert "schön".encode() not in script + command + ending + content(guest, "/unattend.xml")
    # Accounts of the answer file exist at the end of setup only.
    assert b'if exist "C:\\Windows\\SnfScripts\\ChangeAdminPassword.ps1" call' in ending


@pytest.mark.parametrize("user", ["admin", "Admin", "Administrators", "nobody", "Jürgen"])
def test_an_account_that_does_not_exist(guest_of: GuestOf, user: str) -> None:
    """R-TASK-WPW-1, T-103: whole names; nothing is written."""
    guest = windows_guest(guest_of, change_password=password("Administrator", user))
    perform(guest, "install_unattend")
    before = changes(guest)
    with pytest.raises(RequestError, match=f"user '{user}' does not exist in {registry.SAM}"):
        perform(guest, "change_password")
    assert changes(guest) == before


@pytest.mark.parametrize("user", ["a:b", "a/b", "a\\b", 'a"b', "a*", "a\x01", " . "])
def test_names_that_no_account_can_have(guest_of: GuestOf, user: str) -> None:
    """R-TASK-PW-1"""
    guest = windows_guest(guest_of, change_password=password(user))
    perform(guest, "install_unattend")
    with pytest.raises(RequestError, match="cannot be the name"):
        perform(guest, "change_password")


def test_what_is_not_for_windows(guest_of: GuestOf) -> None:
    """R-TASK-WPW-1, R-TASK-PW-1: a hash is an error, keys are ignored; Administrator by default."""
    asked = jobs.ChangePassword(password_hash=Secret("$6$x$y"))
    with pytest.raises(RequestError, match="password only"):
        perform(windows_guest(guest_of, change_password=asked), "change_password")
    guest = windows_guest(guest_of, change_password=jobs.ChangePassword(keys=("ssh-ed25519 AAAA",)))
    perform(guest, "change_password")
    assert ["authorized keys are not for Windows" in text for text in warnings(guest)] == [True, False]
    guest = windows_guest(guest_of, change_password=password())
    perform(guest, "install_unattend", "change_password")
    assert "property USERS is not set: Administrator it is" in warnings(guest)


def test_no_sam(guest_of: GuestOf) -> None:
    """R-TASK-WPW-1"""
    tree = windows.windows_tree()
    del tree[f"{windows.CONFIG}/SAM"]
    guest = windows_guest(guest_of, tree, change_password=password())
    perform(guest, "install_unattend")
    with pytest.raises(ImageError, match="SAM: the registry hive is missing"):
        perform(guest, "change_password")


def test_a_password_that_nobody_would_set(guest_of: GuestOf) -> None:
    """T-128, R-TASK-3: an answer file that does not run our command, because InstallUnattend did not."""
    tree = windows.windows_tree() | {"/unattend.xml": OWN}
    guest = windows_guest(guest_of, tree, change_password=password())
    with pytest.raises(ImageError, match=r"no password would be set.*InstallUnattend"):
        perform(guest, "change_password")
    assert not exists(guest, ACCOUNTS_SCRIPT)


def test_a_password_is_wiped_even_if_nothing_was_installed(guest_of: GuestOf) -> None:
    """R-TASK-UNA-9: an image whose own answer file runs the command."""
    tree = windows.windows_tree() | {"/unattend.xml": RUNS_OURS}
    guest = windows_guest(guest_of, tree, change_password=password())
    perform(guest, "change_password")
    assert b'del /f /q "C:\\Windows\\SnfScripts\\ChangeAdminPassword.ps1"' in content(guest, SETUP_COMPLETE)


@pytest.mark.parametrize("tasks", [("install_unattend", "change_password"), ("change_password",)])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_secret_is_not_for_everybody_to_read(
    guest_of: GuestOf, tasks: tuple[str, ...], *, legacy: bool
) -> None:
    """R-TASK-WPW-2, R-TASK-WPW-3, R-TASK-UNA-10: files that the image has, and that everybody may read."""
    inf = "/sysprep/sysprep.inf"
    theirs: dict[str, str | bytes] = {
        ACCOUNTS_COMMAND: "exit",
        ACCOUNTS_SCRIPT: "exit",
        "/unattend.xml": RUNS_OURS,
        inf: "[UserData]",
    }
    tree = windows.legacy_tree() if legacy else windows.windows_tree()
    tree |= {path: File(text, mode=0o666) for path, text in theirs.items()}
    asked = {
        "install_unattend": jobs.InstallUnattend(product_key=Secret(KEY)),
        "change_password": password(text="new"),
    }
    guest = (legacy_guest if legacy else windows_guest)(guest_of, tree, **asked)
    perform(guest, *tasks)
    secret = [path for path in theirs if {("created", path), ("modified", path)} & set(changes(guest))]
    assert (ACCOUNTS_COMMAND if legacy else ACCOUNTS_SCRIPT) in secret
    assert {path: mode(guest, path) for path in secret} == dict.fromkeys(secret, 0o600)


# -- DisableRemoteDesktopConnections ---------------------------------------------------------------------


@pytest.mark.parametrize("deny", [0, 1, 5, None])
def test_remote_desktop(guest_of: GuestOf, tmp_path: Path, deny: int | None) -> None:
    """R-TASK-RDP-1, T-104, T-105, T-131: one value changes, and is restored as it was or removed again."""
    system = windows.system_hive(deny=deny, control_set=2)
    guest = windows_guest(guest_of, windows.windows_tree(SYSTEM=system))
    perform(guest, "disable_remote_desktop_connections")
    (tmp_path / "before").write_bytes(system)
    before, after = (
        run(["hivexregedit", "--export", path, "\\"], timeout=30).text
        for path in (str(tmp_path / "before"), f"{guest.target}{registry.SYSTEM}")
    )
    key = "[\\ControlSet002\\Control\\Terminal Server]"
    denied = '"fDenyTSConnections"=dword:00000001'
    assert denied in after.split(key)[1].split("[\\")[0].splitlines()
    old = set(before.splitlines()) - {f'"fDenyTSConnections"=dword:{deny or 0:08x}'}
    assert set(after.splitlines()) - {denied} == old - {denied}
    script = content(guest, SETUP_COMPLETE).decode()
    if deny is None:
        assert "reg delete" in script
    else:
        assert f"/v fDenyTSConnections /t REG_DWORD /d {deny} /f" in script
    head = content(guest, registry.SYSTEM)[:12]
    assert head[4:8] == head[8:12], "Windows would replay its log over the hive"


def test_remote_desktop_of_old_windows(guest_of: GuestOf) -> None:
    """R-TASK-RDP-1"""
    guest = legacy_guest(guest_of)
    perform(guest, "install_unattend", "disable_remote_desktop_connections")
    assert b"/d 0 /f" in content(guest, SETUP_COMPLETE)


@pytest.mark.parametrize("deny", [0, 1, None])
def test_an_image_of_an_instance_that_was_deployed(guest_of: GuestOf, deny: int | None) -> None:
    """T-104, R-TASK-RDP-1: what counts is the image's own registry, not the script of its last deployment."""
    first = windows_guest(guest_of, windows.windows_tree(SYSTEM=windows.system_hive(deny=0 if deny else 1)))
    perform(first, *SETUP_TASKS)
    # Setup has removed our files, somebody has chosen, and then the instance became an image.
    left = {SETUP_COMPLETE: content(first, SETUP_COMPLETE)}
    again = windows_guest(guest_of, windows.windows_tree(SYSTEM=windows.system_hive(deny=deny)) | left)
    perform(again, *SETUP_TASKS)
    script = content(again, SETUP_COMPLETE).decode()
    (restoring,) = [line for line in script.splitlines() if "fDenyTSConnections" in line]
    wanted = "@reg delete " if deny is None else f"/t REG_DWORD /d {deny} /f"
    assert wanted in restoring


def test_a_hive_with_a_pending_log(guest_of: GuestOf) -> None:
    """R-TASK-RDP-2: a warning."""
    system = bytearray(windows.system_hive())
    system[4] += 1
    system[508] ^= system[4] ^ system[8]  # the checksum is the exclusive or of the words before it
    guest = windows_guest(guest_of, windows.windows_tree(SYSTEM=bytes(system)))
    perform(guest, "disable_remote_desktop_connections")
    assert any("its log are lost" in text for text in warnings(guest))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_hive({"Select": {"Current": 1}, "ControlSet001\\x": {}}), "Terminal Server is missing"),
        (lambda: windows.system_hive(deny="text"), "not a DWORD"),
        (lambda: b"x" * 5000, "not a registry hive"),
    ],
)
def test_no_key_to_deny_in(guest_of: GuestOf, make: Any, words: str) -> None:
    """R-TASK-RDP-2: an error, and nothing is written."""
    guest = windows_guest(guest_of, windows.windows_tree(SYSTEM=make()))
    with pytest.raises(ImageError, match=words):
        perform(guest, "disable_remote_desktop_connections")
    assert changes(guest) == []


# -- EnforcePersonality ----------------------------------------------------------------------------------


def personality(*files: tuple[str, bytes]) -> jobs.EnforcePersonality:
    entries = (
        jobs.PersonalityFile(path=path, contents=Secret(base64.b64encode(data).decode()), owner="x", mode=0)
        for path, data in files
    )
    return jobs.EnforcePersonality(files=tuple(entries))


def test_injected_files(guest_of: GuestOf) -> None:
    """R-TASK-PER-1, R-TASK-PER-3: directories are made, what was there is kept, owners mean nothing."""
    files = personality(("C:\\Temp\\New Dir\\a.txt", b"a\0b"), ("/Windows/win.ini", b"new"))
    guest = windows_guest(guest_of, {"/Windows/win.ini": "old"}, enforce_personality=files)
    perform(guest, "enforce_personality")
    assert content(guest, "/Temp/New Dir/a.txt") == b"a\0b"
    assert content(guest, "/Windows/win.ini") == b"new"
    assert content(guest, "/Windows/win.ini.bak.20260101.000000") == b"old"
    nothing = windows_guest(guest_of)
    perform(nothing, "enforce_personality")
    assert warnings(nothing) == ["no personality given: no file is injected"]


def test_injected_files_that_cannot_be(guest_of: GuestOf) -> None:
    """R-TASK-PER-3: all are checked before the first is written."""
    guest = windows_guest(guest_of, enforce_personality=personality(("/good", b"x"), ("/NUL", b"x")))
    with pytest.raises(RequestError, match="personality"):
        perform(guest, "enforce_personality")
    assert changes(guest) == []
    guest = windows_guest(guest_of, {"/dir/x": ""}, enforce_personality=personality(("/dir", b"x")))
    with pytest.raises(ImageError, match="personality: /dir: is not a file"):
        perform(guest, "enforce_personality")


# -- Windows before 6.0 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ({}, "has not been sysprepped"),
        ({"SystemSetupInProgress": 0, "MiniSetupInProgress": 1}, "has not been sysprepped"),
        ({"SystemSetupInProgress": 1}, "mini-setup is not enabled"),
        ({"SystemSetupInProgress": 1, "MiniSetupInProgress": 0}, "mini-setup is not enabled"),
    ],
)
def test_states_of_mini_setup(guest_of: GuestOf, setup: dict[str, int], words: str) -> None:
    """R-TASK-UNA-4"""
    system = windows.system_hive(architecture="x86", setup={"Setup": setup})
    with pytest.raises(ImageError, match=words):
        perform(legacy_guest(guest_of, windows.legacy_tree(SYSTEM=system)), "install_unattend")


def test_the_shipped_sysprep_inf_is_used(guest_of: GuestOf) -> None:
    """R-TASK-UNA-10, R-TASK-UNA-11, R-TASK-UNA-12, R-TASK-WPW-3, T-107, T-130: everything in one go."""
    asked = jobs.InstallUnattend(product_key=Secret(KEY), time_zone="Tokyo Standard Time")
    guest = legacy_guest(guest_of, install_unattend=asked, change_password=password(text="pass % ^ word"))
    perform(guest, "install_unattend", "assign_hostname", "change_password")
    lines = content(guest, "/sysprep/sysprep.inf").decode().split("\r\n")
    for line in ("ComputerName=web1", f"ProductKey={KEY}", "TimeZone=235", 'AdminPassword="pass % ^ word"',
                 "EncryptedAdminPassword=No"):  # fmt: skip
        assert lines.count(line) == 1
    assert content(guest, "/sysprep/i386/$OEM$/CmdLines.txt").decode().split("\r\n") == [
        "[Commands]",
        '"C:\\Windows\\SnfScripts\\ChangeAdminPassword.cmd"',
        '"C:\\Windows\\Setup\\Scripts\\SetupComplete.cmd"',
        "",
    ]
    assert b"net user" in content(guest, ACCOUNTS_COMMAND)
    assert b'del /f /q "C:\\sysprep\\sysprep.inf"' in content(guest, SETUP_COMPLETE)


def test_a_sysprep_inf_of_the_image(guest_of: GuestOf) -> None:
    """R-TASK-UNA-11, R-TASK-WPW-3: kept, with its password, and everything stands there once."""
    inf = (
        b"[GuiUnattended]\r\nadminpassword=theirs\r\n"
        b"[Unattended]\r\nInstallFilesPath=c:\\sysprep\\x\\..\\files\\\r\n"
    )
    tree = windows.legacy_tree() | {"/sysprep/sysprep.inf": inf}
    tree["/sysprep/files/$OEM$/CmdLines.txt"] = '[Commands]\r\n"other.exe"\r\n'
    guest = legacy_guest(guest_of, tree, change_password=password(text='new"'))
    for _ in range(2):
        perform(guest, "install_unattend", "change_password")
    assert content(guest, "/sysprep/sysprep.inf") == inf
    lines = content(guest, "/sysprep/files/$OEM$/CmdLines.txt").split(b"\r\n")
    assert len(lines) == 5
    assert lines[:2] == [b"[Commands]", b'"other.exe"']


@pytest.mark.parametrize(
    "path",
    ["C:\\", "C:\\sysprep", "C:\\sysprep\\..\\Windows", "D:\\sysprep\\i386", "sysprep", "C:\\sysprepX\\y"],
)
def test_installation_files_elsewhere(guest_of: GuestOf, path: str) -> None:
    r"""R-TASK-UNA-11: only below C:\sysprep, after dots are resolved."""
    tree = windows.legacy_tree() | {"/sysprep/sysprep.inf": f"[Unattended]\r\nInstallFilesPath={path}\r\n"}
    with pytest.raises(ImageError, match="InstallFilesPath"):
        perform(legacy_guest(guest_of, tree), "install_unattend")


@pytest.mark.parametrize("text", ["schön", "x" * 128, "tab\there", 'a"b'])
def test_passwords_that_old_windows_cannot_be_given(guest_of: GuestOf, text: str) -> None:
    """R-TASK-WPW-3: an error, and nothing is written."""
    guest = legacy_guest(guest_of, change_password=password(text=text))
    perform(guest, "install_unattend")
    before = changes(guest)
    with pytest.raises(RequestError):
        perform(guest, "change_password")
    assert changes(guest) == before


def test_a_time_zone_without_an_index(guest_of: GuestOf) -> None:
    """R-TASK-UNA-12"""
    asked = jobs.InstallUnattend(time_zone="Lord Howe Standard Time")
    with pytest.raises(RequestError, match="no index"):
        perform(legacy_guest(guest_of, install_unattend=asked), "install_unattend")


# -- detection -------------------------------------------------------------------------------------------


def test_what_detection_and_inspection_ask_for(guest_of: GuestOf) -> None:
    """R-DET-5: the directory, and a hive that tells the version."""
    guest = windows_guest(guest_of)
    assert installation.is_windows(guest.root)
    assert not installation.is_windows(guest_of({"/Windows": None}).root)
    assert installation.users(guest.root) == ["Administrator", "Guest", "Jürgen Groß"]
    assert installation.computer_name(guest.root) == "OLD"
