"""The provider on a real Ganeti: what its commands make of images, proved by the disks and by a login."""

from __future__ import annotations

import base64
import json
import os
import re

import pytest

from snf_image_process import run
from snf_image_vmtests import crypt_hash, manifest, ntfs_look, places, ufs_look
from snf_image_vmtests.deployment import KEY
from snf_image_vmtests.ext_image import ExtImage, boot_signature
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture
from snf_image_vmtests.ganeti_cluster import IMAGES, NODE, Cluster, add_words, spell
from snf_image_vmtests.ganeti_traces import actions, logs_of, messages, receipts, together
from snf_image_vmtests.operator_pages import shell_lines
from snf_image_vmtests.serial_console import SerialConsole
from snf_image_vmtests.windows_scripts import powershell_accounts, specialize

pytestmark = [
    pytest.mark.requires(
        "root", "qemu", "fixtures", "helper-image", "snf-image", "ganeti", "e2fsprogs", "fdisk", "ntfs-3g"
    ),
    pytest.mark.timeout(400, method="signal"),
]
PASSWORD = "p4ss, \"w'rd$(id)"
MIB = 1024 * 1024
ALPINE = {"img_id": "alpine-mbr-ext4.diskdump", "img_format": "diskdump"}
CONFIGURATION = "/etc/default/snf-image"


def hashed(image: ExtImage) -> str:
    fields = dict(line.split(":")[:2] for line in image.text("/etc/shadow").splitlines())
    return fields["root"]


def alpine_on(path: str) -> ExtImage:
    return ExtImage.on(path, load_fixture("alpine-mbr-ext4"))


def test_definition(cluster: Cluster) -> None:
    """R-SCR-3, D-27: Ganeti finds the definition valid, with its variant and its twelve parameters."""
    told = cluster.run("gnt-os", "diagnose").demand().text
    assert "snf-image [global status: valid]" in told
    assert "[variants: default]" in told
    assert cluster.run("gnt-os", "list", "--no-headers").demand().stdout.split() == ["snf-image+default"]
    info = cluster.run("gnt-os", "info", "snf-image").demand().text
    names = re.findall(r"^    - ([a-z_]+): .+", info, re.MULTILINE)
    assert len(names) == 12
    assert {"img_id", "img_passwd_hash", "cloud_userdata"} <= set(names)
    assert cluster.read("/etc/ganeti/snf-image/variants/default.conf").startswith("#")


KVM = "inst1.gnt.test"


def test_kvm_instance_boots(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """R-SCR-CREATE-1, R-NET-1, R-SEC-5: Ganeti starts a Debian on GPT; the password opens it; it is as asked.

    The password is a private parameter with commas, quotes and a command in it; files come as JSON.
    """
    network = ["--network=10.77.0.0/24", "--gateway=10.77.0.1", "--network6=2001:db8::/64"]
    connect(cluster, "net1", *network, "--gateway6=2001:db8::1")
    text = 'Gr\u00fc\u00dfe, "alle"\n$(touch /var/tmp/executed)'
    file = {
        "path": "/etc/motd.d/welcome",
        "contents": base64.b64encode(text.encode()).decode(),
        "mode": 0o640,
    }
    parameters = {
        "img_id": "local://debian-trixie-gpt-xfs.diskdump",
        "img_format": "diskdump",
        "img_properties": json.dumps(
            {"SWAP": "3:64", "USERS": "root", "PURPOSE": 'caf\u00e9, "quoted"\nand more'}
        ),
        "inst_properties": json.dumps({"osfamily": "linux", "root_partition": 2}),
        "img_personality": json.dumps([file]),
        "auth_keys": f"# mine\n{KEY}\n",
    }
    words = ["-H", "kvm", "--disk", "0:size=2200M", "--net", "0:network=net1,ip=10.77.0.5"]
    private = ["--os-parameters-private", spell({"img_passwd": PASSWORD})]
    cluster.add(KVM, parameters, *words, *private, memory="512M").demand()
    log = str(tmp_path_factory.mktemp("console") / "console.log")
    with SerialConsole(cluster.path(f"/run/ganeti/kvm-hypervisor/ctrl/{KVM}.serial"), log) as console:
        console.login("root", "old", refused=True)
        console.login("root", PASSWORD)
        assert console.run("hostname") == KVM
        assert "10.77.0.5/24" in console.run("cat /etc/network/interfaces; ip -color=never -brief address")
        assert "inet6 auto" in console.run("cat /etc/network/interfaces")
        assert console.run("base64 -w0 /etc/motd.d/welcome") == file["contents"]
        assert console.run("stat -c %a:%U /etc/motd.d/welcome") == "640:root"
        assert "AAAAC3Nza" in console.run("cat /root/.ssh/authorized_keys")
        assert console.run("swapon --show=SIZE --bytes --noheadings") == str(64 * MIB - 4096)
        assert int(console.run("df --output=size --block-size=1M / | tail -n 1")) > 1800
    assert not os.path.exists(cluster.path("/var/tmp/executed"))
    cluster.run("gnt-instance", "shutdown", "--timeout=0", KVM).demand()
    (entry,) = receipts(cluster, KVM)
    document = json.dumps(entry)
    assert PASSWORD not in document
    assert json.dumps(PASSWORD)[1:-1] not in document
    assert file["contents"] not in document


FOUR = ("inst2.gnt.test", "inst3.gnt.test", "inst4.gnt.test", "inst5.gnt.test")
HASH = crypt_hash.new_sha512("third")


def test_four_at_once(cluster: Cluster) -> None:
    """R-HLP-14, T-44, R-MON-2: partition tables, a dump of a file system, a block device, all together.

    The first has a secret parameter, a second disk for swap and a firmware disk behind it; the second a
    monitor that never reads, the third one that floods, the fourth one that dies.
    """
    connect(cluster, "net2", "--network=10.78.0.0/24", "--tags=auto")
    connect(
        cluster, "net3", "--network=10.79.0.0/24", "--network6=2001:db8:1::/64",
        "--gateway6=2001:db8:1::1", "--tags=dhcpv6",
    )  # fmt: skip
    secret = ["--os-parameters-secret", spell({"img_passwd": PASSWORD})]
    three = ["--disk", "0:size=300M", "--disk", "1:size=16M", "--disk", "2:size=2M,name=firmware"]
    two_networks = ["--net", "0:network=net2,ip=10.78.0.9", "--net", "1:network=net3"]
    debian = {"img_id": "debian-bookworm-mbr.diskdump", "img_format": "diskdump"}
    dump = {"img_id": "debian-bookworm-extlinux", "img_format": "extdump", "img_passwd_hash": HASH}
    calls = [
        add_words(FOUR[0], ALPINE | {"inst_properties": '{"SWAP": "b"}'}, *secret, *three),
        add_words(FOUR[1], debian, *secret, *two_networks, size="1700M"),
        add_words(FOUR[2], dump, size="1200M"),
        add_words(FOUR[3], ALPINE, "--disk", "0:size=300M,provider=loop", template="ext"),
    ]
    for answer in together(cluster, calls):
        answer.demand()
    # Fake instances are "running" and their disks still files.
    prove_three_disks(cluster)
    prove_debian_on_mbr(cluster)
    prove_debian_from_a_dump(cluster)
    prove_block_device(cluster)


def connect(cluster: Cluster, network: str, *words: str) -> None:
    """Make a network that instances can be in."""
    cluster.run("gnt-network", "add", *words, network).demand()
    cluster.run("gnt-network", "connect", "--nic-parameters=mode=bridged,link=gnt0", network).demand()


def prove_three_disks(cluster: Cluster) -> None:
    """R-HLP-4, R-SEC-5: name and password on the first, swap on the second, nothing on the firmware's."""
    first = alpine_on(cluster.disk_of(FOUR[0]))
    first.check()
    assert first.text("/etc/hostname").strip() == FOUR[0]
    assert crypt_hash.verify(PASSWORD, hashed(first))
    with open(cluster.disk_of(FOUR[0], 1), "rb") as swap:
        assert b"SWAPSPACE2" in swap.read(4096)
    with open(cluster.disk_of(FOUR[0], 2), "rb") as firmware:
        assert firmware.read().count(0) == os.path.getsize(firmware.name)
    monitored = messages(cluster, FOUR[0])
    tasks = [message["task"] for message in monitored if message.get("subtype") == "task-end"]
    assert "ChangePassword" in tasks
    assert PASSWORD not in json.dumps(monitored)
    assert all(set(message) >= {"type", "timestamp"} for message in monitored)


def prove_debian_on_mbr(cluster: Cluster) -> None:
    """R-NET-3, D-35: name, password, DHCP on one interface and DHCPv6 on the other; its monitor is gone."""
    image = ExtImage.on(cluster.disk_of(FOUR[1]), load_fixture("debian-bookworm-mbr"))
    image.check()
    assert image.text("/etc/hostname").strip() == FOUR[1]
    assert crypt_hash.verify(PASSWORD, hashed(image))
    assert not crypt_hash.verify("old", hashed(image))
    interfaces = image.text("/etc/network/interfaces")
    assert re.findall(r"^iface \S+ (inet6? \S+)", interfaces, re.MULTILINE) == [
        "inet loopback", "inet dhcp", "inet manual", "inet6 dhcp",
    ]  # fmt: skip
    (entry,) = receipts(cluster, FOUR[1])
    asked = [(nic["ipv4"], nic["ipv6"]) for nic in entry["receipt"]["asked"]["nics"]]
    assert asked == [("dhcp", "none"), ("none", "dhcp")]
    assert not any(words.startswith("tail") for words in cluster.processes().values())


def prove_debian_from_a_dump(cluster: Cluster) -> None:
    """R-FMT-2, R-FMT-3, R-MON-4: behind a partition table of ours it fills the disk; all was told."""
    image = ExtImage(cluster.disk_of(FOUR[2]), start=1)
    image.check()
    assert boot_signature(image.path) == b"\x55\xaa"
    assert image.text("/etc/hostname").strip() == FOUR[2]
    assert hashed(image) == HASH
    assert size_of(image) > 1190 * MIB
    assert any(message.get("task") == "AssignHostname" for message in messages(cluster, FOUR[2]))


def prove_block_device(cluster: Cluster) -> None:
    """R-DST-1, R-MON-4: the same there, although nobody listened."""
    (volume,) = os.listdir(cluster.path("/srv/loop-disks"))
    image = alpine_on(cluster.path(f"/srv/loop-disks/{volume}"))
    image.check()
    assert image.text("/etc/hostname").strip() == FOUR[3]
    (log,) = logs_of(cluster, "add", FOUR[3])
    assert "warning: MonitorProgram stopped showing progress" in log


def size_of(image: ExtImage) -> int:
    """Bytes of the file system."""
    text = image.debug("stats")
    count, block = (int(re.findall(rf"{name}: +(\d+)", text)[0]) for name in ("Block count", "Block size"))
    return count * block


def test_rename(cluster: Cluster) -> None:
    """R-SCR-RENAME-1, D-11: the name in the image follows, and nothing else; or not, as it is shipped."""
    old, new = FOUR[1], "inst13.gnt.test"
    cluster.run("gnt-instance", "shutdown", old).demand()
    before = hashed(ExtImage.on(cluster.disk_of(old), load_fixture("debian-bookworm-mbr")))
    rename(cluster, old, new)
    image = ExtImage.on(cluster.disk_of(new), load_fixture("debian-bookworm-mbr"))
    image.check()
    assert image.text("/etc/hostname").strip() == new
    assert new in image.text("/etc/hosts")
    assert old not in image.text("/etc/hosts")
    assert hashed(image) == before
    (entry,) = receipts(cluster, new)
    changed = {
        task["name"]: {change["path"] for change in task["changes"]} for task in entry["receipt"]["tasks"]
    }
    assert changed["AssignHostname"] == {"/etc/hostname", "/etc/hosts"}
    assert {name for name, paths in changed.items() if paths} == {"MountImage", "AssignHostname"}
    (log,) = logs_of(cluster, "rename", new)
    assert f"the hostname in the image is {new} now" in log
    prove_that_rename_is_off_by_default(cluster, new, old)


def prove_that_rename_is_off_by_default(cluster: Cluster, old: str, new: str) -> None:
    """R-SCR-RENAME-1: without RENAME_GUEST the disk is not even opened for writing."""
    written = os.stat(cluster.disk_of(old)).st_mtime_ns
    runs = actions(cluster, new)
    original = cluster.read(CONFIGURATION)
    cluster.write(CONFIGURATION, original.replace("RENAME_GUEST=yes\n", ""))
    try:
        rename(cluster, old, new)
    finally:
        cluster.write(CONFIGURATION, original)
    image = ExtImage.on(cluster.disk_of(new), load_fixture("debian-bookworm-mbr"))
    assert os.stat(image.path).st_mtime_ns == written
    assert image.text("/etc/hostname").strip() == old
    assert actions(cluster, new) == runs
    assert "the image is not changed (RENAME_GUEST=no)" in logs_of(cluster, "rename", f"{old}-{new}")[-1]


def rename(cluster: Cluster, old: str, new: str) -> None:
    """Of a failing script Ganeti only warns."""
    words = ["--force", "--no-name-check", "--no-ip-check", old, new]
    told = cluster.run("gnt-instance", "rename", *words).demand().text
    assert "WARNING" not in told, told
    assert "rror" not in told, told


def test_export_and_import(cluster: Cluster) -> None:
    """R-SCR-EXPORT-1, R-SCR-IMPORT-1, R-SCR-RENAME-1, D-11: onto a larger disk, under another name."""
    name, target = FOUR[0], "inst6.gnt.test"
    before = [digest(cluster.disk_of(name, index)) for index in range(3)]
    cluster.run("gnt-backup", "export", "-n", NODE, "--long-sleep", "--shutdown-timeout=1", name).demand()
    directory = cluster.path(f"/var/lib/ganeti/export/{name}")
    dumps = [os.path.join(directory, entry) for entry in os.listdir(directory) if entry != "config.ini"]
    assert sorted(map(digest, dumps)) == sorted(before)
    words = ["gnt-backup", "import", "-t", "file", "-n", NODE, "--src-node", NODE, "--no-nics"]
    words += ["--disk", "0:size=400M", "--disk", "1:size=16M", "--disk", "2:size=2M,name=firmware"]
    words += ["--src-dir", f"/var/lib/ganeti/export/{name}", "--no-name-check", "--no-ip-check"]
    told = cluster.run(*words, target).demand()
    assert "WARNING" not in told.text, told.text
    image = alpine_on(cluster.disk_of(target))
    image.check()
    assert image.text("/etc/hostname").strip() == target
    assert size_of(image) > 380 * MIB
    assert [digest(cluster.disk_of(target, index)) for index in (1, 2)] == before[1:]
    assert actions(cluster, target) == ["import", "rename"]


def digest(path: str) -> str:
    return run(["sha256sum", path], timeout=120).text.split()[0]


def test_reinstall(cluster: Cluster) -> None:
    """R-SCR-CREATE-2: the first disk becomes what a new one would be; the others stay as they are."""
    name = FOUR[0]
    others = [cluster.disk_of(name, 1), cluster.disk_of(name, 2)]
    with open(others[1], "r+b") as firmware:
        firmware.write(os.urandom(MIB))
    untouched = [digest(path) for path in others]
    cluster.run("gnt-instance", "shutdown", name).demand()
    parameters = spell({"img_id": "alpine-mbr-ext4", "img_format": "diskdump", "inst_properties": "{}"})
    words = ["-O", parameters, "--os-parameters-private", "img_passwd=another"]
    cluster.run("gnt-instance", "reinstall", "-f", *words, name).demand()
    image = alpine_on(cluster.disk_of(name))
    image.check()
    assert crypt_hash.verify("another", hashed(image))
    assert [digest(path) for path in others] == untouched
    log = logs_of(cluster, "add", name)[-1]
    assert "is there as 'alpine-mbr-ext4.diskdump' only" in log
    assert "the instance is reinstalled" in log


WINDOWS, FREEBSD = "inst11.gnt.test", "inst12.gnt.test"
PRODUCT_KEY = "ABCDE-12345-FGHIJ-67890-KLMNO"


def test_windows_and_freebsd(cluster: Cluster) -> None:
    """R-SEC-5, R-DET-4, D-35: both at once, on GPT; families are found; what will boot is on the disks."""
    private = ["--os-parameters-private", spell({"img_passwd": PASSWORD, "os_product_key": PRODUCT_KEY})]
    windows = {"img_id": "windows2022-gpt-ntfs.diskdump", "img_format": "diskdump"}
    freebsd = {"img_id": "freebsd-gpt-ufs2-hashes.diskdump", "img_format": "diskdump"}
    told = together(
        cluster,
        [
            add_words(WINDOWS, windows, *private),
            add_words(FREEBSD, freebsd, "--os-parameters-private", spell({"img_passwd": PASSWORD})),
        ],
    )
    for answer in told:
        answer.demand()
    prove_windows(cluster, load_fixture("windows2022-gpt-ntfs"))
    prove_freebsd(cluster, load_fixture("freebsd-gpt-ufs2-hashes"))


def prove_windows(cluster: Cluster, fixture: FixtureImage) -> None:
    """R-TASK-HOST-7, R-TASK-UNA-10, R-TASK-WPW-3: name, key and password for its first start."""
    script = "/Windows/SnfScripts/ChangeAdminPassword.ps1"
    disk = cluster.disk_of(WINDOWS)
    files = ntfs_look.read_files(disk, fixture.root(), ["/unattend.xml", script])
    found = specialize(files["/unattend.xml"], "amd64")
    assert (found.computer_name, found.product_key) == (WINDOWS.partition(".")[0], PRODUCT_KEY)
    assert powershell_accounts(files[script]) == [("Administrator", PASSWORD)]
    assert boot_signature(disk) == b"\x55\xaa"
    (entry,) = receipts(cluster, WINDOWS)
    assert entry["receipt"]["system"]["os_family"] == "windows"
    (log,) = logs_of(cluster, "add", WINDOWS)
    for text in (json.dumps(entry), log):
        assert PRODUCT_KEY not in text
        assert PASSWORD not in text
        assert json.dumps(PASSWORD)[1:-1] not in text


def prove_freebsd(cluster: Cluster, fixture: FixtureImage) -> None:
    """R-TASK-HOST-6, R-TASK-PW-4, R-TASK-FSU-3: name and hash; a sound file system fills the disk."""
    disk, offset = cluster.disk_of(FREEBSD), fixture.root().start * MIB
    ufs_look.check(disk, offset)
    size, _ = ufs_look.size(disk, offset)
    assert size > 280 * MIB
    with ufs_look.archive(disk, {"/": offset}) as archive:
        files = manifest.read_files(archive, ["/etc/rc.conf", "/etc/master.passwd"])
    assert f'hostname="{FREEBSD}"' in files["/etc/rc.conf"].decode()
    stored = dict(line.split(":")[:2] for line in files["/etc/master.passwd"].decode().splitlines())
    assert crypt_hash.verify(PASSWORD, stored["root"])
    assert not crypt_hash.verify("old", stored["root"])
    (entry,) = receipts(cluster, FREEBSD)
    assert entry["receipt"]["system"]["os_family"] == "freebsd"


def test_history(cluster: Cluster) -> None:
    """What operators see of an instance, and of all."""
    command = places.command("snf-image")
    told = cluster.run(command, "history").demand().stdout
    assert {FOUR[0], KVM} <= set(re.findall(r"inst\d+\.gnt\.test", told))
    shown = cluster.run(command, "show", FOUR[0]).demand().stdout
    assert "image     alpine-mbr-ext4.diskdump (diskdump), sha256 " in shown
    assert "task      ChangePassword" in shown
    assert "HELPER" in cluster.run(command, "show", FOUR[0], "--console").demand().stdout


def test_quick_start(cluster: Cluster) -> None:
    """D-15: each command of the page for operators, as it stands there but for the node's name."""
    image = f"{IMAGES}/debian-bookworm-mbr.diskdump"
    os.link(cluster.path(image), cluster.path(f"{IMAGES}/debian-12.diskdump"))
    commands = os.path.dirname(places.command("snf-image"))
    told = ""
    for shown in shell_lines("quick-start.md", "On a cluster"):
        line = shown.replace("node1.example.org", NODE)
        told += cluster.run("sh", "-c", f'PATH="{commands}:$PATH"; {line}').demand().text
    assert "snf-image [global status: valid]" in told
    assert "image     debian-12.diskdump (diskdump), sha256 " in told
    assert "task      ChangePassword" in told
