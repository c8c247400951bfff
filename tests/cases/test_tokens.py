"""Rows for single tokens (``trainable_token_indices``): read, baked into the matrix, never blended unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cases.building import PREFIX, WEIGHTS, agree, answers, codes, llama, of_adapter, of_baked, save, trained
from loreg.adapters.keys import weight_of_full_tensor
from loreg.adapters.structure import read_structure
from loreg.entities import MergeOptions
from loreg.errors import MergeError
from loreg.registry import Registry

CASES: dict[str, tuple[bool, Any, dict[str, tuple[int, ...]]]] = {
    "one list": (False, [1, 2, 90], {"model.embed_tokens": (1, 2, 90)}),
    "in any order": (False, [90, 2, 1], {"model.embed_tokens": (90, 2, 1)}),
    "of both": (False, {"embed_tokens": [3, 4], "lm_head": [5]}, {"model.embed_tokens": (3, 4), "lm_head": (5,)}),
    "of a tied pair": (True, [1, 2, 90], {"model.embed_tokens": (1, 2, 90)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_are_read_with_the_tokens_that_they_are_of(local_registry: Registry, tmp_path: Path, name: str):
    tied, indices, expected = CASES[name]
    folder = save(trained(llama(tied), trainable_token_indices=indices, target_modules=["q_proj"]), tmp_path / "a")
    structure = read_structure(folder)
    assert {module: tokens.indices for module, tokens in structure.token_rows.items()} == expected
    assert all(tokens.tensor.shape == (len(tokens.indices), 32) for tokens in structure.token_rows.values())
    assert structure.full_tensors == {}
    assert codes(local_registry, folder) == []


@pytest.mark.parametrize("name", CASES)
def test_are_baked_as_peft_applies_them(
    local_registry: Registry, tmp_path: Path, base: Path, tied_base: Path, name: str
):
    tied, indices, _ = CASES[name]
    peft = trained(llama(tied), trainable_token_indices=indices, target_modules=["q_proj"], size=0.3)
    folder = save(peft, tmp_path / "a")
    local_registry.bake([str(folder)], base=str(tied_base if tied else base), folder=tmp_path / "baked")
    agree(of_baked(tmp_path / "baked"), answers(peft))


@pytest.mark.parametrize("name", CASES)
def test_are_exported_as_they_are(local_registry: Registry, tmp_path: Path, name: str):
    tied, indices, _ = CASES[name]
    peft = trained(llama(tied), trainable_token_indices=indices, target_modules=["q_proj"], size=0.3)
    folder = save(peft, tmp_path / "a")
    local_registry.export(str(folder), "peft", tmp_path / "new")
    assert load_file(folder / WEIGHTS).keys() == load_file(tmp_path / "new" / WEIGHTS).keys()
    agree(of_adapter(llama(tied), tmp_path / "new"), answers(peft))


def test_of_two_adapters_that_overlap_are_not_blended(local_registry: Registry, tmp_path: Path):
    sources = [
        str(save(trained(llama(), trainable_token_indices=indices, target_modules=["q_proj"]), tmp_path / name))
        for name, indices in (("a", [1, 2, 90]), ("b", [2, 90, 91]))
    ]
    with pytest.raises(MergeError, match="token"):
        local_registry.merge(sources, MergeOptions(weights=[0.5, 0.5]), folder=tmp_path / "merged")


def test_that_are_not_as_many_as_the_tokens_are_refused(local_registry: Registry, tmp_path: Path):
    folder = save(trained(llama(), trainable_token_indices=[1, 2]), tmp_path / "a")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trainable_token_indices": [1, 2, 3]}))
    assert codes(local_registry, folder) == ["LR023"]


def test_a_vocabulary_that_grew_beside_them_is_read_by_its_name(tmp_path: Path):
    model = llama()
    model.resize_token_embeddings(103, mean_resizing=False)
    peft = trained(model, trainable_token_indices=[97, 98])
    structure = read_structure(save(peft, tmp_path / "a", save_embedding_layers=True))
    assert structure.token_rows["model.embed_tokens"].indices == (97, 98)
    shapes = {weight_of_full_tensor(name): tensor.shape for name, tensor in structure.full_tensors.items()}
    assert shapes == {"model.embed_tokens.weight": (103, 32), "lm_head.weight": (103, 32)}
    assert f"{PREFIX}lm_head.weight" in structure.full_tensors
