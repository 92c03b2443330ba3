"""The helper's own ``dataclasses`` does what the standard library's does, for all that the helper defines."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from snf_image_contract.job import AssignHostname, Job, JobDisk, dump_job
from snf_image_helper import plain_dataclasses
from snf_image_process import run

REPOSITORY = Path(__file__).resolve().parents[2]


def make(module: Any, *, kw_only: bool) -> Any:
    @module.dataclass(frozen=True, slots=True, kw_only=kw_only)
    class Point:
        """A place."""

        KIND: ClassVar[str] = "point"
        x: int
        y: int = 2
        names: tuple[str, ...] = ()
        made: list[int] = module.field(default_factory=list)

        def total(self) -> int:
            return self.x + self.y

    return Point


BOTH = [pytest.param(dataclasses, id="standard"), pytest.param(plain_dataclasses, id="ours")]


@pytest.mark.parametrize("module", BOTH)
@pytest.mark.parametrize("kw_only", [True, False])
def test_what_a_frozen_dataclass_is(module: Any, kw_only: bool) -> None:
    point_class = make(module, kw_only=kw_only)
    point = point_class(x=1)
    assert (point.x, point.y, point.names, point.KIND, point.total()) == (1, 2, (), "point", 3)
    assert point == point_class(x=1)
    assert point != point_class(x=2)
    assert point != make(module, kw_only=kw_only)(x=1), "another class of the same name"
    assert repr(point).endswith("Point(x=1, y=2, names=(), made=[])")
    assert point.made is not point_class(x=1).made
    assert module.is_dataclass(point)
    assert module.is_dataclass(point_class)
    assert not module.is_dataclass(1)
    assert [field.name for field in module.fields(point)] == ["x", "y", "names", "made"]
    assert module.fields(point_class)[1].default == 2
    assert module.fields(point_class)[0].default is module.MISSING
    assert module.fields(point_class)[3].default_factory is list
    assert module.replace(point, y=5) == point_class(x=1, y=5)
    assert point_class.__slots__ == ("x", "y", "names", "made")
    assert not hasattr(point, "__dict__")
    assert point_class.__doc__ == "A place."
    assert point_class.__match_args__ == (() if kw_only else ("x", "y", "names", "made"))
    assert point_class.__qualname__ == "make.<locals>.Point"


@pytest.mark.parametrize("module", BOTH)
def test_nothing_of_it_can_be_changed(module: Any) -> None:
    point = make(module, kw_only=True)(x=1)
    with pytest.raises(module.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises(module.FrozenInstanceError, match="cannot delete field 'y'"):
        del point.y
    assert (point.x, point.y) == (1, 2)


@pytest.mark.parametrize("module", BOTH)
@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1,), {"x": 1}), ((1, 2, (), [], 5), {}), ((1,), {"unknown": 1})],
    ids=["missing", "twice", "too-many", "unknown"],
)
def test_wrong_arguments_are_refused(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        make(module, kw_only=False)(*given, **named)
    with pytest.raises(TypeError):
        make(module, kw_only=True)(1)


@pytest.mark.parametrize("module", BOTH)
def test_equal_values_have_equal_hashes(module: Any) -> None:
    @module.dataclass(frozen=True, slots=True)
    class Key:
        a: int
        b: str = "b"

    key: Any = Key  # the decorator is chosen at run time
    assert hash(key(1)) == hash(key(1, "b"))
    assert len({key(1), key(1), key(2)}) == 2


@pytest.mark.parametrize("module", BOTH)
def test_a_subclass_has_the_fields_of_its_base_first(module: Any) -> None:
    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        a: int

    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Derived(Base):
        b: int = 1

    assert [field.name for field in module.fields(Derived)] == ["a", "b"]
    derived: Any = Derived  # the decorator is chosen at run time
    assert repr(derived(a=0)).endswith("Derived(a=0, b=1)")
    assert derived.__slots__ == ("b",)


def test_what_it_does_not_know_is_refused_where_it_is_defined() -> None:
    with pytest.raises(TypeError, match="frozen"):
        plain_dataclasses.dataclass(frozen=False, slots=True)

    class WithHook:
        def __post_init__(self) -> None:
            """Never called."""

    with pytest.raises(TypeError, match="__post_init__"):
        plain_dataclasses.dataclass(frozen=True, slots=True)(WithHook)


_EVERY_MODULE = """
import importlib, json, pkgutil, sys
from snf_image_helper import start
start.replace_slow_modules()
import snf_image_helper.init, snf_image_helper.runner, snf_image_helper.linux.family
slow = {"base64", "crypt", "hashlib", "inspect", "secrets", "string", "subprocess", "tempfile", "threading"}
slow |= {"yaml"}
later = "bsd", "custom_task", "filesystem_resize", "mounts", "ntfs", "overwriting", "slices", "ufs.writing"
slow |= {f"snf_image_helper.{name}" for name in later}
print(sorted(slow & set(sys.modules)))
import snf_image_contract, snf_image_helper, snf_image_process
for package in (snf_image_contract, snf_image_helper, snf_image_process):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "tests" not in found.name and found.name not in ("hivex", "parted"):
            try:
                importlib.import_module(found.name)
            except ModuleNotFoundError as error:
                if error.name not in ("hivex", "parted", "_ped"):
                    raise
print([name for name in ("platform", "uuid") if name in sys.modules])
from snf_image_contract.job import load_job, dump_job
text = sys.stdin.buffer.read()
assert dump_job(load_job(text)) == text, "a job does not survive"
"""


def test_every_class_of_the_helper_can_be_defined_so_and_a_job_survives() -> None:
    """Each module is imported as in the helper; a job decoded and encoded again is the same to the byte."""
    job = dump_job(
        Job(
            instance="web1",
            clock=1.5,
            disks=(JobDisk(index=0),),
            assign_hostname=AssignHostname(name="web2"),
        )
    )
    folders = [REPOSITORY / part for part in ("contract", "process", "helper")]
    path = os.pathsep.join(map(str, [*folders, Path(yaml.__file__).parents[1]]))
    done = run(
        [sys.executable, "-B", "-S", "-P", "-c", _EVERY_MODULE],
        timeout=60,
        stdin=job,
        env={"PYTHONPATH": path},
    )
    at_start, ever = done.stdout.splitlines()
    assert at_start == b"[]", "what costs a tenth of a second each is imported at the start"
    assert ever == b"[]", "what costs as much, for so little that the helper has its own, is imported"
