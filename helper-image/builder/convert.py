"""From a root file system to what boots: no loop devices, no mounts, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from typing import Final

from builder.base import EPOCH
from snf_image_process import run

_TIMEOUT = 600.0
MIB = 1024 * 1024
_SYSLINUX_MBR = "/usr/lib/syslinux/mbr/mbr.bin"
CMDLINE: Final = (
    "console=ttyS0,115200 quiet panic=-1 random.trust_cpu=on "
    # One processor, one job, one life: nothing to watch, to test or to protect from each other.
    "no_timer_check tsc=reliable nowatchdog noreplace-smp rcupdate.rcu_expedited=1 cryptomgr.notests "
    "mitigations=off init_on_alloc=0 audit=0 lsm= i8042.noaux i8042.nokbd "
    # Other addresses at each start cost 0.3 s; deployments from one saved state share theirs anyway.
    "nokaslr "
    # virtio has message-signalled interrupts; routing the lines of each device by ACPI takes 0.2 s.
    "acpi=noirq"
)
CMDLINE_TCG: Final = "acpi=off"
"""What an emulated processor is to leave out besides: reading ACPI's tables takes it 0.6 s.

The helper looks for added disks and switches the power off without them.
"""


def tree_digest(root: str) -> str:
    """A digest over names, types, modes and contents of a tree: the build id."""
    digest = hashlib.sha256()
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            digest.update(f"{os.path.relpath(path, root)}\0{status.st_mode:o}\0".encode())
            if stat.S_ISLNK(status.st_mode):
                digest.update(os.fsencode(os.readlink(path)))
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_UNCOMPRESSED: Final = (
    r"usr/bin/python3.*",
    r"usr/lib/python3\.11/.*",
    r"usr/lib/snf-image/.*",
    rf"{_LIBRARIES}/ld-.*",
    rf"{_LIBRARIES}/lib(c|m|z|expat|crypt|ffi|com_err|e2p|ext2fs|blkid|uuid)[-.].*",
    r"usr/sbin/(e2fsck|resize2fs|tune2fs)",
)
"""What every job reads, as patterns of mkfs.erofs (regex(7), paths without the first slash).

Unpacking it costs a second of an emulated start, and leaving it as it is 17 MB of the image.
"""


def root_image(root: str, output: str, build: str) -> None:
    """The tree as a read-only erofs image; its UUID is the beginning of the build id."""
    with tempfile.NamedTemporaryFile("w", prefix="hints-") as hints:
        hints.writelines(f"0 {pattern}\n" for pattern in _UNCOMPRESSED)
        hints.flush()
        run(
            [
                "mkfs.erofs", "-zlz4hc,12", "-C65536", f"-T{EPOCH}", f"-U{root_uuid(build)}", "--all-root",
                f"--compress-hints={hints.name}", "--exclude-path=boot", output, root,
            ],
            timeout=_TIMEOUT,
        )  # fmt: skip


def root_uuid(build: str) -> uuid.UUID:
    return uuid.UUID(hex=build[:32])


def kernel_and_initrd(root: str, output: str) -> None:
    shutil.copyfile(os.path.join(root, "boot/vmlinuz"), os.path.join(output, "kernel"))
    shutil.copyfile(os.path.join(root, "boot/initrd.img"), os.path.join(output, "initrd"))


def self_booting_disk(output: str, build: str, workspace: str) -> None:
    """``disk.img``: syslinux, kernel and initrd on a FAT partition, the root image on a second one."""
    kernel, initrd, root = (os.path.join(output, name) for name in ("kernel", "initrd", "root.img"))
    fat_mib = (os.path.getsize(kernel) + os.path.getsize(initrd)) // MIB + 4
    root_mib = -(-os.path.getsize(root) // MIB)
    disk = os.path.join(output, "disk.img")
    with open(disk, "wb") as file:
        file.truncate((1 + fat_mib + root_mib + 1) * MIB)
    table = (
        f"label: dos\nlabel-id: 0x{build[:8]}\n"
        f"start=1MiB, size={fat_mib}MiB, type=e, bootable\n"
        f"start={1 + fat_mib}MiB, size={root_mib}MiB, type=83\n"
    )
    run(["sfdisk", "--quiet", disk], timeout=60, stdin=table.encode())
    fat = os.path.join(workspace, "fat.img")
    _boot_partition(fat, fat_mib, {"kernel": kernel, "initrd": initrd}, build, workspace)
    with open(disk, "r+b") as target:
        with open(_SYSLINUX_MBR, "rb") as source:
            target.write(source.read(440))
        for path, place in ((fat, MIB), (root, (1 + fat_mib) * MIB)):
            target.seek(place)
            with open(path, "rb") as source:
                shutil.copyfileobj(source, target, MIB)


def _boot_partition(path: str, mib: int, files: dict[str, str], build: str, workspace: str) -> None:
    words = f"{CMDLINE} snf_image_activate_helper snf_image_root={build[:32]}"
    config = os.path.join(workspace, "syslinux.cfg")
    with open(config, "w", encoding="ascii") as file:
        file.write("SERIAL 0 115200\nDEFAULT helper\nLABEL helper\n")
        file.write(f"  KERNEL kernel\n  INITRD initrd\n  APPEND {words}\n")
    env = {"SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    run(["mkfs.fat", "--invariant", "-F", "16", "-n", "SNF-HELPER", path], timeout=60, env=env)
    run(["syslinux", "--install", path], timeout=60, env=env)
    for name, source in {**files, "syslinux.cfg": config}.items():
        os.utime(source, (EPOCH, EPOCH))
        run(["mcopy", "-m", "-i", path, source, f"::{name}"], timeout=120, env=env)
