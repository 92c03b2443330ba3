"""Documents that a plan fetches: parameters of config_url, answer files."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_node import Node
from simulated_source import LoopbackServer, QuietHandler, answering
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import Deployment, TargetDisk
from snf_image_host.errors import SnfImageError, UserError
from snf_image_host.ganeti import create
from snf_image_host.parameters.problems import Problems
from snf_image_host.plan import plan
from snf_image_host.planning.documents import fetch_parameters
from snf_image_host.planning.request import AskedImage, Request
from snf_image_host.reporter import Reporter
from snf_image_host.vm import account

XML = b'<?xml version="1.0"?><unattend xmlns="urn:schemas-microsoft-com:unattend"/>'


class Handler(QuietHandler):
    server: Server

    def answer(self) -> None:
        self.server.asked.append(self.path)
        document = self.server.documents.get(self.path.partition("?")[0])
        self.send_response(404 if document is None else 200)
        self.send_header("Content-Length", str(len(document or b"")))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(document or b"")


class Server(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []

    def serve(self, document: object, path: str = "/doc") -> str:
        """Its URL. What is not bytes is served as JSON."""
        self.documents[path] = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.url(path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(account, "lock_directory", lambda _: str(tmp_path))
    with answering(Server()) as made:
        yield made


def configured(**changes: Any) -> NodeConfig:
    return NodeConfig.defaults(fetch_allowed_hosts=("127.0.0.1",), fetch_timeout=5.0, **changes)


def fetched(url: str, config: NodeConfig | None = None, **given: str) -> dict[str, str]:
    problems = Problems()
    asked = {name: Secret(text) for name, text in {"config_url": url, **given}.items()}
    found = fetch_parameters(asked, config or configured(), problems)
    problems.raise_user_error()
    return {name: value.reveal() for name, value in found.items()}


pytestmark = pytest.mark.requires("curl")


def test_the_document_replaces_what_was_given(server: Server) -> None:
    """R-OSP-1, R-OSP-13, R-OSP-14: keys in any letter case, nested JSON where JSON is wanted."""
    document = {
        "IMG_ID": "debian",
        "img_properties": {"OSFAMILY": "linux", "SWAP": "2:1", "X": [1.50, True, None]},
        "Img_Personality": [{"path": "/etc/motd", "contents": "aGk="}],
        "img_passwd": "`id`$(reboot)'\"\\;",
    }
    found = fetched(server.serve(document), img_id="other", auth_keys="k")
    assert (found["img_id"], found["auth_keys"]) == ("debian", "k")
    assert json.loads(found["img_properties"]) == document["img_properties"]
    assert json.loads(found["img_personality"]) == document["Img_Personality"]
    # T-4: it is what it is.
    assert found["img_passwd"] == document["img_passwd"]
    assert "config_url" not in found
    assert server.asked == ["/doc"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"\xff{}", "not UTF-8"), (b"{", "not valid JSON"), (["img_id"], "must be a JSON object"),
        (b'{"img_id": "a", "IMG_ID": "b"}', "occurs twice"),
        ({"img_id": 5}, "img_id must be a string"), ({"img_id": {}}, "img_id must be a string"),
        ({"img_properties": []}, "img_properties must be a string"), ({"img_id": None}, "must be a string"),
        ({"config_url": "http://h/"}, "'config_url' in the document is no parameter"),
        ({"img_pasword": "s3cret"}, "'img_pasword' in the document is no parameter"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_documents_that_are_wrong(document: object, message: str, server: Server) -> None:
    """R-OSP-14, D-31: nothing of their values is told."""
    with pytest.raises(UserError, match=message) as caught:
        fetched(server.serve(document))
    assert all(text.startswith("config_url: ") for text in caught.value.messages)
    assert "s3cret" not in str(caught.value)


def test_a_document_has_a_longest_length(server: Server) -> None:
    """R-OSP-14, D-18: FETCH_MAX_PARAM_SIZE, a mebibyte unless the operator says otherwise."""
    text = "x" * (1024 * 1024 - 20)
    assert fetched(server.serve({"img_passwd": text}))["img_passwd"] == text
    with pytest.raises(UserError, match="at most 1048576 are taken"):
        fetched(server.serve({"img_passwd": text + "x" * 20}))


def test_credentials_of_the_url_are_not_told(server: Server) -> None:
    """R-SEC-2, R-FETCH-5."""
    url = server.serve(b"").replace("http://", "http://me:pa55word@").replace("/doc", "/none?t0ken=1")
    with pytest.raises(UserError, match=r"config_url: http://127.*status 404") as caught:
        fetched(url)
    assert "pa55word" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_the_node_itself_is_not_asked(server: Server) -> None:
    """R-FETCH-3, T-3: loopback is refused for documents as for images."""
    with pytest.raises(UserError, match=r"config_url: .* has a loopback address"):
        fetched(server.serve({}), NodeConfig.defaults())
    assert server.asked == []


def test_nothing_is_fetched_for_a_request_that_is_wrong(server: Server) -> None:
    """R-OSP-16: a URL that is none is told with all else; so are other mistakes, before any fetch."""
    problems = Problems()
    problems.error("something else")
    given = {"config_url": Secret(server.serve({}))}
    assert fetch_parameters(given, configured(), problems) == given
    assert fetched("file:///etc/shadow") == {"config_url": "file:///etc/shadow"}
    assert server.asked == []


def test_insecure_fetching_is_warned_of(server: Server) -> None:
    """R-FETCH-5: at each use."""
    problems = Problems()
    given = {"config_url": Secret(server.serve({}))}
    fetch_parameters(given, configured(fetch_insecure=True), problems)
    assert problems.warnings == ["TLS certificates are not verified (FETCH_INSECURE)"]


def test_create_fetches_it_once(node: Node, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-OSP-13, R-OSP-15: then all rules hold, before anything is written; verify fetches nothing."""
    decided: list[Deployment] = []

    class DecidedError(SnfImageError):
        exit_code = 2

    def deploy(deployment: Deployment, reporter: Reporter) -> None:
        decided.append(deployment)
        raise DecidedError("decided")

    monkeypatch.setattr(create, "deploy", deploy)
    node.configure("FETCH_ALLOWED_HOSTS=127.0.0.1")
    url = server.serve({"img_id": "debian.diskdump", "img_format": "diskdump", "img_passwd": "fr0m-url"})
    changes: dict[str, str | None] = dict.fromkeys(("OSP_IMG_ID", "OSP_IMG_FORMAT"))
    assert node.call("verify", "parameters", OSP_CONFIG_URL=url, **changes).status == 0
    assert server.asked == []
    answer = node.call("create", OSP_CONFIG_URL=url, **changes)
    assert decided, answer.log
    password = decided[0].job.change_password.password
    assert password is not None
    assert password.reveal() == "fr0m-url"
    assert "fr0m-url" not in answer.log
    assert server.asked == ["/doc"]
    answer = node.call("create", OSP_CONFIG_URL=server.serve({"img_format": "diskdump"}), **changes)
    assert "img_id is missing" in answer.log


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def answer_file(url: str, config: NodeConfig, family: str | None = "windows") -> bytes | None:
    """What the job has of it."""
    properties = {} if family is None else {"OSFAMILY": family}
    request = Request(
        action="deploy",
        image=AskedImage(path="/images/windows.raw", shown="windows.raw"),
        disks=(TargetDisk(index=0, path="/disks/0"),),
        parameters={
            "os_answer_file": Secret(url),
            "img_format": Secret("diskdump"),
            "inst_properties": Secret(json.dumps(properties)),
        },
    )
    job = plan(request, config).job
    data = job.install_unattend.answer_file
    assert data is None or job.install_unattend.ignore_existing
    return None if data is None else base64.b64decode(data.reveal())


def test_an_answer_file_is_fetched(server: Server) -> None:
    """R-OSP-12: and stands in for what the image has."""
    assert answer_file(server.serve(XML), configured()) == XML
    assert answer_file(server.serve(b"[Unattended]"), configured(), "windows-legacy") == b"[Unattended]"
    assert answer_file(server.serve(b"[Unattended]"), configured(), None) == b"[Unattended]"
    asked = len(server.asked)
    assert answer_file(server.serve(XML), configured(), "linux") is None
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no xml", "not well-formed XML"), (XML[:-2], "not well-formed XML"),
        (b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/shadow'>]><a>&b;</a>", "document type declaration"),
        (XML + b" " * 1000, "at most 500 are taken"),
    ],
)  # fmt: skip
def test_answer_files_that_are_wrong(data: bytes, message: str, server: Server) -> None:
    """R-OSP-12."""
    with pytest.raises(UserError, match=f"os_answer_file: .*{message}"):
        answer_file(server.serve(data), configured(fetch_max_param_size=500))


def test_answer_files_of_the_operator(tmp_path: Path) -> None:
    """R-OSP-12, T-2: below ANSWER_FILE_DIR, root's, and nothing else."""
    directory = tmp_path / "answers"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub/a b.xml").write_bytes(XML)
    (tmp_path / "secret").write_bytes(XML)
    (directory / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "answers2").mkdir()
    (tmp_path / "answers2/x").write_bytes(XML)
    config = configured(answer_file_dir=str(directory))
    good = f"file://{directory}/sub/a%20b.xml"
    if os.geteuid() == 0:
        assert answer_file(good, config) == XML
        os.chown(directory / "sub/a b.xml", 1000, 1000)
    with pytest.raises(UserError, match="does not belong to root"):
        answer_file(good, config)
    for wrong in ("link", "sub", "none", "../secret", "%2e%2e/secret", "sub/../../secret"):
        with pytest.raises(UserError, match="leads to no file below"):
            answer_file(f"file://{directory}/{wrong}", config)
    for url in ("file:///etc/shadow", f"file://{directory}2/x", f"file://host{directory}/sub/a%20b.xml"):
        with pytest.raises(UserError, match="leads to no file below"):
            answer_file(url, config)
