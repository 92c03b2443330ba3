"""The generated part of the matrix: every pair that can be is there, and the file is what is generated."""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence

import pytest
import yaml

from image_recipes import variants
from image_recipes.recipe import holders
from snf_image_process import run
from snf_image_vmtests import matrix_model, pairwise, places
from snf_image_vmtests.matrix import default_path, load_matrix

pytestmark = pytest.mark.slow

MAKER = os.path.join(places.CHECKOUT, "ci", "make_matrix.py")
PARTS = variants.load_variants(os.path.join(places.CHECKOUT, "fixtures", "images", "variants.yaml"))

FFS = ("ufs1-ffs", "ufs2-ffs", "ufs1-ffs-bigendian", "ufs2-ffs-bigendian")
BSD_DISKS = {
    "freebsd": ("ufs2 gpt", "ufs2-hashes gpt", "ufs1 gpt"),
    "netbsd": [" ".join(pair) for pair in itertools.product(FFS, ("mbr", "gpt", "disklabel"))],
    "openbsd": [" ".join(pair) for pair in itertools.product(FFS[:2], ("disklabel", "gptlabel"))],
}


def valid(row: Mapping[str, str]) -> bool:
    """What can be deployed, said once more and in other words than the model's."""
    windows = row["system"].startswith("windows")
    if row["system"].endswith("bsd"):
        disk = f"{row['filesystem']} {row['table']}"
        return disk in BSD_DISKS[row["system"]] and (row["swap"], row["cloud"]) == ("none", "no")
    if row["filesystem"].startswith("ufs") or row["table"].endswith("label"):
        return False
    if windows != (row["filesystem"] == "ntfs"):
        return False
    if row["table"] == "dump" and row["filesystem"] in ("xfs", "btrfs"):
        return False
    if row["cloud"] == "yes" and row["swap"] == "disk":
        return False
    if not windows:
        return True
    tables = ("mbr", "gpt", "dump") if row["system"] == "windows2022" else ("mbr", "dump")
    asked = row["credential"] in ("none", "password", "password+keys") and row["network"] in ("none", "dhcp")
    return row["table"] in tables and asked and row["swap"] == "none" and row["cloud"] == "no"


def generated() -> list[str]:
    """Ids of the generated cells of the file."""
    return [cell["id"] for cell in matrix_model.cells()]


def test_every_possible_pair_is_in_a_cell() -> None:
    space = matrix_model.parameters()
    rows = space.covering()
    assert all(valid(row) for row in rows)
    seen = set().union(*(pairwise.pairs_of(row) for row in rows))
    lacking = []
    for one, other in itertools.combinations(space.values, 2):
        for pair in itertools.product(space.values[one], space.values[other]):
            wanted = ((one, pair[0]), (other, pair[1]))
            if wanted not in seen and _is_possible(dict(wanted), space.values):
                lacking.append(wanted)
    assert lacking == []


@pytest.mark.parametrize("system", BSD_DISKS)
def test_every_disk_of_a_bsd_is_in_a_cell(system: str) -> None:
    """Each file system and each table, also one that the model has forgotten and so makes no pair."""
    rows = [row for row in matrix_model.parameters().covering() if row["system"] == system]
    filesystems, tables = zip(*(disk.split() for disk in BSD_DISKS[system]), strict=True)
    assert {row["filesystem"] for row in rows} == set(filesystems)
    assert {row["table"] for row in rows} == set(tables)


def _is_possible(fixed: Mapping[str, str], values: Mapping[str, Sequence[str]]) -> bool:
    """Whether any row at all has these values, by trying all."""
    choices = [(fixed[name],) if name in fixed else values[name] for name in values]
    return any(valid(dict(zip(values, row, strict=True))) for row in itertools.product(*choices))


def test_there_are_at_least_80_and_their_ids_are_stable() -> None:
    cells = matrix_model.cells()
    assert len(cells) >= 80
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert cells == matrix_model.cells()
    # The id is made of what the cell asks for alone, so that it stays when others come and go.
    row = {
        "system": "arch", "filesystem": "ext4-no64bit", "table": "logical", "hostname": "fqdn",
        "credential": "password+keys", "swap": "partition", "network": "static+slaac", "cloud": "yes",
    }  # fmt: skip
    assert matrix_model.cell(row) == {
        "id": "arch-ext4-no64bit-logical-fqdn-password-keys-swappartition-static-slaac-cloud",
        "fixture": "arch+cloud-on-logical-ext4-no64bit",
        "disk_size": 160,
        "hostname": "name1.example.org",
        "credential": "password+keys",
        "swap": "6:32",
        "network": "static+slaac",
        "cloud_init": True,
    }


def test_the_checked_in_file_is_the_generated_one() -> None:
    run([sys.executable, MAKER, "--check"], timeout=60)
    with open(default_path(), encoding="utf-8") as file:
        plain = {cell["id"]: cell for cell in yaml.safe_load(file)["cells"]}
    assert [plain[cell["id"]] for cell in matrix_model.cells()] == matrix_model.cells()
    assert {cell.id for cell in load_matrix(default_path())} == plain.keys()


@pytest.mark.parametrize("written", matrix_model.cells(), ids=generated())
def test_the_image_of_a_cell_is_what_its_id_says(written: dict[str, str]) -> None:
    recipe = PARTS.recipe(written["fixture"])
    system, _, rest = written["id"].partition("-")
    filesystem = recipe.facts.root_filesystem
    assert rest.startswith(filesystem)
    assert written["fixture"].startswith((f"{system}-on-", f"{system}+cloud-on-"))
    (root,) = [part for part in holders(recipe.disk) if part.mount == "/"]
    assert any(part.label for part in recipe.disk.partitions) == ("label-" in rest)
    assert root.number == (5 if "-logical-" in rest else 1)
    assert recipe.facts.table == ("gpt" if "-gpt" in rest else "mbr")
    assert (recipe.root.KIND, "cloud" in rest) == ("tree", "cloud-init" in getattr(recipe.root, "over", ()))


def test_values_that_exclude_all_others_are_left_out() -> None:
    """A value that goes with nothing gives no pair, and no row."""
    values = {"a": ("1", "2"), "b": ("x", "y"), "c": ("p",)}
    space = pairwise.Parameters(values, lambda name, value, other, second: (name, value) == ("a", "2"))
    assert space.covering() == [{"a": "1", "b": "x", "c": "p"}, {"a": "1", "b": "y", "c": "p"}]


def test_what_can_only_be_completed_by_going_back_is() -> None:
    """The first value that fits may leave none for the next parameter."""

    def excludes(name: str, value: str, other: str, second: str) -> bool:
        return (name, value) == ("b", "x") and other == "c"

    space = pairwise.Parameters({"a": ("1",), "b": ("x", "y"), "c": ("p", "q")}, excludes)
    assert [row["b"] for row in space.covering()] == ["y", "y"]
