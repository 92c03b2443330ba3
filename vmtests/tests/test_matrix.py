"""The matrix: read strictly, in order, and about images that have recipes."""

import os

import pytest

from image_recipes.variants import is_variant
from snf_image_vmtests import places
from snf_image_vmtests.matrix import MatrixError, default_path, load_matrix, sample


def _write(tmp_path: object, text: str) -> str:
    path = os.path.join(str(tmp_path), "matrix.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def test_cells_keep_the_order_of_the_file(tmp_path: object) -> None:
    path = _write(
        tmp_path,
        "cells:\n- {id: b, fixture: x, disk_size: 64}\n- {id: a, fixture: y, disk_size: 65, swap: '2:32'}\n",
    )
    cells = load_matrix(path)
    assert [cell.id for cell in cells] == ["b", "a"]
    assert cells[1].swap_partition == (2, 32)
    assert cells[0].swap_partition is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cells: [{id: a, fixture: x}]", "disk_size: missing"),
        ("cells: [{id: a, fixture: x, disk_size: '64'}]", "disk_size: expected number, got text"),
        ("cells: [{id: a, fixture: x, disk_size: 64, hostnam: h}]", "hostnam: unknown field"),
        ("cells: [{id: A b, fixture: x, disk_size: 64}]", "an id is lower-case words"),
        ("cells: [{id: a, fixture: x, disk_size: 64}, {id: a, fixture: x, disk_size: 64}]", "two cells"),
        ("cells: [{id: a, fixture: x, disk_size: 64, swap: a}]", "swap must be"),
        ("cells: [{id: a, fixture: x, disk_size: 64, credential: pasword}]", "credential: must be one of"),
        (
            "cells: [{id: a, fixture: x, disk_size: 64, boot: true, refused: {exit_code: 2, words: w}}]",
            "cannot be booted",
        ),
        ("cells: {}", "expected a mapping with a list"),
        ("- 1", "expected a mapping with a list"),
        ("cells: [", "not YAML"),
        ("cells: [1]", "expected object"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: object, text: str, words: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(MatrixError, match=words) as caught:
        load_matrix(path)
    assert path in str(caught.value)


def test_a_missing_file_is_an_error_of_the_matrix(tmp_path: object) -> None:
    with pytest.raises(MatrixError, match="No such file"):
        load_matrix(os.path.join(str(tmp_path), "none.yaml"))


def test_the_projects_matrix_deploys_images_that_have_recipes() -> None:
    recipes = os.listdir(os.path.join(places.CHECKOUT, "fixtures", "images", "recipes"))
    cells = load_matrix(default_path())
    assert len(cells) >= 80
    written = {f"{cell.fixture}.yaml" for cell in cells if not is_variant(cell.fixture)}
    assert written <= set(recipes)
    # What the project promises at least: families and file systems are in the recipes' names.
    deployed = " ".join(cell.fixture for cell in cells)
    wanted = (
        "debian ubuntu fedora rhel centos opensuse sles gentoo arch slackware alpine xfs btrfs logical gpt"
    )
    assert [word for word in wanted.split() if word not in deployed] == []


def test_a_sample_leaves_out_composed_images_only() -> None:
    cells = load_matrix(default_path())
    assert sample(cells, 1) == cells
    chosen = sample(cells, 3)
    composed = [cell for cell in cells if "-on-" in cell.fixture]
    assert [cell for cell in chosen if "-on-" in cell.fixture] == composed[::3]
    assert [cell for cell in chosen if "-on-" not in cell.fixture] == [
        cell for cell in cells if "-on-" not in cell.fixture
    ]
    assert len(chosen) > 60
