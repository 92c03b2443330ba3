"""The answer file that the caller brings, and what it takes the place of."""

from __future__ import annotations

import base64

import pytest

from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.deployment import Deployment, TargetDisk
from snf_image_host.errors import UserError
from snf_image_host.plan import plan
from snf_image_host.planning.request import AskedImage, Request

XML = b'<?xml version="1.0"?><unattend xmlns="urn:schemas-microsoft-com:unattend"/>'


def decide(
    data: bytes, family: str | None = "windows", config: NodeConfig | None = None, **parameters: str
) -> Deployment:
    given = {"img_format": "diskdump", **parameters}
    if family is not None:
        given["img_properties"] = f'{{"OSFAMILY": "{family}"}}'
    request = Request(
        action="deploy",
        image=AskedImage(path="/srv/image.raw", shown="image.raw"),
        disks=(TargetDisk(index=0, path="/srv/disk.raw"),),
        parameters={name: Secret(text) for name, text in given.items()},
        answer_file=Secret(base64.b64encode(data).decode("ascii")),
    )
    return plan(request, config or NodeConfig.defaults())


@pytest.mark.parametrize(
    ("data", "family"),
    [(XML, "windows"), (b"[Unattended]\xff", "windows-legacy"), (b"[Unattended]", None)],
)
def test_the_callers_answer_file_comes_first(data: bytes, family: str | None) -> None:
    """R-OSP-12: before every URL and the operator's own, none of which is read, and before the image's."""
    config = NodeConfig.defaults(unattend="/nonexistent")
    task = decide(data, family, config, os_answer_file="https://127.0.0.1:1/u.xml").job.install_unattend
    assert task.answer_file is not None
    assert base64.b64decode(task.answer_file.reveal()) == data
    assert task.ignore_existing


def test_it_is_no_use_to_others() -> None:
    """R-PROP-7: a warning."""
    deployment = decide(XML, "linux")
    assert deployment.job.install_unattend.answer_file is None
    assert "--answer-file is ignored for linux images" in deployment.warnings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<unattend>", "--answer-file: not well-formed XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a/>', "--answer-file: the XML has a document type declaration"),
        (b"x" * 501, "--answer-file: larger than 500 bytes"),
    ],
)
def test_one_that_is_wrong(data: bytes, message: str) -> None:
    """R-OSP-12, R-TASK-UNA-7."""
    config = NodeConfig.defaults(fetch_max_param_size=500)
    with pytest.raises(UserError, match=message):
        decide(data, config=config)
