"""Values: as the dataclasses of the same fields, for Python and for pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from loreg.value import Value

T = TypeVar("T")


class Item(Value, frozen=True):
    """An item."""

    name: str
    weight: float = 1.0


class Whole(Value, Generic[T], frozen=True):
    """What has items."""

    items: tuple[T, ...]
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    first: T | None = None


@dataclass(frozen=True)
class ItemTwin:
    """An item."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class WholeTwin(Generic[T]):
    """What has items."""

    items: tuple[T, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    first: T | None = None


DOCUMENTS: list[Any] = [
    {"items": [{"name": "a"}, {"name": "b", "weight": "2"}], "first": {"name": "c"}, "unknown": 1},
    {"items": [{"weight": "x"}, 3], "labels": {"a": 1}},
    {},
    [],
]


def schema(type_: Any) -> Any:
    text = msgspec.json.encode(TypeAdapter(type_).json_schema()).decode()
    return msgspec.json.decode(text.replace("Twin", ""))


def test_pydantic_describes_a_value_as_the_dataclass():
    assert schema(Item) == schema(ItemTwin)
    assert schema(Whole[Item]) == schema(WholeTwin[ItemTwin])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_pydantic_checks_a_value_as_the_dataclass(document: Any):
    def outcome(type_: Any) -> str:
        try:
            return repr(TypeAdapter(type_).validate_python(document))
        except ValidationError as error:
            return repr(error.errors())

    assert outcome(Whole[Item]) == outcome(WholeTwin[ItemTwin]).replace("Twin", "")


@pytest.mark.parametrize("value", [Item("a", 2.0), Whole((Item("a"),), {"b": "c"}), Whole((), {}, Item("d"))])
def test_pydantic_takes_and_writes_a_value(value: Any):
    type_ = Item if isinstance(value, Item) else Whole[Item]
    adapter = TypeAdapter(type_)
    assert adapter.validate_python(value) is value
    assert adapter.validate_json(adapter.dump_json(value)) == value
    assert adapter.dump_python(value) == TypeAdapter(twin(type_)).dump_python(as_twin(value))


def twin(type_: Any) -> Any:
    return ItemTwin if type_ is Item else WholeTwin[ItemTwin]


def as_twin(value: Any) -> Any:
    """The dataclass with the fields of a value, and of those in it."""
    if isinstance(value, Item):
        return ItemTwin(value.name, value.weight)
    if isinstance(value, Whole):
        return WholeTwin(tuple(map(as_twin, value.items)), value.labels, as_twin(value.first))
    return value


def test_values_of_the_same_fields_are_one():
    assert Item("a") == Item("a", 1.0) != Item("a", 2.0)
    assert Item("a") != ItemTwin("a")
    assert len({Item("a"), Item("a", 1.0), Item("b")}) == 2
    assert repr(Item("a")) == "Item(name='a', weight=1.0)"
    with pytest.raises(AttributeError):
        Item("a").name = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(Whole((), {"a": "b"}))
