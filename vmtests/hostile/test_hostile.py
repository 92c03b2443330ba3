"""Every image of the corpus, deployed: it ends in time, in one clear line, and the node is as it was."""

import pytest

from hostile.image import HostileImage
from hostile.trial import deploy, judge
from snf_image_vmtests.caller import Caller
from snf_image_vmtests.evidence import Evidence


@pytest.mark.requires("qemu", "fixtures", "helper-image", "snf-image", "e2fsprogs", "ntfs-3g")
@pytest.mark.timeout(300, method="signal")
def test_a_hostile_image(hostile_image: HostileImage, caller: Caller, evidence: Evidence) -> None:
    """T-78, R-TASK-5, R-HLP-13, D-9, D-16: success, or status 3 or 4 and a line that says why."""
    trial = deploy(hostile_image, caller, evidence)
    status, error = trial.answer.status, trial.answer.error
    print(f"{hostile_image.id}: {status}, {trial.host_kib} + {trial.child_kib} KiB: {error}")
    judge(hostile_image, trial)
