"""One tensor has one name, whichever release or wrapper wrote it."""

from __future__ import annotations

import pytest

from loreg.bases import names


@pytest.mark.parametrize(
    "spellings",
    [
        # transformers before 4.52, since 4.52, and the language model alone
        (
            "language_model.model.layers.0.self_attn.q_proj.weight",
            "model.language_model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
        ),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("visual.blocks.0.attn.qkv.weight", "model.visual.blocks.0.attn.qkv.weight"),
        ("vision_tower.encoder.layers.0.fc1.bias", "model.vision_tower.encoder.layers.0.fc1.bias"),
        ("multi_modal_projector.linear_1.weight", "model.multi_modal_projector.linear_1.weight"),
        # TensorFlow's words in old BERT checkpoints
        ("bert.encoder.layer.0.output.LayerNorm.gamma", "bert.encoder.layer.0.output.LayerNorm.weight"),
        ("bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        # torch 2's parametrizations
        ("conv.weight_g", "conv.parametrizations.weight.original0"),
        ("conv.weight_v", "conv.parametrizations.weight.original1"),
    ],
)
def test_every_spelling_is_one_name(spellings: tuple[str, ...]):
    assert len({names.canonical(name) for name in spellings}) == 1


def test_a_canonical_name_stays():
    for name in (
        "model.layers.0.mlp.up_proj.weight",
        "model.embed_tokens.weight",
        "transformer.h.0.attn.c_attn.weight",
    ):
        assert names.canonical(name) == name


def test_two_tensors_are_never_taken_for_one():
    both = {"language_model.model.norm.weight": 1, "model.norm.weight": 2, "lm_head.weight": 3}
    assert names.by_canonical_name(both) == both


def test_an_adapter_finds_its_tensor_under_the_name_of_another_class():
    query = "encoder.layer.0.attention.self.query.weight"
    alone = names.Index([query, "embeddings.word_embeddings.weight"])
    assert alone.find(f"bert.{query}") == query
    wrapped = names.Index([f"bert.{query}", "bert.embeddings.word_embeddings.weight"])
    assert wrapped.find(query) == f"bert.{query}"
    assert wrapped.find(query.removeprefix("encoder.")) is None


def test_a_head_that_is_not_there_is_the_embedding_it_is_tied_to():
    assert names.Index(["model.embed_tokens.weight"]).find("lm_head.weight") == "model.embed_tokens.weight"
    untied = names.Index(["model.embed_tokens.weight", "lm_head.weight"])
    assert untied.find("lm_head.weight") == "lm_head.weight"


def test_a_name_that_could_be_two_tensors_is_neither():
    assert names.Index(["text.q.weight", "vision.q.weight"]).find("q.weight") is None
