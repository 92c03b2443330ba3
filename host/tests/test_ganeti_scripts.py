"""The scripts of the OS definition, called as Ganeti 3.0 was seen to call them; no VM is started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_node import MIB, Node
from snf_image_contract.names import TaskName
from snf_image_host.deployment import Deployment
from snf_image_host.errors import HelperError, ImageError, NodeError, SnfImageError, UserError
from snf_image_host.ganeti import create, importing, rename
from snf_image_host.ganeti.summary import MAX_LINES
from snf_image_host.receipt import Receipt
from snf_image_host.reporter import Reporter
from snf_image_process import start


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


class Deploying:
    """Stands for the deployment: remembers what was decided, and fails if it is told to."""

    def __init__(self) -> None:
        self.deployment: Deployment | None = None
        self.failure: BaseException | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self, deployment: Deployment, reporter: Reporter) -> Receipt:
        self.deployment = deployment
        for warning in deployment.warnings:
            reporter.warn(warning)
        self.meanwhile()
        if self.failure is not None:
            raise self.failure
        document: dict[str, Any] = {
            "instance": deployment.instance, "disk": deployment.disks[0].path, "result": "success",
            "image": {"name": deployment.image.shown, "copied_bytes": 1, "sha256": "ab"},
            "system": None, "tasks": [], "warnings": [], "seconds": {"copy": 1.0},
        }  # fmt: skip
        return Receipt(document=document)

    @property
    def decided(self) -> Deployment:
        assert self.deployment is not None
        return self.deployment


@pytest.fixture
def deploying(monkeypatch: pytest.MonkeyPatch) -> Deploying:
    made = Deploying()
    monkeypatch.setattr(create, "deploy", made)
    for module in (rename, importing):
        monkeypatch.setattr(module, "customize", made)
    return made


def test_create(node: Node, deploying: Deploying) -> None:
    """R-SCR-CREATE-1, R-NET-1, R-OSP-2: what a real Ganeti said becomes the deployment it means."""
    deploying.meanwhile = lambda: read_image(deploying, node)
    answer = node.call("create")
    assert answer.status == 0, answer.log
    decided = deploying.decided
    job = decided.job
    assert (decided.instance, job.assign_hostname.name) == ("vm1.gnt.test", "vm1.gnt.test")
    assert [disk.path for disk in decided.disks] == [str(node.directory / "disk0")]
    (nic,) = job.configure_network.nics
    assert (nic.mac, nic.address, nic.gateway, nic.ipv6) == (
        "aa:00:00:c7:3a:60", "10.77.0.2/24", "10.77.0.1", "slaac",
    )  # fmt: skip
    assert job.change_password.password is not None
    assert job.change_password.password.reveal() == "p4ss"
    assert decided.copy
    assert any(line.startswith("snf-image: vm1.gnt.test: done, ") for line in answer.summary)


def read_image(deploying: Deploying, node: Node) -> None:
    """The image is open while it is deployed, whatever happens to its name."""
    (node.directory / "images/debian.diskdump").unlink()
    path = deploying.decided.image.path
    assert path is not None
    with open(path, "rb") as file:
        assert file.read(512).endswith(b"\x55\xaa")


def test_parameters_come_from_four_places(node: Node, deploying: Deploying) -> None:
    """R-OSP-1, R-CONF-1, R-CONF-9: main file, variant, the environment; back-ends have files of their own."""
    other = node.directory / "elsewhere"
    other.mkdir()
    node.image("debian.diskdump").rename(other / "debian.diskdump")
    node.configure("IMG_FORMAT=extdump", 'INST_PROPERTIES=\'{"SWAP":"2:1"}\'', "CURL='curl -k'")
    (node.directory / "variants/default.conf").write_text("IMG_FORMAT=diskdump\nINST_PROPERTIES='{}'\n")
    local = node.directory / "backends/src/local.conf"
    local.write_text(f"IMAGE_DIR={other}\nHELPER_MEMORY=1024\nPITHOS_DB=x\n")
    answer = node.call("create", OSP_IMG_FORMAT=None)
    assert answer.status == 0, answer.log
    assert deploying.decided.job.add_swap.swap is None
    assert deploying.decided.helper.memory == 512
    assert f"warning: {local}:2: HELPER_MEMORY has no effect in this file" in answer.log
    assert f"warning: {local}:3: PITHOS_DB is obsolete" in answer.log
    assert "certificates are verified" in answer.log


def test_missing_variables(node: Node, deploying: Deploying) -> None:
    """R-SCR-2: each is named, together with every wrong parameter (R-OSP-16)."""
    missing = dict.fromkeys(("INSTANCE_NAME", "HYPERVISOR", "DISK_COUNT", "OSP_IMG_ID"))
    answer = node.call("create", **missing, OS_API_VERSION="15", OSP_IMG_PASSWD="")
    assert answer.status == 1
    assert answer.log.count("image-error") == 1
    for words in (
        "OS_API_VERSION is '15', only 20 is supported", "INSTANCE_NAME is missing", "HYPERVISOR is missing",
        "DISK_COUNT is missing", "img_id is missing", "img_passwd: must not be empty",
    ):  # fmt: skip
        assert f"  - {words}" in answer.summary
    assert deploying.deployment is None


@pytest.mark.parametrize("name", ["-rf", "../../etc", "a b", "x\ny", "$(id)", "a" * 300, "a/../b"])
def test_an_instance_name_that_is_none(node: Node, deploying: Deploying, name: str) -> None:
    """R-TASK-HOST-1: it never becomes a directory or the argument of a program."""
    node.configure(f"PROGRESS_MONITOR='{sys.executable} -c 1/0'")
    answer = node.call("create", INSTANCE_NAME=name)
    assert answer.status == 1
    assert any(line.startswith("  - INSTANCE_NAME: must be") for line in answer.summary)
    assert not (node.directory / "log").exists()
    assert "[MONITOR] " in answer.log
    assert deploying.deployment is None


def test_disks(node: Node, deploying: Deploying) -> None:
    """R-DST-1, R-DST-2, R-HLP-4: read-only ones, one of the firmware's, one that is none."""
    for index in (1, 2):
        node.disk(index)
        node.environment |= {f"DISK_{index}_PATH": str(node.directory / f"disk{index}")}
    node.environment |= {"DISK_COUNT": "3", "DISK_1_ACCESS": "ro", "DISK_2_NAME": "Firmware"}
    assert node.call("create").status == 0
    assert [(disk.index, disk.read_only) for disk in deploying.decided.disks] == [(0, False), (1, True)]
    answer = node.call("create", OSP_INST_PROPERTIES='{"SWAP": "c"}')
    assert "  - property SWAP: there is no disk c, the number of disks is 2" in answer.summary
    answer = node.call("create", DISK_0_NAME="firmware", DISK_2_PATH="/dev/null", DISK_2_NAME=None)
    assert "  - a firmware disk must come behind all other disks of the instance" in answer.summary
    assert "  - DISK_2_PATH '/dev/null' is neither a block device nor a regular file" in answer.summary
    answer = node.call("create", DISK_0_ACCESS="ro")
    assert any("is read-only" in line for line in answer.summary)
    answer = node.call("create", DISK_0_ACCESS="wr")
    assert "  - DISK_0_ACCESS: must be rw or ro, not 'wr'" in answer.summary


def test_disks_with_a_uri(node: Node, deploying: Deploying) -> None:
    """R-DST-1, R-DST-URI-1, R-SEC-2: a path that is a disk wins; keys in URIs are told to nobody but qemu."""
    uri = "rbd:pool/x:id=me:key=czNjcjN0"
    answer = node.call("create", DISK_0_URI=uri)
    assert deploying.decided.disks[0].uri is None
    for path in ("", "/none"):
        answer = node.call("create", DISK_0_PATH=path, DISK_0_URI=uri)
        assert answer.status == 0, answer.log
        (disk,) = deploying.decided.disks
        assert (disk.uri, disk.path) == (uri, "rbd:pool/x")
        assert "czNjcjN0" not in answer.log
    answer = node.call("create", DISK_0_PATH=None, DISK_0_URI="ssh://me:s3cr3t@h/disk")
    assert any("DISK_0_URI: holds a key or password that would be seen" in line for line in answer.summary)
    assert "s3cr3t" not in answer.log
    answer = node.call("create", DISK_0_PATH=None, DISK_0_URI="https://me:s3cr3t@h/disk")
    assert "  - DISK_0_URI: disks behind https can only be read, not written" in answer.summary
    answer = node.call("create", DISK_0_PATH=None, DISK_0_URI="rbd:p/i@s3cr3t")
    assert "  - DISK_0_URI: is a snapshot, which cannot be written" in answer.summary
    assert "s3cr3t" not in answer.log
    both = {"DISK_COUNT": "2", "DISK_0_PATH": None, "DISK_0_URI": uri, "DISK_1_URI": "rbd:pool/x:id=you"}
    answer = node.call("create", **both)
    assert any("disk 1 (rbd:pool/x) is the same as disk 0" in line for line in answer.summary)


def test_variants(node: Node, deploying: Deploying) -> None:
    """R-SCR-3, D-27: a missing default is empty; a published variant and a typing error differ."""
    assert node.call("create").status == 0
    assert node.call("create", OS_VARIANT=None).status == 0
    listed = node.call("create", OS_VARIANT="listed").summary
    assert f"  - OS variant listed: {node.directory}/variants/listed.conf does not exist" in listed
    assert "snf-image: create of vm1.gnt.test failed: the node is at fault" in listed
    typo = node.call("create", OS_VARIANT="lsted").summary
    assert "  - there is no OS variant lsted" in typo
    (node.directory / "variants/mine.conf").write_text("IMG_PASSWD=x\n")
    assert node.call("create", OS_VARIANT="mine").status == 0
    assert any("OS_VARIANT: must be" in line for line in node.call("verify", OS_VARIANT="../x").summary)


def test_the_configuration_is_not_executed(node: Node, deploying: Deploying) -> None:
    """T-5, R-CONF-4: a program in a main or a variant's file is an error with its place."""
    path = node.directory / "touched"
    (node.directory / "variants/default.conf").write_text(f"X=$(touch {path})\nIMG_ID=`touch {path}`\n")
    answer = node.call("create")
    assert answer.status == 1
    assert any("default.conf:2: IMG_ID" in line for line in answer.summary)
    assert not path.exists()
    assert deploying.deployment is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("cause"), "the request is wrong"),
        (ImageError("cause"), "the image is bad"),
        (HelperError("cause", "two", details=("d",), hint="do it", kept="/x"), "the customisation failed"),
        (NodeError("cause"), "the node is at fault"),
        (ZeroDivisionError("cause p4ss"), "a bug in snf-image"),
    ],
)  # fmt: skip
def test_failures(
    node: Node, deploying: Deploying, error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-SCR-1, R-MON-6, D-16: one image-error; the last lines stand by themselves and say what to do."""
    monkeypatch.setenv("TMPDIR", str(node.directory))
    deploying.failure = error
    answer = node.call("create")
    assert answer.status == 1
    assert answer.log.count('"type": "image-error"') == 1
    begin = answer.log.splitlines().index(f"snf-image: create of vm1.gnt.test failed: {kind}")
    lines = answer.log.splitlines()[begin:]
    assert len(lines) <= MAX_LINES
    assert "    gnt-instance reinstall vm1.gnt.test    or    gnt-instance remove vm1.gnt.test" in lines
    assert "Traceback" not in answer.log
    assert "p4ss" not in answer.log
    (receipt,) = (node.directory / "log/vm1.gnt.test").glob("*-create.json")
    document = json.loads(receipt.read_text())
    assert (document["result"], document["error"]["class"]) == ("failure", kind)
    if isinstance(error, SnfImageError):
        assert document["error"]["messages"] == list(error.messages)
        assert "  - cause" in lines


def test_many_mistakes_fit_the_last_lines(node: Node, deploying: Deploying) -> None:
    """D-16: what Ganeti shows begins with who failed, whatever a tenant wrote."""
    deploying.failure = ImageError(
        *(f"cause {n} \x1b[2J\u2026 \u00fc" * 90 for n in range(40)), details=("d",) * 30
    )
    answer = node.call("create")
    lines = answer.summary
    lines = lines[lines.index("snf-image: create of vm1.gnt.test failed: the image is bad") :]
    assert all(line.isascii() and line.isprintable() and len(line) <= 300 for line in lines)
    assert "  - and 31 more, see above" in answer.summary


def test_a_signal(node: Node, deploying: Deploying) -> None:
    """R-HLP-13, D-16: SIGTERM is a failure with a summary; the history knows."""
    deploying.meanwhile = lambda: os.kill(os.getpid(), signal.SIGTERM)
    answer = node.call("create")
    assert answer.status == 1
    assert "snf-image: create of vm1.gnt.test failed: interrupted" in answer.summary
    assert "  - ended by SIGTERM" in answer.summary
    (receipt,) = (node.directory / "log/vm1.gnt.test").glob("*-create.json")
    assert json.loads(receipt.read_text())["error"]["class"] == "interrupted"


def test_verify(node: Node) -> None:
    """R-SCR-VERIFY-1, R-SCR-VERIFY-2, T-15, T-16: every mistake is a line, without instance and image."""
    for name in [name for name in node.environment if not name.startswith(("OS", "OSP"))]:
        del node.environment[name]
    answer = node.call("verify", "parameters", OSP_IMG_ID="not-there")
    assert (answer.status, answer.log) == (0, "")
    answer = node.call(
        "verify", OSP_IMG_PASSWD_HASH="$6$x$y", OSP_IMG_FORMAT="raw", OSP_IMG_PERSONALITY='[{"path": 1}]',
        OSP_INST_PROPERTIES="[]", OSP_CLOUD_USERDATA="%", OSP_OS_PRODUCT_KEY="s3cr3t",
    )  # fmt: skip
    assert answer.status == 1
    for words in (
        "img_passwd and img_passwd_hash exclude each other", "img_format: must be one of", "img_personality",
        "inst_properties: must be a JSON object", "cloud_userdata", "os_product_key: must be five groups",
    ):  # fmt: skip
        assert any(words in line for line in answer.summary), answer.log
    assert "s3cr3t" not in answer.log
    assert "still there" not in answer.log
    assert "gnt-instance" not in answer.log


def test_usage(node: Node) -> None:
    """R-SCR-1, R-SCR-VERIFY-1: --help is a success, an unknown word is status 2."""
    assert node.call("verify", "disks").status == 2
    assert node.call("create", "now").status == 2
    assert node.call("explode").status == 2
    assert node.call().status == 2
    answer = node.call("create", "--help")
    assert answer.status == 0
    assert answer.log.startswith("usage: create\n")


def test_debug_level(node: Node, deploying: Deploying) -> None:
    """R-SCR-4: `gnt-instance --debug` is as good as IMAGE_DEBUG=yes."""
    assert "making SSH" not in node.call("create").log
    deploying.meanwhile = lambda: None
    verbose = node.call("create", DEBUG_LEVEL="1", OSP_IMG_PROPERTIES='{"PURPOSE": "x"}')
    assert verbose.status == 0


def test_rename_does_nothing_by_default(node: Node, deploying: Deploying) -> None:
    """R-SCR-RENAME-1: and it looks at no parameter (D-11)."""
    answer = node.call(
        "rename", OLD_INSTANCE_NAME="vm0.gnt.test", OSP_IMG_FORMAT="nonsense", DISK_0_PATH="/no"
    )
    assert answer.status == 0
    assert deploying.deployment is None
    assert node.call("rename").status == 1


def test_rename_changes_the_hostname_only(node: Node, deploying: Deploying) -> None:
    """R-SCR-RENAME-1, D-11, D-12: with RENAME_GUEST=yes three tasks run, and nothing is copied."""
    node.configure("RENAME_GUEST=yes", "IMG_PASSWD=from-the-node")
    answer = node.call("rename", OLD_INSTANCE_NAME="vm0.gnt.test", OSP_IMG_FORMAT="nonsense")
    assert answer.status == 0, answer.log
    decided = deploying.decided
    assert not decided.copy
    assert decided.want_host_keys is None
    skipped = {entry.task for entry in decided.job.skipped}
    assert set(TaskName) - skipped == {TaskName.MOUNT_IMAGE, TaskName.ASSIGN_HOSTNAME, TaskName.UMOUNT_IMAGE}
    assert decided.job.change_password.password is None
    assert decided.job.assign_hostname.name == "vm1.gnt.test"


Feed = Callable[[bytes], None]


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """Gives bytes to standard input."""
    with contextlib.ExitStack() as files:

        def give(content: bytes) -> None:
            path = tmp_path / "stdin"
            path.write_bytes(content)
            monkeypatch.setattr(sys, "stdin", files.enter_context(path.open("rb")))

        yield give


def dump_of(size: int) -> bytes:
    return b"\xeb" * 510 + b"\x55\xaa" + bytes(size // 2 - 512) + b"data" * (size // 8)


def test_import(node: Node, feed: Feed) -> None:
    """R-SCR-IMPORT-1, T-29, D-10: byte for byte, holes and the disk's size stay, its end is empty."""
    content = dump_of(8 * MIB)
    disk = node.disk(size=16 * MIB)
    feed(content)
    answer = node.call("import", IMPORT_DEVICE=str(disk), OSP_IMG_FORMAT="nonsense")
    assert answer.status == 0, answer.log
    assert disk.read_bytes() == content + bytes(8 * MIB)
    assert disk.stat().st_blocks * 512 < 6 * MIB
    disk = node.disk(size=16 * MIB, content=b"old" * (5 * MIB))
    feed(content)
    assert node.call("import", IMPORT_DISK_PATH=str(disk), IMPORT_DEVICE="/nowhere").status == 0
    found = disk.read_bytes()
    assert found[: 8 * MIB] == content
    assert found[-MIB:] == bytes(MIB)


def test_import_that_cannot_be(node: Node, feed: Feed) -> None:
    """R-SCR-IMPORT-1, T-138, D-12: too much is an error, the disk keeps its size and does not boot."""
    disk = node.disk(size=4 * MIB, content=b"\xeb" * 510 + b"\x55\xaa")
    feed(dump_of(8 * MIB))
    answer = node.call("import", IMPORT_DEVICE=str(disk))
    assert answer.status == 1
    assert f"  - the dump is larger than the disk, which has {4 * MIB} bytes" in answer.summary
    assert disk.stat().st_size == 4 * MIB
    assert disk.read_bytes()[510:512] == b"\0\0"
    feed(b"")
    assert "  - the dump is empty" in node.call("import", IMPORT_DEVICE=str(disk)).summary
    assert "  - IMPORT_DISK_PATH is missing" in node.call("import").summary


def test_import_grows(node: Node, deploying: Deploying, feed: Feed) -> None:
    """D-11: with IMPORT_GROW=yes the tasks that enlarge run on a larger disk 0, and on no other."""
    node.configure("IMPORT_GROW=yes")
    content = dump_of(MIB)
    for size, index, grows in ((2 * MIB, "0", True), (2 * MIB, "1", False), (MIB, "0", False)):
        deploying.deployment = None
        disk = node.disk(size=size)
        feed(content)
        answer = node.call("import", IMPORT_DEVICE=str(disk), IMPORT_INDEX=index)
        assert answer.status == 0, answer.log
        assert (deploying.deployment is not None) is grows
        if grows:
            skipped = {entry.task for entry in deploying.decided.job.skipped}
            assert set(TaskName) - skipped == importing.GROWING_TASKS
            assert not deploying.decided.copy


def test_export(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-SCR-EXPORT-1: the disk and nothing else on standard output, its size where it is asked for."""
    content = dump_of(4 * MIB)
    disk = node.disk(size=9 * MIB, content=content)
    read, write = os.pipe()
    with (node.directory / "stdout").open("wb") as output:
        monkeypatch.setattr(sys, "stdout", output)
        answer = node.call("export", EXPORT_DEVICE=str(disk), EXP_SIZE_FD=str(write), OSP_IMG_ID="")
    assert (answer.status, answer.log) == (0, "")
    assert os.read(read, 100) == f"{9 * MIB}\n".encode()
    assert os.read(read, 100) == b""
    os.close(read)
    assert (node.directory / "stdout").read_bytes() == content + bytes(5 * MIB)


def test_export_that_cannot_be(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-SCR-1, R-SCR-2: a reader that leaves, a descriptor that is none, a disk that is not there."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as output:
        monkeypatch.setattr(sys, "stdout", output)
        answer = node.call("export", EXPORT_DEVICE=str(node.disk(size=4 * MIB)))
    assert answer.status == 1
    assert "  - the dump cannot be written: Broken pipe" in answer.summary
    answer = node.call("export", EXPORT_DEVICE="/no", EXP_SIZE_FD="999999", HYPERVISOR=None)
    assert "  - EXPORT_DEVICE '/no': No such file or directory" in answer.summary
    assert "  - EXP_SIZE_FD: is no open file descriptor, not '999999'" in answer.summary
    assert "  - HYPERVISOR is missing" in answer.summary
    answer = node.call("export", EXPORT_DISK_URI="http://h/x")
    assert "  - EXPORT_DISK_URI: disks behind http can only be read, not written" in answer.summary


def test_monitor(node: Node, deploying: Deploying) -> None:
    """R-MON-2, R-MON-4, R-MON-7: a program is told instead of the log; a broken setting is only a warning."""
    told = node.directory / "told"
    node.configure(f"PROGRESS_MONITOR='sh -c \"cat >{told}.$1\" --'")
    deploying.failure = NodeError(f"{node.directory}/disk0 fails")
    answer = node.call("create")
    assert "[MONITOR]" not in answer.log
    lines = [json.loads(line) for line in Path(f"{told}.vm1.gnt.test").read_text().splitlines()]
    assert [line["messages"] for line in lines if line["type"] == "image-error"] == [["disk 0 fails"]]
    assert f"  - {node.directory}/disk0 fails" in answer.summary
    node.configure('PROGRESS_MONITOR="\'"', "VERSION_CHECK=yes")
    deploying.failure = None
    answer = node.call("create")
    assert answer.status == 0
    assert "warning: the progress monitor is not told" in answer.log
    assert "[MONITOR]" in answer.log


@pytest.mark.requires("qemu-nbd")
def test_import_and_export_of_a_disk_with_a_uri(
    node: Node, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-SCR-IMPORT-1, R-SCR-EXPORT-1, R-DST-URI-2: the same bytes there and back."""
    content = dump_of(4 * MIB)
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        disk = Path(directory, "disk")
        disk.write_bytes(b"\xaa" * (8 * MIB))
        words = ["qemu-nbd", "-f", "raw", "-t", "-e", "8", "-x", "d", "-k", f"{directory}/s", str(disk)]
        with start(words) as server:
            while not Path(directory, "s").exists():
                assert server.wait(0.01) is None
            Path(directory, "s").chmod(0o777)
            uri = f"nbd+unix:///d?socket={directory}/s"
            feed(content)
            answer = node.call("import", IMPORT_DISK_URI=uri)
            assert answer.status == 0, answer.log
            with (node.directory / "stdout").open("wb") as output:
                monkeypatch.setattr(sys, "stdout", output)
                assert node.call("export", EXPORT_DISK_URI=uri).status == 0
        found = (node.directory / "stdout").read_bytes()
        assert found == disk.read_bytes()
    assert found[: 4 * MIB] == content
    assert found[-MIB:] == bytes(MIB)
