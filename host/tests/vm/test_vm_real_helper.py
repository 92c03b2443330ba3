"""The real helper image under the real qemu: it starts, it answers, it judges an empty disk."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snf_image_contract.events import Failed, Hello, JobAccepted
from snf_image_contract.job import Job
from snf_image_host import helper_image
from snf_image_host.deployment import HelperSettings
from snf_image_host.errors import ImageError
from snf_image_host.reporter import Reporter
from snf_image_host.vm import Account, accelerator, check_kvm, start_helper
from snf_image_host.vm.kvm import KvmAccess
from snf_image_host.vm.qemu import Qemu
from snf_image_vmtests.places import helper_directory

if TYPE_CHECKING:
    from tests.vm.conftest import Disk, Recorder

pytestmark = pytest.mark.requires("qemu", "helper-image")


@pytest.fixture
def real(settings: HelperSettings) -> HelperSettings:
    return dataclasses.replace(
        settings, qemu="qemu-system-x86_64", start_timeout=120.0, soft_timeout=60.0, tcg_factor=2.0
    )


def test_it_says_hello_and_judges_an_empty_disk(
    *,
    real: HelperSettings,
    job: Job,
    disks: tuple[Disk, ...],
    reporter: Reporter,
    recorder: Recorder,
    tmp_path: Path,
) -> None:
    """R-HLP-4, R-HLP-11, D-20, T-46: hot-added disks and medium are found, and a cause comes back."""
    image = helper_image.load(helper_directory())
    with start_helper(real, image, reporter, str(tmp_path / "evidence")) as vm:
        hello = vm.wait_ready()
        assert hello is not None
        assert hello.build == image.build
        with pytest.raises(ImageError, match="partition"):
            vm.run_job(dataclasses.replace(job, disks=job.disks[:1]), disks[:1])
    assert [type(event) for event in recorder.said] == [Hello, JobAccepted, Failed]
    assert recorder.infos[-1] == "helper VM ended, status 0"  # it powered itself off
    assert os.pread(disks[0].fd, 1 << 20, 0) == bytes(1 << 20)


def test_its_initial_ram_disk_answers_a_trial(real: HelperSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-25: the word that the accelerator's trial boot waits for, here under TCG."""

    class Emulated(Qemu):
        def __init__(self, *args: object, **named: object) -> None:
            super().__init__(*args, **named | {"accelerator": "tcg"})  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(accelerator, "Qemu", Emulated)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 60.0)
    image = helper_image.load(helper_directory())
    access = KvmAccess(allowed=True)
    assert check_kvm(real, image, Account.of_caller(), access=access).works
