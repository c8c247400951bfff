"""Rank, alpha and scale of every module are what PEFT applies: read without torch, compared with PEFT."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file

from deployments import DORA, MOVIES, NEWS, SCIENCE
from factories import change_config, change_tensors, copy, new_model, train
from loreg.adapters.patterns import Patterns
from loreg.adapters.structure import read_structure
from loreg.checking.run import check_adapter, scan_adapter
from loreg.entities import ModuleType
from loreg.errors import AdapterFormatError, NotFoundError


def test_the_facts_of_a_real_adapter():
    facts = read_structure(NEWS).facts()
    assert (facts.variant, facts.task_type, facts.rank_min, facts.rank_max, facts.alpha) == (
        "lora",
        "SEQ_CLS",
        8,
        8,
        16,
    )
    assert facts.module_types == (ModuleType("query", 6, 8, 8), ModuleType("value", 6, 8, 8))
    assert facts.dtype == "F32"
    assert facts.base_hint == "sentence-transformers/all-MiniLM-L6-v2"
    assert facts.parameters == sum(t.numel() for t in load_file(NEWS / "adapter_model.safetensors").values())


def test_a_dora_adapter_is_known_by_its_magnitudes():
    structure = read_structure(DORA)
    assert structure.facts().variant == "dora"
    assert all(set(module.tensors) == {"A", "B", "magnitude"} for module in structure.modules.values())
    assert structure.full_tensors == {}


def test_whole_tensors_are_extras():
    assert sorted(read_structure(MOVIES).full_tensors) == [
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "r": 9},
        {"rank_pattern": {"layers.0.q_proj": 3, "v_proj": 2}, "alpha_pattern": {r"layers\.1\..*": 5}},
        {"alpha_pattern": {"layers.0.q_proj": 7, "q_proj": 9}, "use_rslora": True},
        {"alpha_pattern": {"proj": 100, "_proj": 50}},
        {"target_modules": r".*\.(0|1)\.v_proj", "rank_pattern": {"^layers.0.v_proj": 6}},
    ],
)
def test_ranks_and_scales_are_those_that_peft_applies(tmp_path: Path, options: dict):
    folder = train(tmp_path / "a", 1, **options)
    model = PeftModel.from_pretrained(new_model(), folder).base_model.model
    for name, module in read_structure(folder).modules.items():
        layer = model.get_submodule(name)
        assert module.rank == layer.r["default"]
        assert module.scale == pytest.approx(layer.scaling["default"], rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "variant"),
    [
        ({}, "lora"),
        ({"use_rslora": True}, "rslora"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "eva"}, "lora"),
    ],
)
def test_the_variant_in_one_word(tmp_path: Path, fields: dict, variant: str):
    assert read_structure(change_config(copy(SCIENCE, tmp_path / "a"), **fields)).facts().variant == variant


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', expected 'LORA'"),
        ({"r": 0}, "r is 0, expected a positive number"),
        ({"r": 0.5}, "r is 0.5, expected a whole number"),
        ({"rank_pattern": {"q_proj": 2.5}}, "rank_pattern: q_proj is 2.5, expected a whole number"),
        ({"r": "8"}, "r is '8'"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"rank_pattern": {"(": 3}}, "invalid pattern '('"),
        ({"rank_pattern": {"q": -1}}, "rank_pattern: q is -1"),
        ({"alpha_pattern": [1]}, "alpha_pattern is not an object"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path: Path, fields: dict, message: str):
    with pytest.raises(AdapterFormatError) as error:
        read_structure(change_config(copy(SCIENCE, tmp_path / "a"), **fields))
    assert message in error.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, text: str):
    folder = copy(SCIENCE, tmp_path / "a")
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(AdapterFormatError, match="is not"):
        read_structure(folder)


def test_a_folder_without_configuration_is_not_an_adapter(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"has no adapter_config\.json"):
        read_structure(tmp_path)


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("lora_unet_down.lora_down.weight", "kohya"),
        ("x.hada_w1_a", "LyCORIS"),
        ("transformer.blocks.0.attn.lora_A.weight", "diffusers"),
        ("diffusion_model.x.lora_A.weight", "ComfyUI"),
        ("model.layers.0.q_proj.lora_a", "MLX"),
    ],
)
def test_another_format_is_called_by_its_name(tmp_path: Path, name: str, format_: str):
    folder = copy(SCIENCE, tmp_path / "a")
    names = load_file(folder / "adapter_model.safetensors")
    change_tensors(folder, {**dict.fromkeys(names), name: torch.ones(2, 2)})
    with pytest.raises(AdapterFormatError, match=f"is in {format_}'s format, expected PEFT's"):
        read_structure(folder)


def test_an_adapter_without_lora_tensors_is_refused(tmp_path: Path):
    folder = copy(SCIENCE, tmp_path / "a")
    names = load_file(folder / "adapter_model.safetensors")
    change_tensors(folder, {**dict.fromkeys(names), "base_model.model.head.weight": torch.ones(2, 2)})
    with pytest.raises(AdapterFormatError, match="has no LoRA tensors"):
        read_structure(folder)


def test_reading_needs_no_weights(tmp_path: Path):
    """The data may be a hole: nothing but the header is read."""
    folder = copy(SCIENCE, tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    size = path.stat().st_size
    length = int.from_bytes(path.read_bytes()[:8], "little")
    with path.open("r+b") as file:
        file.truncate(8 + length)
        file.truncate(size)
    assert read_structure(folder).facts() == read_structure(SCIENCE).facts()
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 8


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(.*.*)*X", "a{99999999999999999999}", "(" * 3000 + ")" * 3000, "(?i)Q_PROJ", "("],
    ids=lambda pattern: pattern[:20],
)
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern", "target_modules"])
def test_a_hostile_pattern_is_refused_and_holds_nobody_up(tmp_path: Path, field: str, pattern: str):
    folder = train(tmp_path / "a", 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model." + "a" * 60 + "!.lora_{}.weight"
    change_tensors(
        folder, {**dict.fromkeys(tensors), name.format("A"): torch.ones(4, 3), name.format("B"): torch.ones(3, 4)}
    )
    change_config(folder, **{field: pattern if field == "target_modules" else {pattern: 4}})
    try:
        findings = check_adapter(scan_adapter(read_structure(folder)))
    except AdapterFormatError as error:
        assert "invalid pattern" in error.message
    else:  # one that is merely slow for some engines, or matches nothing
        assert field != "target_modules" or findings


@given(
    patterns=st.lists(st.from_regex(r"[ab.]{1,4}", fullmatch=True), max_size=3),
    module=st.from_regex(r"[ab.]{1,8}", fullmatch=True),
)
def test_plain_patterns_match_as_regular_expressions_do(patterns: list[str], module: str):
    values = {pattern: i for i, pattern in enumerate(patterns)}
    expected = next((values[p] for p in values if re.match(rf"(.*\.)?({p})$", module)), -1)
    assert Patterns(values).first(module, -1) == expected
