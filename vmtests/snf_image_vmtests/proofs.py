"""Proofs from outside: what a deployed disk must be like, found by looking at it in the inspection VM.

The rules are worked out here anew and from the words of ``docs/behaviour``, not by the helper's code.
"""

from __future__ import annotations

import contextlib
import os
import re

from snf_image_vmtests import crypt_hash, manifest, places, ufs_look, windows_proofs
from snf_image_vmtests.deployment import ADDRESS, INJECTED, KEY, MAC, MIB, Deployed
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.fixture_images import BSDS, FixtureImage
from snf_image_vmtests.inspection import InspectedDisk, InspectionVm, PartitionSeen

_ROUNDING = 32
"""Sectors; OpenBSD's partitions have a multiple of them."""
_ALIGNMENT = 2048
"""Sectors of a mebibyte."""
_TELLING = 6
"""Letters and digits in a row that are in no file by chance."""


def prove_disk(deployed: Deployed, vm: InspectionVm, evidence: Evidence) -> manifest.Manifest:
    """Everything about the deployed disk that the cell promises; raises AssertionError. Its manifest."""
    windows = deployed.fixture.facts.family.startswith("windows")
    before = manifest_of(deployed.original, vm, evidence)
    with vm.disk(deployed.disk, evidence) as disk:
        disk.verify_table()
        prove_partitions(deployed, disk)
        prove_filesystems(deployed, disk)
        with _archive(deployed.fixture, deployed.disk, disk) as archive:
            after = manifest.read_archive(archive)
            wanted = {
                path
                for path in after
                if path.startswith(("/etc/", "/root/", "/home/", "/var/lib/cloud/"))
                or (windows and windows_proofs.is_wanted(path, after[path]))
            }
            files = manifest.read_files(archive, wanted)
        swap = _swap_uuid(deployed, disk)
    if deployed.swap_disk is not None:
        with vm.disk(deployed.swap_disk, evidence) as disk:
            swap = disk.tags_of(f"/dev/{disk.device}").get("UUID")
            assert swap, "the second disk has no swap signature"
    with evidence.step("compare the tree with the receipt"):
        prove_nothing_else_changed(deployed, before, after, evidence)
    if windows:
        windows_proofs.prove_windows(
            deployed, windows_proofs.folded(files), windows_proofs.folded_tree(after)
        )
        return after
    if deployed.cell.cloud_init:
        prove_seed(deployed, files, after)
        return after
    prove_hostname(deployed, files)
    prove_password(deployed, files)
    prove_keys(deployed, files, after)
    own_swap = deployed.fixture.facts.own_swap and swap is None
    if deployed.fixture.facts.family not in BSDS and not own_swap:
        prove_swap_entry(files, swap)
    prove_network(deployed, files)
    prove_injected(deployed, files, after)
    prove_host_keys(deployed, files)
    return after


def manifest_of(fixture: FixtureImage, vm: InspectionVm, evidence: Evidence) -> manifest.Manifest:
    """The manifest of an image before deployment; kept by the image's digest, because that takes time."""
    directory = os.path.join(places.build_directory(), "manifests")
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"{fixture.sha256}-{manifest.FORMAT}.json")
    if not os.path.exists(path):
        with vm.disk(fixture.path, evidence) as disk, _archive(fixture, fixture.path, disk) as archive:
            manifest.save(manifest.read_archive(archive), path)
    return manifest.load(path)


def _archive(fixture: FixtureImage, path: str, disk: InspectedDisk) -> contextlib.AbstractContextManager[str]:
    """An archive of the tree: of UFS by the fixtures' reader, of others by the inspection VM."""
    if not fixture.facts.root_filesystem.startswith("ufs"):
        return disk.archive(fixture.mounts())
    offsets = {part.mount: part.offset for part in fixture.partitions if part.mount is not None}
    return ufs_look.archive(path, offsets)


def usable_end(sectors: int) -> int:
    """The last sector that partitions may have on a disk of this size (R-TASK-FIX-1)."""
    return (sectors - _ALIGNMENT) // _ALIGNMENT * _ALIGNMENT - 1


def prove_partitions(deployed: Deployed, disk: InspectedDisk) -> None:
    """The last partition grew to where it may; swap stands behind it with its exact number and size."""
    seen = {partition.number: partition for partition in disk.partitions()}
    for known in deployed.fixture.partitions:
        assert known.number in seen, f"partition {known.number} is gone"
        if not known.inside:
            assert seen[known.number].start == known.start_sector, f"partition {known.number} moved"
    grown = seen[deployed.fixture.last_partition().number]
    end = grown.start + grown.sectors - 1
    if deployed.cell.cloud_init:
        assert grown.sectors == deployed.fixture.last_partition().sector_count, "cloud-init is to grow it"
        return
    last = usable_end(disk.sectors())
    swap = deployed.cell.swap_partition
    if not deployed.fixture.facts.grows:
        known = deployed.fixture.last_partition()
        assert grown.sectors == known.sector_count, f"partition {grown.number} changed its size"
        return
    if swap is None:
        assert end == last, f"partition {grown.number} ends at {end}, should at {last}"
        return
    number, megabytes = swap
    assert number in seen, f"there is no swap partition {number}"
    added = seen[number]
    assert added.start + added.sectors - 1 == last, f"swap ends before {last}"
    assert added.start == last - megabytes * _ALIGNMENT + 1, f"swap does not have {megabytes} MiB"
    # A logical partition is preceded by its own table, on the mebibyte before it (R-TASK-FIX-7, 8).
    logical = deployed.fixture.facts.table == "mbr" and number > 4
    gap = _ALIGNMENT if logical else 0
    assert end == added.start - gap - 1, (
        f"partition {grown.number} ends at {end}, swap starts at {added.start}"
    )


def prove_filesystems(deployed: Deployed, disk: InspectedDisk) -> None:
    """Each file system is what it was, its own checker finds nothing, and the grown one is full size."""
    last = deployed.fixture.last_partition()
    for known in deployed.fixture.partitions:
        if known.filesystem is None:
            continue
        partition = disk.partition(known.number)
        if known.filesystem == "vfat":
            assert disk.tags(known.number)["TYPE"] == "vfat"
            check_filesystem(disk, partition, "vfat")
            continue
        if known.filesystem == "ntfs":
            windows_proofs.check_ntfs(deployed, disk, partition)
            ntfs_size = windows_proofs.ntfs_size(disk, partition)
            windows_proofs.prove_size(deployed, partition, ntfs_size, known.sector_count)
            continue
        if known.filesystem.startswith("ufs"):
            ufs_look.check(deployed.disk, known.offset)
            size, remainder = ufs_look.size(deployed.disk, known.offset)
            remainder += (known.cylinder + _ROUNDING) * 512 if known.inside else 0
        else:
            remainder = MIB
            check_filesystem(disk, partition, known.filesystem)
            size = filesystem_size(disk, partition, known.filesystem)
        if known == last and not deployed.cell.cloud_init:
            # The remainder is less than a block group's minimum, or than a mebibyte.
            end = (partition.start + partition.sectors) * 512
            missing = end - known.start_sector * 512 - size
            assert 0 <= missing < remainder, f"{known.filesystem} on {partition.device} lacks {missing} bytes"


def check_filesystem(disk: InspectedDisk, partition: PartitionSeen, kind: str) -> None:
    """Run the checker of a file system, without letting it mend anything."""
    commands = {"xfs": "xfs_repair -n", "btrfs": "btrfs check --readonly", "vfat": "fsck.fat -n"}
    disk.vm.succeed(f"{commands.get(kind, 'e2fsck -fn')} {partition.device}")


def filesystem_size(disk: InspectedDisk, partition: PartitionSeen, kind: str) -> int:
    """Bytes that the superblock speaks of."""
    device = partition.device
    if kind == "xfs":
        text = disk.vm.succeed(f"xfs_db -r -c 'sb 0' -c 'p dblocks blocksize' {device}")
        fields = dict(re.findall(r"(\w+) = (\d+)", text))
        return int(fields["dblocks"]) * int(fields["blocksize"])
    if kind == "btrfs":
        text = disk.vm.succeed(f"btrfs inspect-internal dump-super {device}")
        (size,) = re.findall(r"^dev_item\.total_bytes\s+(\d+)$", text, re.MULTILINE)
        return int(size)
    text = disk.vm.succeed(f"dumpe2fs -h {device}")
    (count,) = re.findall(r"^Block count:\s+(\d+)$", text, re.MULTILINE)
    (block,) = re.findall(r"^Block size:\s+(\d+)$", text, re.MULTILINE)
    return int(count) * int(block)


def prove_nothing_else_changed(
    deployed: Deployed, before: manifest.Manifest, after: manifest.Manifest, evidence: Evidence
) -> None:
    """What differs between the trees is what the receipt lists, no more and no less."""
    receipt = deployed.receipt
    if deployed.fixture.facts.root_filesystem == "ntfs":
        before, after = windows_proofs.folded_tree(before), windows_proofs.folded_tree(after)
        receipt = windows_proofs.folded_receipt(receipt)
    found = manifest.differences(before, after)
    evidence.write("changed.txt", "".join(f"{path}: {what}\n" for path, what in sorted(found.items())))
    wrong = manifest.unexplained(found, receipt, manifest.groups(before, after))
    assert not wrong, "\n".join(wrong)


def prove_hostname(deployed: Deployed, files: dict[str, bytes]) -> None:
    if deployed.cell.hostname is None:
        return
    setting = deployed.fixture.facts.hostname
    assert setting.path in files, f"{setting.path} is not there"
    text = files[setting.path].decode()
    if setting.key is None:
        assert text.splitlines()[:1] == [deployed.cell.hostname], f"{setting.path} says {text!r}"
    else:
        pattern = rf'^{setting.key}="?{re.escape(deployed.cell.hostname)}"?$'
        assert re.search(pattern, text, re.MULTILINE), f"{setting.path} says {text!r}"


def users_of(deployed: Deployed) -> tuple[str, ...]:
    return deployed.cell.users or ("root",)


def prove_password(deployed: Deployed, files: dict[str, bytes]) -> None:
    """The stored hash is one of the new password and not of the old; others keep theirs (D-35)."""
    known = {account.name for account in deployed.fixture.facts.accounts}
    assert known.issuperset(users_of(deployed)), "an account whose password is set would not be looked at"
    bsd = deployed.fixture.facts.family in BSDS
    path = "/etc/master.passwd" if bsd else "/etc/shadow"
    stored = dict(line.split(":")[:2] for line in files[path].decode().splitlines())
    if bsd and deployed.cell.gives_password:
        # What the system looks into is made from this file at the first boot, and not what was there before.
        assert not files.get("/etc/spwd.db"), "the old database is left"
        assert b"pwd_mkdb -p /etc/master.passwd" in files["/etc/rc.local"]
    for account in deployed.fixture.facts.accounts:
        given = deployed.cell.gives_password and account.name in users_of(deployed)
        new = deployed.cell.password if given else account.old_password
        if new is not None:
            assert crypt_hash.verify(new, stored[account.name]), f"{account.name} does not have the password"
        if given and account.old_password is not None:
            assert not crypt_hash.verify(account.old_password, stored[account.name])


def prove_keys(deployed: Deployed, files: dict[str, bytes], after: manifest.Manifest) -> None:
    for account in deployed.fixture.facts.accounts:
        path = f"{account.home}/.ssh/authorized_keys"
        if not deployed.cell.gives_keys or account.name not in users_of(deployed):
            assert path not in files, f"{path} was not asked for"
            continue
        assert KEY in files[path].decode().splitlines(), f"{path} does not have the key"
        item, directory = after[path], after[os.path.dirname(path)]
        assert (item.mode, item.uid) == (0o600, account.uid), f"{path}: mode {item.mode:o}, owner {item.uid}"
        assert (directory.mode, directory.uid) == (0o700, account.uid), (
            f"{path}: its directory is not private"
        )


def _swap_uuid(deployed: Deployed, disk: InspectedDisk) -> str | None:
    if deployed.cell.swap_partition is None or deployed.cell.cloud_init:
        return None
    tags = disk.tags(deployed.cell.swap_partition[0])
    assert tags.get("TYPE") == "swap", f"the swap partition holds {tags.get('TYPE')}"
    return tags["UUID"]


def prove_swap_entry(files: dict[str, bytes], uuid: str | None) -> None:
    """fstab has exactly one swap entry, of the partition or disk that was made (R-TASK-SWAP-4)."""
    lines = [line.split() for line in files["/etc/fstab"].decode().splitlines() if not line.startswith("#")]
    entries = [fields for fields in lines if len(fields) > 2 and fields[2] == "swap"]
    expected = [] if uuid is None else [[f"UUID={uuid}", "none", "swap", "sw", "0", "0"]]
    assert entries == expected, f"swap entries are {entries}"


def prove_network(deployed: Deployed, files: dict[str, bytes]) -> None:
    """The back-end that this system has got the address; whether it understands is for those who boot it."""
    if deployed.cell.network == "none":
        return
    path = deployed.fixture.facts.network_file
    everything = b"\n".join(files.values()).decode("utf-8", "replace").lower()
    assert path is None or path in files, f"{path} is not there"
    text = everything if path is None else files[path].decode()
    if deployed.cell.network != "dhcp":
        assert ADDRESS in text, f"{path or 'the configuration'} does not have the address"
    if deployed.fixture.facts.kernel_names:
        return
    assert MAC in everything, "no file has the interface's hardware address"


def prove_injected(deployed: Deployed, files: dict[str, bytes], after: manifest.Manifest) -> None:
    for path, (content, _, _, mode) in INJECTED.items():
        if not deployed.cell.files:
            assert path not in files, f"{path} was not asked for"
            continue
        assert files[path] == content.encode(), f"{path} does not have its content"
        assert (after[path].mode, after[path].uid) == (mode, 0), f"{path} has mode {after[path].mode:o}"


def prove_host_keys(deployed: Deployed, files: dict[str, bytes]) -> None:
    """The image's own keys are gone; a system that makes none at boot got new ones (R-TASK-SSH-1, 2)."""
    keys = {path: data for path, data in files.items() if re.fullmatch(r"/etc/ssh/ssh_host_\w+_key", path)}
    assert not any(b"the key of the image" in data for data in keys.values()), "a key of the image is left"
    if deployed.fixture.facts.family == "debian" and "/etc/ssh/sshd_config" in files:
        types = {path.removeprefix("/etc/ssh/ssh_host_").removesuffix("_key") for path in keys}
        assert types >= {"rsa", "ecdsa", "ed25519"}, f"there are only keys of types {sorted(types)}"
        assert all(data.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----") for data in keys.values())


def tells(data: bytes, password: str) -> bool:
    """Whether a file has a password in clear text, however its format writes quotes and other characters."""
    word = max(re.findall("[A-Za-z0-9]+", password), key=len, default="")
    return (word if len(word) >= _TELLING else password).encode() in data


def prove_seed(deployed: Deployed, files: dict[str, bytes], after: manifest.Manifest) -> None:
    """What cloud-init finds at the first boot, and nothing in clear text (R-TASK-CI-4, R-TASK-PW-7)."""
    seed = "/var/lib/cloud/seed/nocloud-net"
    for name in ("meta-data", "user-data"):
        assert after[f"{seed}/{name}"].mode == 0o600, f"{name} can be read by others"
    if deployed.cell.hostname is not None:
        assert deployed.cell.hostname in files[f"{seed}/meta-data"].decode(), "meta-data lacks the hostname"
    if deployed.cell.gives_password:
        assert not any(tells(data, deployed.cell.password) for data in files.values())
        hashes = [h for data in files.values() for h in re.findall(rb"\$6\$[./\w$=]+", data)]
        assert any(crypt_hash.verify(deployed.cell.password, text.decode()) for text in hashes)
    if deployed.cell.gives_keys:
        assert KEY in files[f"{seed}/meta-data"].decode(), "meta-data lacks the key"
    stored = dict(line.split(":")[:2] for line in files["/etc/shadow"].decode().splitlines())
    for account in deployed.fixture.facts.accounts:
        if account.old_password is not None:
            assert crypt_hash.verify(account.old_password, stored[account.name]), "cloud-init is to set it"
