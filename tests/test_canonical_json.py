"""Digests are taken over one form of JSON, whose bytes stay what they were."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.canonical_json import canonical_json

SOURCES = Path(__file__).parents[1] / "registry" / "loreg"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_keys_are_sorted_and_nothing_is_between_them() -> None:
    document = {"b": [1, 2.5, None, True], "a": {"z": "é", "y": 'a"b'}}
    assert canonical_json(document) == b'{"a":{"y":"a\\"b","z":"\\u00e9"},"b":[1,2.5,null,true]}'
    assert canonical_json(document, ascii_only=False) == b'{"a":{"y":"a\\"b","z":"\xc3\xa9"},"b":[1,2.5,null,true]}'


@given(VALUES)
def test_nothing_is_lost(document: object) -> None:
    assert json.loads(canonical_json(document)) == document


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_the_keys_does_not_matter(document: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(document.items()))) == canonical_json(document)


def test_what_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"a": {1, 2}})


def test_nobody_else_writes_it() -> None:
    """But a bake compares its own plan with that of the same release, and shows it to nobody."""
    writers = {
        path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py") if "sort_keys=True" in path.read_text()
    }
    assert writers == {"canonical_json.py", "baking/bake.py", "baking/plan.py"}
