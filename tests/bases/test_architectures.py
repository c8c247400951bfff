"""The committed table of architectures against the release of transformers that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import torch
import transformers

from loreg.bases import names
from loreg.bases.architecture import get_architecture

ROOT = Path(__file__).parents[2]
TABLE = msgspec.json.decode((ROOT / "registry" / "loreg" / "bases" / "architectures.json").read_bytes())
#: Of every kind: what ties, what is renamed, what lies transposed, what is inside another model.
CLASSES = (
    "BartForConditionalGeneration", "BertForMaskedLM", "Blip2ForConditionalGeneration", "GPT2LMHeadModel",
    "GPTNeoXForCausalLM", "GptOssForCausalLM", "LlavaForConditionalGeneration", "MambaForCausalLM",
    "MixtralForCausalLM", "NomicBertModel", "Qwen2VLForConditionalGeneration", "T5ForConditionalGeneration",
    "ViTForImageClassification",
)  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that makes the table."""
    spec = importlib.util.spec_from_file_location("architectures", ROOT / "tools" / "architectures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_row(name: str) -> dict[str, Any]:
    """The committed row, with its renames in place."""
    row = dict(TABLE["classes"][name])
    return row | {"renames": TABLE["renames"][row["renames"]]}


def make_row(generator: ModuleType, name: str) -> dict[str, Any]:
    rules: list[Any] = []
    row = generator.describe(name, rules)
    return row | {"renames": rules[row["renames"]]}


def test_the_table_is_of_the_release_that_the_tests_run_with():
    assert TABLE["transformers"] == transformers.__version__, "run tools/architectures.py"


@pytest.mark.parametrize("name", CLASSES)
def test_the_table_says_what_the_installed_release_says(generator: ModuleType, name: str):
    assert find_row(name) == msgspec.json.decode(msgspec.json.encode(make_row(generator, name)))


@pytest.mark.slow
def test_every_row_is_what_the_installed_release_says(generator: ModuleType):
    wrong = [
        name for name in sorted(TABLE["classes"])
        if find_row(name) != msgspec.json.decode(msgspec.json.encode(make_row(generator, name)))
    ]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("name", ["BartForConditionalGeneration", "BertForMaskedLM", "GPT2LMHeadModel"])
def test_what_the_table_ties_is_one_tensor_in_the_model(generator: ModuleType, name: str):
    """By the model itself: weights that share their storage are those of a group, and no others."""
    with torch.device("cpu"):
        config = getattr(transformers, name).config_class(tie_word_embeddings=True)
        generator.shorten(config)
        model = getattr(transformers, name)(config)
    shared: dict[int, set[str]] = {}
    for weight, parameter in model.named_parameters(remove_duplicate=False):
        shared.setdefault(parameter.data_ptr(), set()).add(weight)
    expected = {frozenset(group) for group in shared.values() if len(group) > 1}
    (tie,) = get_architecture(name).active_ties({"tie_word_embeddings": True})
    assert set(tie.groups) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_a_weight_that_is_called_as_in_memory_keeps_its_name(generator: ModuleType, name: str):
    """Else an adapter's name, which is one in memory, would be taken for another."""
    architecture = get_architecture(name)
    for weight in generator.make(name).state_dict():
        parts = list(architecture.weights_in_file(weight))
        assert names.canonical_name(weight) in {names.canonical_name(part.weight) for part in parts}
