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
    assert len({names.canonical_name(name) for name in spellings}) == 1


def test_a_canonical_name_stays():
    for name in (
        "model.layers.0.mlp.up_proj.weight",
        "model.embed_tokens.weight",
        "transformer.h.0.attn.c_attn.weight",
    ):
        assert names.canonical_name(name) == name


def test_two_tensors_are_never_taken_for_one():
    both = {"language_model.model.norm.weight": 1, "model.norm.weight": 2, "lm_head.weight": 3}
    assert names.by_canonical_name(both) == both
