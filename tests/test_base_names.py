"""What may be shown of the path of a base, and which names mean one base."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.base_names import is_hub_name, names_base, public_base_name, spellings


@pytest.mark.parametrize(
    ("declared", "public"),
    [
        ("org/model", "org/model"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("", ""),
        ("/home/ada/secret/llama", "llama"),
        ("/home/ada/secret/llama/", "llama"),
        ("~/llama", "llama"),
        ("~ada", ""),
        ("./llama", "llama"),
        ("../..", ""),
        ("/", ""),
        ("C:\\Users\\ada\\llama", "llama"),
        ("C:\\", ""),
        ("\\\\server\\share\\llama", "llama"),
        ("/mnt/a model (mine)", "a model (mine)"),
        ("s3://bucket/private/llama", "llama"),
        ("/root/.cache/huggingface/hub/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f", "meta-llama/Llama-3.1-8B"),
        ("/data/models--gpt2/snapshots/11c5a3d", "gpt2"),
        ("/data/models--/../x", "x"),
    ],
)
def test_of_a_path_everybody_sees_the_last_part(declared: str, public: str):
    assert public_base_name(declared) == public


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6), st.sampled_from("/\\"))
def test_no_folder_above_the_last_is_ever_shown(parts: list[str], separator: str):
    path = separator.join(["", *parts])
    public = public_base_name(path)
    assert is_hub_name(path) or not {"/", "\\"} & set(public) or any("models--" in part for part in parts)
    assert public in path or "models--" in path


@pytest.mark.parametrize(
    ("declared", "names", "expected"),
    [
        ("org/Model", ["org/model"], True),
        ("model-7b", ["org/model-7b"], True),
        ("org/model-7b", ["model-7b"], True),
        ("org/model-7b", ["org/model-7b@main"], True),
        ("other/model-7b", ["org/model-7b"], False),
        ("model-7b-chat", ["org/model-7b"], False),
        ("model", ["model"], False),
        ("org/model", ["model"], False),
        ("org/checkpoint-100", ["checkpoint-100", "other"], False),
        ("checkpoint-100", ["checkpoint-100"], False),
        ("0e9e39f249a16976918f6564b8830bc894c89659", ["0e9e39f249a16976918f6564b8830bc894c89659"], False),
        ("org/model", ["org/model"], True),
        ("", [""], False),
        ("x", [], False),
    ],
)
def test_which_declared_names_mean_a_base(declared: str, names: list[str], expected: bool):
    assert names_base(declared, names) == expected


_NAMES = (
    *("org/m7b", "m7b", "Org/M7B", "other/m7b", "m7b@main", "org/m7b@main", "a/b/m7b", "/x/m7b", "C:\\m7b"),
    *("model", "org/model", "Org/Model@main", "/x/model", "checkpoint-1", "org/checkpoint-1", "", "@main", "a/b/c"),
)


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("declared", _NAMES)
def test_the_database_looks_for_all_that_may_mean_it(declared: str, name: str):
    whole, ends = spellings([name])
    stored = public_base_name(declared).lower()
    if names_base(stored, [name]):
        assert stored in whole or stored.endswith(tuple(ends))
