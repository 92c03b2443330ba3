"""The provider on a real Ganeti: what its commands do with it, and what they tell when something is wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from snf_image_process import PIPE, run, start
from snf_image_vmtests import crypt_hash, manifest, ntfs_look, places, ufs_look
from snf_image_vmtests.deployment import KEY
from snf_image_vmtests.ext_image import ExtImage, boot_signature
from snf_image_vmtests.fixture_images import FixtureImage, load_fixture
from snf_image_vmtests.ganeti_cluster import IMAGES, NODE, Cluster, Told, add_words, spell
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


def hashed(image: ExtImage) -> str:
    fields = dict(line.split(":")[:2] for line in image.text("/etc/shadow").splitlines())
    return fields["root"]


def alpine_on(path: str, *, start: int = 1) -> ExtImage:
    return ExtImage(path, start=start)


def messages(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """What the progress monitor was told of an instance."""
    return [json.loads(line) for line in cluster.read(f"/srv/monitored-{name}").splitlines()]


def receipts(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The history of an instance as the command prints it, with the receipts."""
    command = places.command("snf-image")
    listed = json.loads(cluster.run(command, "history", name, "--json").demand().stdout)
    shown = []
    for row in listed:
        told = cluster.run(command, "show", name, "--entry", row["entry"], "--json").demand()
        shown.append(json.loads(told.stdout))
    return shown


@pytest.fixture(scope="module", autouse=True)
def leftovers(cluster: Cluster) -> Iterator[None]:
    """R-HLP-13, T-23, T-44: when every instance is gone, the node has what it had before the first."""
    before = everything(cluster)
    yield
    listed = cluster.run("gnt-instance", "list", "--no-headers", "-o", "name").demand().stdout.split()
    for name in listed:
        cluster.run("gnt-instance", "remove", "--force", name).demand()
    assert everything(cluster) == before


def everything(cluster: Cluster) -> dict[str, object]:
    """All that a deployment could leave on a node."""
    mounts = cluster.run("cat", "/proc/1/mounts").demand().stdout.splitlines()
    # What Ganeti itself has started comes and goes.
    names = sorted({words.split(" -")[0] for words in cluster.processes().values()})
    return {
        "processes": [name for name in names if not re.match(r"sleep|arping|fping|.*ganeti", name)],
        "mounts": mounts,
        "loop devices": cluster.loop_devices(),
        "temporary": sorted(os.listdir(cluster.path("/var/tmp"))),
        "locks": [name for name in os.listdir("/run/snf-image") if is_stale(name)],
        "interfaces": cluster.run("ls", "/sys/class/net").demand().stdout.split(),
        "nbd": [name for name in os.listdir("/sys/block") if name.startswith("nbd")],
        "disks": sorted(os.listdir(cluster.path("/srv/ganeti/file-storage"))),
    }


def is_stale(name: str) -> bool:
    """Whether a lock's file is there although nobody holds it."""
    return (
        run(["flock", "--nonblock", f"/run/snf-image/{name}", "true"], timeout=10, accept=(0, 1)).status == 0
    )


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
    """R-SCR-CREATE-1, R-NET-1, R-SEC-5: Ganeti starts a Debian; the password opens it; it has what was asked.

    The password is a private parameter with commas, quotes and a command in it; files come as JSON.
    """
    network = ["--network=10.77.0.0/24", "--gateway=10.77.0.1", "--network6=2001:db8::/64"]
    cluster.run("gnt-network", "add", *network, "--gateway6=2001:db8::1", "net1").demand()
    cluster.run("gnt-network", "connect", "--nic-parameters=mode=bridged,link=gnt0", "net1").demand()
    text = 'Gr\u00fc\u00dfe, "alle"\n$(touch /var/tmp/executed)'
    file = {
        "path": "/etc/motd.d/welcome",
        "contents": base64.b64encode(text.encode()).decode(),
        "mode": 0o640,
    }
    parameters = {
        "img_id": "local://debian-bookworm-mbr.diskdump",
        "img_format": "diskdump",
        "img_properties": json.dumps(
            {"SWAP": "2:64", "USERS": "root", "PURPOSE": 'caf\u00e9, "quoted"\nand more'}
        ),
        "inst_properties": json.dumps({"osfamily": "linux", "root_partition": 1}),
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
        assert "10.77.0.5/24" in console.run("cat /etc/network/interfaces; ip -brief address")
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


def test_four_at_once(cluster: Cluster) -> None:
    """R-HLP-14, T-44, R-MON-2, R-MON-4: MBR, GPT, a dump of a file system, a block device, all together.

    The first has a secret parameter, a second disk for swap and a firmware disk behind it, the second an
    interface whose network says DHCP, the third a hash, the fourth a monitor that dies.
    """
    cluster.run("gnt-network", "add", "--network=10.78.0.0/24", "--tags=auto", "net2").demand()
    cluster.run("gnt-network", "connect", "--nic-parameters=mode=bridged,link=gnt0", "net2").demand()
    secret = ["--os-parameters-secret", spell({"img_passwd": PASSWORD})]
    three = ["--disk", "0:size=300M", "--disk", "1:size=16M", "--disk", "2:size=2M,name=firmware"]
    fixed = crypt_hash.new_sha512("third")
    ubuntu = {"img_id": "ubuntu-gpt-ext4.diskdump", "img_format": "diskdump"}
    dump = {"img_id": "alpine", "img_format": "extdump", "img_passwd_hash": fixed}
    calls = [
        add_words(FOUR[0], ALPINE | {"inst_properties": '{"SWAP": "b"}'}, *secret, *three),
        add_words(FOUR[1], ubuntu, "--net", "0:network=net2,ip=10.78.0.9"),
        add_words(FOUR[2], dump),
        add_words(FOUR[3], ALPINE, "--disk", "0:size=300M,provider=loop", template="ext"),
    ]
    told = together(cluster, calls)
    for answer in told:
        answer.demand()
    # Fake instances are "running" and their disks still files.
    first = alpine_on(cluster.disk_of(FOUR[0]))
    first.check()
    assert first.text("/etc/hostname").strip() == FOUR[0]
    assert crypt_hash.verify(PASSWORD, hashed(first))
    with open(cluster.disk_of(FOUR[0], 1), "rb") as swap:
        assert b"SWAPSPACE2" in swap.read(4096)
    with open(cluster.disk_of(FOUR[0], 2), "rb") as firmware:
        assert firmware.read().count(0) == os.path.getsize(firmware.name)
    second = ExtImage.on(cluster.disk_of(FOUR[1]), load_fixture("ubuntu-gpt-ext4"))
    second.check()
    assert second.text("/etc/hostname").strip() in {FOUR[1], FOUR[1].partition(".")[0]}
    (entry,) = receipts(cluster, FOUR[1])
    assert [nic["ipv4"] for nic in entry["receipt"]["asked"]["nics"]] == ["dhcp"]
    third = alpine_on(cluster.disk_of(FOUR[2]))
    third.check()
    assert hashed(third) == fixed
    assert boot_signature(third.path) == b"\x55\xaa"
    monitored = messages(cluster, FOUR[0])
    tasks = [message["task"] for message in monitored if message.get("subtype") == "task-end"]
    assert "ChangePassword" in tasks
    assert PASSWORD not in json.dumps(monitored)
    assert all(set(message) >= {"type", "timestamp"} for message in monitored)
    (volume,) = os.listdir(cluster.path("/srv/loop-disks"))
    fourth = alpine_on(cluster.path(f"/srv/loop-disks/{volume}"))
    fourth.check()
    assert fourth.text("/etc/hostname").strip() == FOUR[3]
    (log,) = logs_of(cluster, "add", FOUR[3])
    assert "warning: MonitorProgram stopped showing progress" in log


def together(cluster: Cluster, calls: list[list[str]]) -> list[Told]:
    """Run commands on the node at the same time."""
    with contextlib.ExitStack() as alive:
        running = [
            alive.enter_context(start(cluster.words(*call), stdout=PIPE, stderr=PIPE)) for call in calls
        ]
        answers = []
        for process in running:
            assert process.stdout is not None
            assert process.stderr is not None
            stdout, stderr = process.stdout.read(), process.stderr.read()
            status = process.wait(300)
            assert status is not None
            answers.append(Told(status=status, stdout=stdout.decode(), stderr=stderr.decode()))
        return answers


def logs_of(cluster: Cluster, what: str, name: str) -> list[str]:
    """What the scripts wrote for an instance, oldest first."""
    directory = "/var/log/ganeti/os"
    found = [
        entry for entry in os.listdir(cluster.path(directory)) if entry.startswith(what) and name in entry
    ]
    return [cluster.read(f"{directory}/{entry}") for entry in sorted(found)]


def test_export_and_import(cluster: Cluster) -> None:
    """R-SCR-EXPORT-1, R-SCR-IMPORT-1, R-SCR-RENAME-1, D-11: onto a larger disk, under another name."""
    name, target = FOUR[2], "inst6.gnt.test"
    before = digest(cluster.disk_of(name))
    cluster.run("gnt-backup", "export", "-n", NODE, "--long-sleep", "--shutdown-timeout=1", name).demand()
    directory = cluster.path(f"/var/lib/ganeti/export/{name}")
    (dump,) = [entry for entry in os.listdir(directory) if entry != "config.ini"]
    assert digest(os.path.join(directory, dump)) == before
    words = ["gnt-backup", "import", "-t", "file", "-n", NODE, "--disk", "0:size=400M", "--src-node", NODE]
    words += ["--src-dir", f"/var/lib/ganeti/export/{name}", "--no-name-check", "--no-ip-check", "--no-nics"]
    told = cluster.run(*words, target).demand()
    assert "WARNING" not in told.text, told.text
    image = alpine_on(cluster.disk_of(target))
    image.check()
    assert image.text("/etc/hostname").strip() == target
    blocks = int(re.findall(r"Block count: +(\d+)", image.debug("stats"))[0])
    assert blocks * 1024 > 380 * MIB or blocks * 4096 > 380 * MIB
    kinds = [entry["entry"].rpartition("-")[2] for entry in receipts(cluster, target)]
    assert kinds == ["import", "rename"]


def digest(path: str) -> str:
    return run(["sha256sum", path], timeout=120).text.split()[0]


def test_reinstall(cluster: Cluster) -> None:
    """R-SCR-CREATE-2: the first disk becomes what a new one would be; the others stay as they are."""
    name = FOUR[0]
    path = cluster.disk_of(name, 1)
    swap = digest(path)
    cluster.run("gnt-instance", "shutdown", name).demand()
    parameters = spell({"img_id": "alpine-mbr-ext4", "img_format": "diskdump", "inst_properties": "{}"})
    words = ["-O", parameters, "--os-parameters-private", "img_passwd=another"]
    cluster.run("gnt-instance", "reinstall", "-f", *words, name).demand()
    image = alpine_on(cluster.disk_of(name))
    image.check()
    assert crypt_hash.verify("another", hashed(image))
    assert digest(path) == swap
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


def test_failing_customisation(cluster: Cluster) -> None:
    """R-SCR-CREATE-3, R-MON-6, D-12, D-5: the helper is killed; Ganeti shows our summary; nothing boots."""
    name = "inst7.gnt.test"
    with start(cluster.words(*add_words(name, ALPINE)), stdout=PIPE, stderr=PIPE) as adding:
        wait_for_task(cluster, name)
        run(["kill", "-KILL", str(helper_of(cluster))], timeout=10)
        assert adding.stderr is not None
        told = adding.stderr.read().decode()
        assert adding.wait(60) == 1
    assert f"create of {name} failed: " in told
    assert "was killed by signal 9" in told
    assert "The instance and its disks are still there" in told
    assert f"gnt-instance reinstall {name}" in told
    assert boot_signature(cluster.disk_of(name)) == b"\0\0"
    errors = [message for message in messages(cluster, name) if message["type"] == "image-error"]
    assert len(errors) == 1
    assert cluster.state not in json.dumps(errors)
    assert "/srv/" not in json.dumps(errors)
    (entry,) = receipts(cluster, name)
    assert entry["result"] == "failure"
    kept = re.findall(r"evidence on the node: (\S+)", told)
    assert len(kept) == 1, told
    assert kept[0].startswith(f"/var/log/snf-image/{name}/")
    assert {"command", "job.json", "console.log"} <= set(os.listdir(cluster.path(kept[0])))
    cluster.run("gnt-instance", "remove", "--force", name).demand()


def test_a_signal(cluster: Cluster) -> None:
    """R-HLP-13, D-16: SIGTERM to create cleans up, and is what Ganeti then tells."""
    name = "inst10.gnt.test"
    with start(cluster.words(*add_words(name, ALPINE)), stdout=PIPE, stderr=PIPE) as adding:
        wait_for_task(cluster, name)
        helper = helper_of(cluster)
        (script,) = [pid for pid, words in cluster.processes().items() if words.endswith(" create")]
        run(["kill", "-TERM", str(script)], timeout=10)
        assert adding.stderr is not None
        told = adding.stderr.read().decode()
        assert adding.wait(60) == 1
    assert f"create of {name} failed: interrupted" in told
    assert not os.path.exists(f"/proc/{helper}")
    assert boot_signature(cluster.disk_of(name)) == b"\0\0"
    cluster.run("gnt-instance", "remove", "--force", name).demand()


def wait_for_task(cluster: Cluster, name: str) -> None:
    """Wait until the helper of an instance is at work."""
    path = cluster.path(f"/srv/monitored-{name}")
    end = time.monotonic() + 120
    while not (os.path.exists(path) and "task-start" in cluster.read(path)):
        assert time.monotonic() < end, "no task was begun"
        time.sleep(0.1)


def helper_of(cluster: Cluster) -> int:
    """The process id of the only helper VM on the node."""
    found = [pid for pid, words in cluster.processes().items() if "snf-helper" in words]
    assert len(found) == 1, "there must be one helper VM"
    return found[0]


def test_refused_before_the_copy(cluster: Cluster) -> None:
    """R-SRC-LOCAL-4, R-DST-LOCAL-2, R-OSP-16: images that are not there or too large; the instance stays."""
    name = "inst8.gnt.test"
    missing = {"img_id": "../../etc/shadow", "img_format": "diskdump", "inst_properties": '{"SWAP":"b"}'}
    told = cluster.add(name, missing).demand(1).text
    assert "create of inst8.gnt.test failed: the request is wrong" in told
    assert "leads out of the directory of images" in told
    assert "property SWAP: there is no disk b" in told
    assert "root:" not in told
    cluster.run("gnt-instance", "remove", "--force", name).demand()
    told = cluster.add(name, ALPINE, size="64M").demand(1).text
    assert "has 134217728 bytes" in told
    assert "hint: give it a larger disk" in told
    cluster.run("gnt-instance", "remove", "--force", name).demand()


WRONG = {
    "every mistake at once": (
        {"img_id": "x", "img_format": "DISKDUMP", "img_passwd": "", "os_product_key": "no",
         "inst_properties": '{"SWAP":"0:1"}'},
        ("img_format: must be one of diskdump", "img_passwd: must not be empty", "os_product_key: must be",
         "property SWAP"),
    ),
    "an option": (ALPINE | {"img_id": "-o/etc/x"}, ("img_id: must not begin with '-'",)),
    "a command": (ALPINE | {"img_properties": "$(touch /var/tmp/executed)"}, ("not valid JSON",)),
    "back-quotes": (ALPINE | {"img_properties": '{"`touch /var/tmp/executed`": 1}'}, ("property name",)),
    "deep": (ALPINE | {"img_properties": "[" * 50000}, ("img_properties: nested too deeply",)),
    "twice": (ALPINE | {"img_properties": '{"SWAP": 1, "swap": 2}'}, ("occurs twice",)),
    "a huge number": (ALPINE | {"img_properties": '{"SWAP": 1e999999999}'}, ("img_properties",)),
    "a local file": (ALPINE | {"os_answer_file": "file:///etc/shadow"}, ("file: URLs are not",)),
    "gopher": (ALPINE | {"config_url": "gopher://h/x"}, ("config_url: must be a URL of scheme",)),
    "a secret URL": (ALPINE | {"config_url": "gopher://me:hunter2@h/x?token=t0k"}, ("config_url",)),
    "two passwords": (ALPINE | {"img_passwd": "a", "img_passwd_hash": "$6$a$b"}, ("exclude each other",)),
    "a line break": (ALPINE | {"img_passwd": "a\nb"}, ("img_passwd: must not hold NUL or line breaks",)),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_verify_refuses(cluster: Cluster, case: str) -> None:
    """R-SCR-VERIFY-1, R-SCR-VERIFY-2, T-1, T-2, T-4, T-16: nothing is created, each mistake is a line."""
    parameters, expected = WRONG[case]
    told = cluster.add("inst9.gnt.test", parameters).demand(1).text
    for words in expected:
        assert words in told
    assert "Traceback" not in told
    assert "hunter2" not in told
    assert "t0k" not in told
    assert not os.path.exists(cluster.path("/var/tmp/executed"))
    listed = cluster.run("gnt-instance", "list", "--no-headers", "-o", "name").demand().stdout
    assert "inst9" not in listed


def test_the_largest_value(cluster: Cluster) -> None:
    """D-18: what Linux lets through in one variable is looked at as a whole."""
    text = '["' + "A" * (126 * 1024)
    told = cluster.add("inst9.gnt.test", ALPINE | {"img_personality": text}).demand(1).text
    assert "img_personality: not valid JSON" in told


def test_unknown_variant(cluster: Cluster) -> None:
    """R-SCR-3: a variant that Ganeti is forced to take but nobody made."""
    words = ["--force-variant"]
    told = cluster.add("inst9.gnt.test", ALPINE, *words, os="snf-image+typo").demand(1).text
    assert "there is no OS variant typo" in told


def test_configuration_with_a_program(cluster: Cluster) -> None:
    """T-5, R-CONF-4: it is not run, and the operator is told where it stands."""
    original = cluster.read("/etc/default/snf-image")
    cluster.write("/etc/default/snf-image", original + "IMAGE_DIR=$(touch /var/tmp/executed)\n")
    try:
        told = cluster.add("inst9.gnt.test", ALPINE).demand(1).text
    finally:
        cluster.write("/etc/default/snf-image", original)
    assert "/etc/default/snf-image:11: IMAGE_DIR: of expansions only $NAME" in told
    assert not os.path.exists(cluster.path("/var/tmp/executed"))


def test_history(cluster: Cluster) -> None:
    """What operators see of an instance, and of all."""
    command = places.command("snf-image")
    told = cluster.run(command, "history").demand().stdout
    assert {FOUR[0], KVM, "inst7.gnt.test"} <= set(re.findall(r"inst\d+\.gnt\.test", told))
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
