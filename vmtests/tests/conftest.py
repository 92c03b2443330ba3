"""A report of a matrix, for the tests of its data and for those of its page."""

import base64
import os

import pytest

from snf_image_vmtests import matrix_report, report_page
from snf_image_vmtests.fixture_images import Facts, Setting
from snf_image_vmtests.matrix import Cell, decode_cells
from snf_image_vmtests.own_image import Matrix

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
NASTY = '</pre><script>document.title="broken"</script>\x1b[31m & <b>'
CELLS = decode_cells(
    "test",
    {
        "cells": [
            {"id": "good", "fixture": "f", "disk_size": 64, "hostname": "h", "credential": "password+keys"},
            {"id": "bad", "fixture": "f", "disk_size": 64, "hostname": "h", "swap": "2:32"},
            {"id": "other", "fixture": "g", "disk_size": 64, "network": "static+slaac"},
            {"id": "never", "fixture": "none-such", "disk_size": 64},
        ]
    },
)


def _facts(family: str) -> Facts:
    return Facts(
        family=family,
        distribution="any",
        root_partition=1,
        root_filesystem="ext4",
        table="gpt",
        accounts=(),
        hostname=Setting(path="/etc/hostname"),
    )


def _evidence(build: str, cell: Cell, family: str, outcome: matrix_report.Outcome, message: str = "") -> str:
    directory = os.path.join(build, "evidence", f"test-{cell.id}")
    os.makedirs(directory)
    record = matrix_report.record_of(cell, _facts(family), outcome, 12.34, message)
    matrix_report.write_record(directory, record)
    for name, data in {
        "steps.txt": b"   1.50 s  ok      deploy f\n  10.00 s  failed  look at it: a  b\nnot a step\n",
        "receipt.json": b'{"result": "success"}\n',
        "helper-console.log": f"booting\n{NASTY}\n".encode(),
        "empty.log": b"",
        "vm-screen.png": PIXEL,
    }.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(data)
    return directory


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a report about a run with one failure, one cell that did not run, an old cell."""
    build = str(tmp_path_factory.mktemp("report"))
    good, bad, other, _ = CELLS
    _evidence(build, good, "debian", "passed")
    _evidence(build, bad, "debian", "failed", f"AssertionError: {NASTY}")
    old = _evidence(build, other, "arch", "passed")
    os.utime(os.path.join(old, matrix_report.RECORD), (1000, 1000))
    output = os.path.join(build, "matrix")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SNF_IMAGE_BUILD", build)
        path = report_page.write(output, Matrix(cells=CELLS), since=2000)
    assert path == os.path.join(output, "report.html")
    return output
