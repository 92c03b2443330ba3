"""The disks of a deployment: which are taken, who else may have them, what stays as it was."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource, TargetDisk
from snf_image_host.disks import open_disks
from snf_image_host.errors import HelperError, ImageError, NodeError, UserError
from snf_image_host.sources.image import open_image
from snf_image_process import PIPE, run, start

MIB = 1024 * 1024


def target(
    path: Path, *, index: int = 0, read_only: bool = False, create_size: int | None = None
) -> TargetDisk:
    return TargetDisk(index=index, path=str(path), read_only=read_only, create_size=create_size)


def enter(*targets: TargetDisk) -> None:
    with open_disks(targets):
        pass


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"\xaa" * MIB)
    return path


def test_a_file_is_opened_as_it_is(disk: Path) -> None:
    """R-DST-LOCAL-1, T-29: neither truncated nor extended."""
    with open_disks([target(disk)]) as (opened,):
        assert (opened.size, opened.is_block, opened.created, opened.reads_zero) == (MIB, False, False, False)
        assert opened.path == str(disk)
        assert os.get_inheritable(opened.fd) is False
    assert disk.read_bytes() == b"\xaa" * MIB


def test_a_missing_file_is_made_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with open_disks([target(path, create_size=4 * MIB)]) as (opened,):
        assert (opened.size, opened.created, opened.reads_zero) == (4 * MIB, True, True)
    assert path.stat().st_size == 4 * MIB
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks == 0


def test_a_smaller_file_is_enlarged_and_a_larger_one_refused(disk: Path) -> None:
    with open_disks([target(disk, create_size=2 * MIB)]) as (opened,):
        assert (opened.size, opened.reads_zero) == (2 * MIB, False)
    with pytest.raises(UserError, match=f"{2 * MIB} bytes already, more than the {MIB}"):
        enter(target(disk, create_size=MIB))
    assert disk.read_bytes() == b"\xaa" * MIB + bytes(MIB)


def test_a_file_without_data_reads_as_zeros(tmp_path: Path) -> None:
    """R-DST-LOCAL-4: only where that is known may zeros be left out."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(MIB)
    with open_disks([target(path)]) as (opened,):
        assert opened.reads_zero
    with path.open("r+b") as file:
        file.seek(MIB - 1)
        file.write(b"\xaa")
    with open_disks([target(path)]) as (opened,):
        assert not opened.reads_zero


def test_a_file_that_was_made_here_goes_with_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with pytest.raises(ImageError) as error, open_disks([target(path, create_size=MIB)]):
        raise ImageError("bad")
    assert not path.exists()
    assert any(str(path) in line and "removed" in line for line in error.value.details)


def test_a_file_that_was_made_here_goes_with_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), open_disks([target(path, create_size=MIB)]):
        raise KeyboardInterrupt
    assert not path.exists()


def test_a_file_that_came_in_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "new"

    def replace_and_fail() -> None:
        path.unlink()
        path.write_text("somebody else's")
        raise HelperError("failed")

    with pytest.raises(HelperError), open_disks([target(path, create_size=MIB)]):
        replace_and_fail()
    assert path.read_text() == "somebody else's"


def test_a_file_that_was_there_stays_after_a_failure(disk: Path) -> None:
    with pytest.raises(HelperError), open_disks([target(disk, create_size=2 * MIB)]):
        raise HelperError("failed")
    assert disk.exists()


def test_two_deployments_to_one_disk_do_not_both_proceed(disk: Path) -> None:
    """R-DST-LOCAL-3, T-31: the second is refused as long as the first lasts, and not longer."""
    with open_disks([target(disk)]):
        with pytest.raises(UserError, match="in use by another deployment"):
            enter(target(disk))
        with pytest.raises(UserError, match="in use by another deployment"):
            enter(target(disk, read_only=True))
    with open_disks([target(disk)]):
        pass


def test_another_process_holds_the_lock_until_it_dies(disk: Path) -> None:
    """R-DST-LOCAL-3, T-31: also between processes; a lock of the dead does not remain."""
    program = (
        "import sys, time\n"
        "from snf_image_host.deployment import TargetDisk\n"
        "from snf_image_host.disks import open_disks\n"
        "with open_disks([TargetDisk(index=0, path=sys.argv[1])]):\n"
        "    print('open', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with start([sys.executable, "-c", program, str(disk)], stdout=PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UserError, match="in use by another deployment"):
            enter(target(disk))
        other.signal(signal.SIGKILL)
        other.wait(10)
    with open_disks([target(disk)]):
        pass


def test_inspections_share_a_disk(disk: Path) -> None:
    """D-28: read-only, so that several may look at once, but none while it is written."""
    with open_disks([target(disk, read_only=True)]) as (first,), open_disks([target(disk, read_only=True)]):
        assert first.read_only
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(first.fd, b"x", 0)
        with pytest.raises(UserError, match="in use by another deployment"):
            enter(target(disk))


def test_one_disk_is_not_two(disk: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(disk)
    with pytest.raises(UserError, match="given twice: as disk 0 and 1"):
        enter(target(disk), target(link, index=1))
    new = tmp_path / "new"
    with pytest.raises(UserError, match="given twice: as disk 0 and 1"):
        enter(target(new, create_size=MIB), target(new, index=1))
    assert not new.exists()


def test_an_image_is_not_copied_onto_itself(disk: Path) -> None:
    source = ImageSource(path=str(disk), shown="disk", format=ImageFormat.DISKDUMP)
    with (
        open_disks([target(disk)]),
        pytest.raises(UserError, match="is the disk of a deployment"),
        open_image(source),
    ):
        pass


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "there is no such disk"),
        (lambda path: path.mkdir(), "neither a block device nor a regular file"),
        (os.mkfifo, "neither a block device nor a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "neither a block device nor a regular file"),
        (lambda path: path.touch(), "has no bytes"),
        (lambda path: path.symlink_to(path), "cannot be opened: Too many levels"),
    ],
    ids=["missing", "directory", "fifo", "character device", "empty", "loop of links"],
)
def test_what_is_no_disk_is_named(tmp_path: Path, make: Callable[[Path], None], text: str) -> None:
    path = tmp_path / "disk"
    make(path)
    with pytest.raises(UserError, match=text) as error:
        enter(target(path))
    assert str(path) in str(error.value)


def test_a_disk_in_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be made: No such file or directory"):
        enter(target(tmp_path / "missing" / "disk", create_size=MIB))


def test_a_size_that_the_file_system_cannot_give_is_the_nodes_fault(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="cannot be made"):
        enter(target(tmp_path / "disk", create_size=1 << 62))
    assert not (tmp_path / "disk").exists()


def test_the_disk_of_a_running_vm_is_refused(disk: Path) -> None:
    """R-DST-LOCAL-3: bytes that qemu locks in a file it has open."""
    with disk.open("rb") as file:
        held = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 203, 1, 0)
        fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, held)
        with pytest.raises(UserError, match="virtual machine that is running"):
            enter(target(disk))
        with open_disks([target(disk, read_only=True)]):
            pass
    with open_disks([target(disk)]):
        pass


@pytest.mark.requires("qemu")
def test_the_disk_of_a_real_qemu_is_refused(disk: Path) -> None:
    """R-DST-LOCAL-3: qemu's locks are where we look for them."""
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None
    drive = f"driver=raw,node-name=d,file.driver=file,file.filename={disk}"
    quiet = ["-accel", "tcg", "-nodefaults", "-display", "none", "-monitor", "none", "-S"]
    with start([qemu, *quiet, "-blockdev", drive, "-device", "virtio-blk-pci,drive=d"]):
        deadline = time.monotonic() + 20
        while (refusal := why_refused(disk)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert refusal is not None
        assert "virtual machine that is running" in refusal


def why_refused(disk: Path) -> str | None:
    try:
        enter(target(disk))
    except UserError as error:
        return str(error)
    return None


@pytest.fixture
def loop_device(disk: Path) -> Iterator[Path]:
    """A block device with one MiB of data."""
    name = run(["losetup", "--find", "--show", str(disk)], timeout=30).text.strip()
    try:
        yield Path(name)
    finally:
        run(["losetup", "--detach", name], timeout=30)


@pytest.mark.requires("root", "loop")
def test_a_block_device_is_taken_for_this_run_alone(loop_device: Path) -> None:
    """R-DST-LOCAL-1, R-DST-LOCAL-3: opened exclusively, so that the kernel does not mount it meanwhile."""
    with open_disks([target(loop_device)]) as (opened,):
        assert (opened.size, opened.is_block, opened.reads_zero) == (MIB, True, False)
        with pytest.raises(OSError, match="busy"):
            os.open(loop_device, os.O_RDONLY | os.O_EXCL)
        with pytest.raises((UserError, NodeError), match="in use"):
            enter(target(loop_device))
    with pytest.raises(UserError, match=f"has {MIB} bytes, {2 * MIB} were asked for"):
        enter(target(loop_device, create_size=2 * MIB))


@pytest.mark.requires("root", "loop")
def test_a_block_device_that_is_in_use_is_refused(loop_device: Path) -> None:
    fd = os.open(loop_device, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(NodeError, match="in use: mounted"):
            enter(target(loop_device))
    finally:
        os.close(fd)
