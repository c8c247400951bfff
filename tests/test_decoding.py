"""What does not fit a type is told in one line: where, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from loreg.decoding import decode


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    name: str
    colour: Colour = Colour.RED


class Thing(msgspec.Struct, forbid_unknown_fields=True, rename={"condition": "if"}):
    condition: str
    size: Annotated[int, Meta(ge=1)] = 1
    share: float | None = None
    parts: list[Item] = []
    words: tuple[str, ...] = ()
    table: Mapping[str, list[float]] = {}
    by_name: Mapping[str, Item] = {}
    kind: Literal["a/1"] = "a/1"
    code: Annotated[str, Meta(pattern="^[a-f]+$")] = "a"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": "x"}, "size is 'x', expected a whole number"),
        ({"size": True}, "size is True, expected a whole number"),
        ({"size": 0}, "size is 0, expected a whole number >= 1"),
        ({"share": "x"}, "share is 'x', expected a number"),
        ({"words": ["a", 1]}, "words is ['a', 1], expected a list of texts"),
        ({"words": "a"}, "words is 'a', expected a list"),
        ({"table": {"q": 1}}, "table is {'q': 1}, expected an object of lists"),
        ({"table": {"q": ["x"]}}, "table is {'q': ['x']}, expected an object of lists of numbers"),
        ({"parts": [{"name": "a"}, {}]}, "parts[1] lacks 'name'"),
        ({"parts": [{"name": 1}]}, "parts[0].name is 1, expected text"),
        ({"parts": [{"name": "a", "colour": "odd"}]}, "parts[0].colour is 'odd', expected red or blue"),
        ({"by_name": {"x": {"name": 1}}}, "name of one of by_name is int, expected text"),
        ({"kind": "a/2"}, "kind is 'a/2', expected 'a/1'"),
        ({"code": "xyz"}, "code is 'xyz', expected text matching '^[a-f]+$'"),
        ({"colour": 1}, "colour is not known; there are by_name, code, if, kind, parts, share, size, table, words"),
    ],
)
def test_a_value_that_does_not_fit_is_named(fields: dict[str, object], message: str):
    with pytest.raises(ValueError) as error:
        decode({"if": "x", **fields}, Thing)
    assert str(error.value) == message


def test_what_is_no_object_at_all():
    with pytest.raises(ValueError, match=r"^it is \[\], expected an object$"):
        decode([], Thing)
    with pytest.raises(ValueError, match=r"^it lacks 'if'$"):
        decode({}, Thing)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["if", "size", "parts", "words", "table", "by_name", "kind", "x`"]), JSON))
def test_whatever_was_written_is_decoded_or_refused_in_one_short_line(document: dict[str, object]):
    try:
        thing = decode(document, Thing)
    except ValueError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        assert "`" not in str(error).replace("x`", "") or "`" in repr(document)
    else:
        assert thing.condition == document["if"]
