"""What tenants can write into a request, and what earlier installations left on a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganeti_node import Node

URL = "ftps://me:hunter2@127.0.0.1/dir/doc?token=t0k3n#fr4gment"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("parameter", ["img_id", "config_url", "os_answer_file"])
@pytest.mark.parametrize("scheme", ["https", "http", "ftps", "ftp", "gopher"])
def test_credentials_of_urls_are_told_nobody(node: Node, parameter: str, scheme: str) -> None:
    """R-SEC-2, R-MON-7: neither the log, the monitor, the history nor Ganeti's user sees them."""
    told = node.directory / "told"
    node.configure(f"PROGRESS_MONITOR='sh -c \"cat >{told}\" --'", "IMAGE_DEBUG=yes")
    url = scheme + URL.removeprefix("ftps")
    properties = json.dumps({"OSFAMILY": "windows"})
    changes = {f"OSP_{parameter.upper()}": url, "OSP_INST_PROPERTIES": properties, "DEBUG_LEVEL": "1"}
    answers = [node.call("verify", "parameters", **changes), node.call("create", **changes)]
    assert answers[1].status == 1
    (receipt,) = (node.directory / "log/vm1.gnt.test").glob("*-create.json")
    for text in (*(answer.log for answer in answers), told.read_text(), receipt.read_text()):
        assert "hunter2" not in text
        assert "t0k3n" not in text
        assert "fr4gment" not in text
        assert "me:" not in text
    assert json.loads(receipt.read_text())["error"]["messages"]


@pytest.mark.parametrize(
    "json_text", ['"x":1e9999999999999999999', '"x":[[[[1]]]]', '"x":"\\u0000"', '"x":1,"X":2']
)
@pytest.mark.parametrize("parameter", ["img_properties", "inst_properties"])
def test_json_that_is_meant_to_break_us(node: Node, parameter: str, json_text: str) -> None:
    """R-OSP-16, T-16: verify and create refuse it alike, and neither calls it a bug of its own."""
    changes = {f"OSP_{parameter.upper()}": "{" + json_text + "}"}
    for script in ("verify", "create"):
        answer = node.call(script, **changes)
        assert answer.status == 1
        assert any(line.startswith(f"  - {parameter}") for line in answer.summary), answer.log
        assert "a bug in snf-image" not in answer.log


@pytest.mark.slow
def test_a_mebibyte_of_json(node: Node) -> None:
    """D-18: as much as a document of config_url may have is looked at whole, and in seconds."""
    many = json.dumps({f"KEY{number}": "value" for number in range(45_000)})
    assert node.call("verify", OSP_INST_PROPERTIES=many).status == 0
    answer = node.call("verify", OSP_INST_PROPERTIES=f'{many[:-1]}, "SWAP": "0:0"}}')
    assert any("property SWAP" in line for line in answer.summary)


@pytest.mark.parametrize("hypervisor", ["fake", "xen-pvm", "xen-hvm", "lxc", "chroot"])
def test_any_hypervisor(node: Node, hypervisor: str) -> None:
    """R-SCR-2, R-HLP-1: whose instance it is changes nothing of what is asked and checked."""
    usual, other = (
        node.call("create", OSP_IMG_ID="none"),
        node.call("create", OSP_IMG_ID="none", HYPERVISOR=hypervisor),
    )
    assert usual.status == other.status == 1
    causes = [[line for line in answer.summary if line.startswith("  - ")] for answer in (usual, other)]
    assert causes[0] == causes[1] == ["  - img_id: there is no image 'none' on this node"]


def test_files_of_back_ends_that_are_gone(node: Node) -> None:
    """R-CONF-1, R-BACK-10: what earlier installations have, and nothing reads any more, is named."""
    for name in ("src/pithos.conf", "dst/local.conf", "src/mine.conf", "src/pithos.priority"):
        (node.directory / "backends" / name).write_text("PITHOS_DB=sqlite:////var/lib/x\n")
    (node.directory / "programs/src/mine").mkdir(parents=True)
    log = node.call("verify").log
    unused = (
        f"warning: {node.directory}/backends/src/pithos.conf: there is no back-end pithos: it has no effect"
    )
    assert unused in log
    assert "mine.conf" not in log
    assert "dst/local.conf: there is no" not in log
    assert log.count("has no effect") == 1
