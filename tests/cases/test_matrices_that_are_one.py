"""Embeddings and heads, tied or not, with LoRA or whole, the vocabulary grown: peft#2018, transformers#45127."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor
from transformers import BioGptConfig, BioGptForCausalLM, OPTConfig, OPTForCausalLM

from cases.building import (
    VOCABULARY,
    agree,
    answers,
    codes,
    llama,
    mamba,
    of_adapter,
    of_baked,
    save,
    trained,
)
from loreg.adapters.structure import read_structure
from loreg.entities import MergeOptions
from loreg.registry import Registry

LORA = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "tied on purpose": {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "ensure_weight_tying": True},
}
WHOLE = {
    "apart": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tied on purpose": {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "the embedding": {"modules_to_save": ["embed_tokens"]},
    "the head": {"modules_to_save": ["lm_head"]},
}
MAMBA = {
    "head": {"target_modules": ["x_proj", "in_proj", "lm_head"]},
    "embedding": {"target_modules": ["x_proj", "in_proj", "embeddings"]},
    "the head whole": {"target_modules": ["x_proj"], "modules_to_save": ["lm_head"]},
    "the embedding whole": {"target_modules": ["x_proj"], "modules_to_save": ["embeddings"]},
    "both whole": {"target_modules": ["x_proj"], "modules_to_save": ["embeddings", "lm_head"]},
}
GROWN = 103


def grown(tied: bool = True):
    model = llama(tied)
    model.resize_token_embeddings(GROWN, mean_resizing=False)
    return model


@pytest.mark.parametrize("name", LORA)
@pytest.mark.parametrize("tied", [True, False])
def test_lora_on_them_bakes_to_what_was_trained(
    local_registry: Registry, tmp_path: Path, base: Path, tied_base: Path, name: str, tied: bool
):
    peft = trained(llama(tied), **LORA[name])
    local_registry.bake(
        [str(save(peft, tmp_path / "a"))], base=str(tied_base if tied else base), folder=tmp_path / "baked"
    )
    agree(of_baked(tmp_path / "baked"), answers(peft))


@pytest.mark.parametrize("tied", [True, False])
def test_what_peft_saves_beside_lora_on_the_head_does_no_harm(
    local_registry: Registry, tmp_path: Path, base: Path, tied_base: Path, tied: bool
):
    """The head's own weight lies beside its factors, and the embedding (peft#2092)."""
    peft = trained(llama(tied), ["q_proj", "lm_head"])
    folder = save(peft, tmp_path / "a", save_embedding_layers=True)
    assert codes(local_registry, folder) == []
    local_registry.bake([str(folder)], base=str(tied_base if tied else base), folder=tmp_path / "baked")
    agree(of_baked(tmp_path / "baked"), answers(peft))


def test_two_such_adapters_merge_to_the_sum_of_their_deltas(local_registry: Registry, tmp_path: Path):
    peft = [trained(llama(), ["q_proj", "lm_head"], size, lora_alpha=alpha) for size, alpha in ((0.05, 8), (0.1, 16))]
    sources = [str(save(model, tmp_path / f"{i}", save_embedding_layers=True)) for i, model in enumerate(peft)]
    local_registry.merge(sources, MergeOptions(weights=[0.6, -0.4]), folder=tmp_path / "merged")
    expected = llama()
    for model, weight in zip(peft, (0.6, -0.4), strict=True):
        for name, layer in model.base_model.model.named_modules():
            if isinstance(layer, LoraLayer):
                expected.get_submodule(name).weight.data += weight * layer.get_delta_weight("default")
    agree(of_adapter(llama(), tmp_path / "merged"), answers(expected))


@pytest.mark.parametrize("name", WHOLE)
def test_of_a_vocabulary_that_grew_what_was_trained_is_read(local_registry: Registry, tmp_path: Path, name: str):
    peft = trained(grown(), ["q_proj"], **WHOLE[name])
    folder = save(peft, tmp_path / "a", save_embedding_layers=True)
    structure = read_structure(folder)
    assert {name.rpartition("base_model.model.")[2] for name in structure.full_tensors} == {
        "lm_head.weight", "model.embed_tokens.weight",
    }  # fmt: skip
    assert codes(local_registry, folder) == ["LR021"]
    copies = [name for name in structure.tensors if ".original_module." in name or ".modules_to_save." in name]
    assert sorted(structure.naming.dropped) == sorted(copies)


@pytest.mark.parametrize("name", WHOLE)
def test_of_a_vocabulary_that_grew_what_was_trained_is_baked(
    local_registry: Registry, tmp_path: Path, tied_base: Path, name: str
):
    peft = trained(grown(), ["q_proj"], **WHOLE[name])
    folder = save(peft, tmp_path / "a", save_embedding_layers=True)
    local_registry.bake([str(folder)], base=str(tied_base), folder=tmp_path / "baked")
    agree(of_baked(tmp_path / "baked", GROWN), answers(peft, GROWN))


@pytest.mark.parametrize("name", MAMBA)
def test_mamba_whose_head_is_its_embedding(local_registry: Registry, tmp_path: Path, name: str):
    peft = trained(mamba(), **MAMBA[name])
    base = save(mamba(), tmp_path / "base")
    folder = save(peft, tmp_path / "a")
    assert not {"LB001", "LB002"} & set(codes(local_registry, folder, base=str(base)))
    local_registry.bake([str(folder)], base=str(base), folder=tmp_path / "baked")
    agree(of_baked(tmp_path / "baked"), answers(peft))


def opt() -> OPTForCausalLM:
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return OPTForCausalLM(OPTConfig(vocab_size=VOCABULARY, word_embed_proj_dim=32, **sizes))


def biogpt() -> BioGptForCausalLM:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BioGptForCausalLM(BioGptConfig(vocab_size=VOCABULARY, **sizes))


@pytest.mark.parametrize("make", [opt, biogpt, partial(llama, tied=True)])
def test_what_peft_ties_by_itself_needs_no_name_in_target_modules(local_registry: Registry, tmp_path: Path, make: Any):
    """Whatever the head is called: lm_head, output_projection."""
    peft = trained(make(), ["embed_tokens", "q_proj"], ensure_weight_tying=True)
    assert codes(local_registry, save(peft, tmp_path / "a")) == []


def test_the_models_here_answer_something() -> None:
    """That two models agree says nothing if both say the same to everything."""
    logits: list[Tensor] = [answers(model) for model in (llama(), llama(tied=True), mamba())]
    assert all(
        float(model_logits.std()) > 0.01 and model_logits.shape == (1, VOCABULARY, VOCABULARY)
        for model_logits in logits
    )
    assert not torch.equal(logits[0], logits[1])
