"""Fixture images: the same bytes each time, owners without being root, and nothing built twice."""

import json
import os

import pytest

from snf_image_process import ProcessError, run
from snf_image_vmtests import places

pytestmark = pytest.mark.requires("e2fsprogs", "fdisk")
BUILD = os.path.join(places.CHECKOUT, "fixtures", "images", "build")
MIB = 1024 * 1024


def _build(output: str, *arguments: str) -> str:
    return run([BUILD, "--output", output, *arguments], timeout=300).text


def _digest(output: str, name: str) -> str:
    with open(os.path.join(output, f"{name}.json"), encoding="utf-8") as file:
        return str(json.load(file)["files"][f"{name}.raw"])


@pytest.mark.parametrize("name", ["alpine-mbr-ext4", "rhel9-mbr-ext4"])
def test_two_builds_give_the_same_bytes(tmp_path: object, name: str) -> None:
    one, two = os.path.join(str(tmp_path), "one"), os.path.join(str(tmp_path), "two")
    _build(one, name)
    _build(two, name)
    assert _digest(one, name) == _digest(two, name)


def test_what_has_not_changed_is_not_built_again(tmp_path: object) -> None:
    output = str(tmp_path)
    assert "built in" in _build(output, "alpine-mbr-ext4")
    assert _build(output, "alpine-mbr-ext4") == ""
    os.unlink(os.path.join(output, "alpine-mbr-ext4.raw"))
    assert "built in" in _build(output, "alpine-mbr-ext4")
    assert "built in" in _build(output, "--force", "alpine-mbr-ext4")
    assert sorted(os.listdir(output)) == ["alpine-mbr-ext4.json", "alpine-mbr-ext4.raw"]


def test_owners_and_modes_are_those_of_the_tree(tmp_path: object) -> None:
    output = str(tmp_path)
    _build(output, "alpine-mbr-ext4")
    image = f"{os.path.join(output, 'alpine-mbr-ext4.raw')}?offset={MIB}"
    listing = run(["debugfs", "-R", "ls -p /etc", image], timeout=60).text
    (shadow,) = [line.split("/") for line in listing.splitlines() if "/shadow/" in line]
    assert shadow[2:5] == ["100640", "0", "42"]
    home = run(["debugfs", "-R", "ls -p /home", image], timeout=60).text
    (alice,) = [line.split("/") for line in home.splitlines() if "/alice/" in line]
    assert alice[2:5] == ["040700", "1000", "1000"]


def test_an_unknown_name_is_told_with_the_known(tmp_path: object) -> None:
    with pytest.raises(ProcessError, match=r"no recipe nothing; there are .*alpine-mbr-ext4"):
        _build(str(tmp_path), "nothing")


@pytest.mark.requires("root", "ntfs-3g", "fuse", "hivex")
def test_a_windows_has_real_hives_on_a_real_ntfs(tmp_path: object) -> None:
    """Read without root by ntfs-3g's and hivex's own programs."""
    output = str(tmp_path)
    _build(output, "windows2003-mbr-ntfs")
    partition, hive = os.path.join(output, "partition"), os.path.join(output, "hive")
    with open(os.path.join(output, "windows2003-mbr-ntfs.raw"), "rb") as image, open(partition, "wb") as file:
        image.seek(MIB)
        file.write(image.read())
    assert "boot.ini" in run(["ntfsls", partition], timeout=60).text.splitlines()
    with open(hive, "wb") as file:
        file.write(run(["ntfscat", partition, "WINDOWS/system32/config/software"], timeout=60).stdout)
    key = "Microsoft\\Windows NT\\CurrentVersion"
    assert run(["hivexget", hive, key, "CurrentVersion"], timeout=60).text.strip() == "5.2"
    assert "[\\Microsoft]" in run(["hivexregedit", "--export", hive, "\\"], timeout=60).text
