"""Classes whose methods are written late behave as those that ``dataclasses`` writes at once."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from loreg.lazy_dataclasses import dataclass

T = TypeVar("T")


def define(decorator: Any) -> dict[str, Any]:
    """Return the same classes, made by one decorator or the other."""

    @decorator(frozen=True)
    class Point:
        """A point."""

        x: int
        y: int = 0
        labels: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

        @property
        def total(self) -> int:
            return self.x + self.y

    @decorator(frozen=True)
    class Solid(Point):
        """A point with a height."""

        z: int = 0

        def __post_init__(self) -> None:
            if self.z < 0:
                raise ValueError("below ground")

        def __str__(self) -> str:
            return f"{super().__str__()} up {self.z}"

    @decorator(frozen=True)
    class Box(Generic[T]):
        """A box that is equal to every other."""

        items: tuple[T, ...]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Box)

        def __hash__(self) -> int:
            return 7

    return {"Point": Point, "Solid": Solid, "Box": Box}


@pytest.fixture
def late() -> dict[str, Any]:
    return define(dataclass)


AT_ONCE = define(dataclasses.dataclass)
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("Point", (1,)), ("Point", (1, 2, {"a": "b"})), ("Solid", (1, 2, {}, 3)), ("Box", ((1, 2),)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), CALLS)
def test_a_value_prints_compares_and_hashes_like_that_of_dataclasses(
    late: dict[str, Any], name: str, values: tuple[Any, ...]
) -> None:
    one, twin, other = late[name](*values), late[name](*values), AT_ONCE[name](*values)
    assert (repr(one), str(one), hash(one)) == (repr(other), str(other), hash(other))
    assert one == twin and one is not twin
    assert dataclasses.asdict(one) == dataclasses.asdict(other)
    assert copy.copy(one) == one
    assert msgspec.json.encode(one) == msgspec.json.encode(other)
    assert msgspec.json.decode(msgspec.json.encode(one), type=late[name]) == one


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_class_is_inspected_like_that_of_dataclasses_before_it_is_used(late: dict[str, Any], name: str) -> None:
    assert str(inspect.signature(late[name])) == str(inspect.signature(AT_ONCE[name]))
    assert late[name].__match_args__ == AT_ONCE[name].__match_args__
    assert str(late[name].__dataclass_params__) == str(AT_ONCE[name].__dataclass_params__)
    assert late[name].__doc__ == AT_ONCE[name].__doc__
    assert {key for key in vars(AT_ONCE[name]) if key != "__dict__"} == {k for k in vars(late[name]) if k != "__dict__"}


@pytest.mark.parametrize("attribute", ["x", "labels", "invented"])
def test_a_value_refuses_changes(late: dict[str, Any], attribute: str) -> None:
    for point in (late["Point"](1), AT_ONCE["Point"](1)):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{attribute}'"):
            setattr(point, attribute, 2)
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot delete field '{attribute}'"):
            delattr(point, attribute)


def test_values_are_replaced_and_the_rest_of_a_class_stays(late: dict[str, Any]) -> None:
    assert dataclasses.replace(late["Solid"](1, z=2), y=5) == late["Solid"](1, 5, z=2)
    assert late["Point"](1, 2).total == 3
    with pytest.raises(ValueError, match="below ground"):
        late["Solid"](1, z=-1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        late["Point"]()
    assert late["Point"](1).labels is not late["Point"](1).labels


def test_a_class_that_is_written_early_may_stand_on_one_that_is_written_late(late: dict[str, Any]) -> None:
    @dataclasses.dataclass(frozen=True)
    class Named(late["Point"]):  # type: ignore[misc]
        name: str = ""

    assert Named(1, 2, name="a") == Named(1, 2, name="a")
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "y", "labels", "name"]


def test_an_unpickled_value_is_compared_in_a_process_that_has_made_none() -> None:
    program = (
        "import pickle, sys; from loreg.entities import Orphan; values = pickle.load(sys.stdin.buffer);"
        "assert values[0] == values[1] and len(set(values)) == 2, values; print(values[0])"
    )
    from loreg.entities import Orphan

    values = [Orphan("a", 1), Orphan("a", 1), Orphan("b", 2)]
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(values), capture_output=True)
    assert (done.stdout.decode().strip(), done.stderr) == (repr(values[0]), b"")


def test_threads_may_use_a_class_for_the_first_time_together() -> None:
    for _ in range(50):
        point, start, made = define(dataclass)["Point"], threading.Barrier(8), []

        def make(point: Any = point, start: threading.Barrier = start, made: list[Any] = made) -> None:
            start.wait()
            made.append(point(1, labels={"a": "b"}))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [point(1)] * 8


def test_only_frozen_classes_are_written_late() -> None:
    with pytest.raises(TypeError, match="only frozen"):
        dataclass(frozen=False)
