"""Every cell of the matrix: deployed by the installed command, looked at from outside, booted if it can."""

import pytest

from snf_image_vmtests.boot import prove_boot
from snf_image_vmtests.deployment import deploy
from snf_image_vmtests.evidence import Evidence
from snf_image_vmtests.fixture_images import FixtureImage
from snf_image_vmtests.inspection import InspectionVm
from snf_image_vmtests.matrix import Cell
from snf_image_vmtests.proofs import prove_disk


@pytest.mark.requires("qemu", "inspection-vm", "helper-image", "snf-image")
@pytest.mark.timeout(900, method="signal")
def test_cell(
    cell: Cell,
    cell_image: FixtureImage,
    evidence: Evidence,
    inspection_vm: InspectionVm,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    deployed = deploy(cell, cell_image, str(tmp_path_factory.mktemp("cell")), evidence)
    if cell.refused is not None:
        assert deployed.status == cell.refused.exit_code, deployed.output
        assert cell.refused.words in deployed.output, deployed.output
        assert not deployed.receipt, "a failed deployment has a receipt"
        return
    assert deployed.status == 0, deployed.output
    once = prove_disk(deployed, inspection_vm, evidence)
    if cell.twice:
        directory = str(tmp_path_factory.mktemp("again"))
        again = deploy(cell, cell_image, directory, evidence, onto=deployed.disk)
        assert again.status == 0, again.output
        assert prove_disk(again, inspection_vm, evidence) == once, "the second deployment differs"
    if cell.boot:
        prove_boot(deployed, evidence)
