"""A cross-section of the zoo: what `make zoo` does over every architecture, over some of each kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING

from loreg.registry import connect
from zoo.architectures import Architecture, all_architectures
from zoo.facts import facts_of
from zoo.judging import Case, as_model
from zoo.models import build
from zoo.options import OPTIONS, fields_of
from zoo.report import BAD, lines
from zoo.run import try_out
from zoo.trained import train

_PAIR = ["embed", "head", "embed+head", "mts-both", "tie-embed", "tie-mts-both", "tokens", "grown-copies"]
_PLAIN = ["attn", "all-linear", "dora", "rslora", "patterns"]

#: What each is here for: architecture, tying, options.
CROSS_SECTION = [
    ("llama", "default", [*_PLAIN, *_PAIR]),
    ("llama", "opposite", _PAIR),
    ("gpt2", "default", ["attn+head", "one+head", *_PAIR]),  # Conv1D beside Linear
    ("gpt_neox", "default", _PAIR),  # the head has another name in the file
    ("opt", "default", _PAIR),
    ("mamba", "default", ["attn", *_PAIR]),
    ("bert-mlm", "default", _PAIR),  # a bias is tied as well
    ("bert-cls", "default", ["attn", "classifier"]),
    ("t5", "default", ["twins", "head"]),
    ("switch_transformers", "default", ["attn", "head", "twins", "tokens"]),  # it computes by the flag that ties
    ("bart", "default", ["attn", "twins", "mts-head"]),  # three embeddings and a head
    ("mixtral", "default", ["all-linear", "experts", "experts-bare", "experts-w1-w2-w3"]),
    ("granitemoe", "default", ["experts"]),  # experts have another name in the file
    ("vit", "default", ["attn", "conv", "classifier", "dora"]),  # every layer has another name in the file
    ("llava", "default", ["attn", "dora", "mts-head"]),  # the prefix has another name in the file
]


def _architecture(name: str) -> Architecture:
    return next(architecture for architecture in all_architectures() if architecture.name == name)


@pytest.mark.parametrize(("name", "tying", "options"), CROSS_SECTION, ids=[f"{n}-{t}" for n, t, _ in CROSS_SECTION])
def test_loreg_and_peft_agree(name: str, tying: str, options: list[str]):
    outcomes = try_out(_architecture(name), tying, options)
    assert {outcome.option for outcome in outcomes if outcome.verdicts} != set()
    if any(verdict.kind in BAD for outcome in outcomes for verdict in outcome.verdicts):
        pytest.fail("\n".join(lines(outcomes)), pytrace=False)


def test_a_transposed_square_weight_is_found_wrong(tmp_path: Path):
    base = build(replace(_architecture("gpt2"), name="square"), "default", tmp_path / "base")
    option = next(option for option in OPTIONS if option.name == "attn")
    fields = fields_of(option, facts_of(base.model))
    assert fields is not None
    adapter = train(base, option, fields, "first", tmp_path / "adapter")
    with connect(home=str(tmp_path / "home")) as registry:
        case = Case(base, option, adapter, adapter, tmp_path, registry)
        registry.bake([str(adapter.folder)], base.folder, tmp_path / "baked")
    assert as_model("bake", case, tmp_path / "baked")[0].kind == "ok"
    file = tmp_path / "baked" / "model.safetensors"
    tensors, name = load_file(file), "transformer.h.1.attn.c_proj.weight"
    before = load_file(base.folder / "model.safetensors")[name]
    tensors[name] = before + (tensors[name] - before).T.contiguous()
    save_file(tensors, file, {"format": "pt"})
    verdict = as_model("bake", case, tmp_path / "baked")[0]
    assert verdict.kind == "WRONG"
    assert verdict.error > 1e-3
    del tensors["transformer.h.1.ln_1.weight"]
    save_file(tensors, file, {"format": "pt"})
    assert "missing transformer.h.1.ln_1.weight" in as_model("bake", case, tmp_path / "baked")[0].detail


def test_the_zoo_has_a_hundred_architectures_that_transformers_knows():
    rows = all_architectures()
    assert len({row.name for row in rows}) == len(rows)
    assert len({row.model_type for row in rows}) >= 100
    assert {row.model_type for row in rows} <= set(CONFIG_MAPPING)


def test_the_same_seed_makes_the_same_base(tmp_path: Path):
    first, second = (build(_architecture("llama"), "default", tmp_path / name) for name in ("one", "two"))
    assert torch.equal(first.answer, second.answer)
