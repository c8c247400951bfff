"""Adapters get short names that can be typed, each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.refs import parse_adapter_name
from loreg.runs.names import name_adapters


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([("lr-1e-4",), ("lr-2e-4",)], ["lr-1e-4", "lr-2e-4"]),
        ([("exp1", "outputs"), ("exp2", "outputs")], ["exp1", "exp2"]),
        ([("outputs",)], ["outputs"]),
        ([("a", "lora"), ("a", "model")], ["a-lora", "a-model"]),
        ([("my run (2)",), ("my run (3)",)], ["my-run-2", "my-run-3"]),
        ([("a b",), ("a-b",)], ["a-b", "a-b-2"]),
        ([("日本",)], ["adapter"]),
    ],
)
def test_names_say_what_folders_say(paths: list[tuple[str, ...]], names: list[str]):
    assert name_adapters(paths) == names


folders = st.text(st.characters(exclude_characters="/\x00"), min_size=1, max_size=120)


@given(st.lists(st.lists(folders, min_size=1, max_size=4).map(tuple), min_size=1, max_size=12, unique=True))
def test_whatever_folders_are_called_the_names_can_be_typed_and_differ(paths: list[tuple[str, ...]]):
    names = name_adapters(paths)
    assert len(set(names)) == len(paths)
    for name in names:
        assert str(parse_adapter_name(name)) == name
