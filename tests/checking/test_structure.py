"""Each rule finds what it is for; none complains about real adapters, or about what PEFT writes for each option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from loreg.adapters.layout import read_layout
from loreg.checking.findings import RULES
from loreg.checking.run import read_weights, refuse_errors
from loreg.checking.run import run as run_rules
from loreg.errors import CheckFailedError
from loreg.records import Finding
from making import change_config, change_tensors, copy, train
from places import EXAMPLES, SCIENCE

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def run(folder: Path) -> tuple[Finding, ...]:
    files = [path.name for path in folder.iterdir()]
    return run_rules(read_weights(read_layout(folder), files))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def beside(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"x")
    return folder


def with_nan(folder: Path, value: float, dtype: torch.dtype) -> Path:
    name = f"{Q0}.lora_A.weight"
    tensor = tensors(folder)[name].to(dtype)
    tensor[1, 2] = value
    return change_tensors(folder, {name: tensor})


BROKEN: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "B is missing": ("LR001", lambda f: change_tensors(f, {f"{Q0}.lora_B.weight": None})),
    "A is missing": ("LR001", lambda f: change_tensors(f, {f"{Q0}.lora_A.weight": None})),
    "ranks of A and B differ": ("LR002", lambda f: change_tensors(f, {f"{Q0}.lora_B.weight": torch.ones(576, 4)})),
    "A is flat": ("LR002", lambda f: change_tensors(f, {f"{Q0}.lora_A.weight": torch.ones(576)})),
    "B is empty": ("LR002", lambda f: change_tensors(f, {f"{Q0}.lora_B.weight": torch.ones(0, 8)})),
    "r is wrong": ("LR003", lambda f: change_config(f, r=16)),
    "rank_pattern is wrong": ("LR003", lambda f: change_config(f, rank_pattern={"layers.0.self_attn.q_proj": 4})),
    "a stranger": ("LR004", lambda f: change_tensors(f, {"model.layers.0.lora_A.weight": torch.ones(8, 5)})),
    "NaN": ("LR005", lambda f: with_nan(f, float("nan"), torch.float32)),
    "infinity": ("LR005", lambda f: with_nan(f, float("-inf"), torch.float32)),
    "NaN in bfloat16": ("LR005", lambda f: with_nan(f, float("nan"), torch.bfloat16)),
    "NaN in float16": ("LR005", lambda f: with_nan(f, float("nan"), torch.float16)),
    "infinity in float64": ("LR005", lambda f: with_nan(f, float("inf"), torch.float64)),
    "NaN in float8": ("LR005", lambda f: with_nan(f, float("nan"), torch.float8_e4m3fn)),
    "NaN in the other float8": ("LR005", lambda f: with_nan(f, float("nan"), torch.float8_e5m2)),
    "a module is not selected": ("LR006", lambda f: change_config(f, target_modules=["v_proj"])),
    "a pattern selects too little": ("LR006", lambda f: change_config(f, target_modules=r".*layers\.[1-9].*")),
    "use_dora without magnitudes": ("LR007", lambda f: change_config(f, use_dora=True)),
    "magnitudes without use_dora": (
        "LR007",
        lambda f: change_tensors(f, {f"{Q0}.lora_magnitude_vector": torch.ones(576)}),
    ),
    "every B is zero": (
        "LR008",
        lambda f: change_tensors(f, {n: torch.zeros_like(t) for n, t in tensors(f).items() if "lora_B" in n}),
    ),
    "a field of next year": ("LR009", lambda f: change_config(f, use_next_year=True)),
    "a huge number": ("LR010", lambda f: with_nan(f, 2e4, torch.float32)),
    "a huge number in bfloat16": ("LR010", lambda f: with_nan(f, -2e4, torch.bfloat16)),
    "a huge number in float16": ("LR010", lambda f: with_nan(f, 2e4, torch.float16)),
    "a huge number in float64": ("LR010", lambda f: with_nan(f, 1e300, torch.float64)),
    "one A is zero": ("LR011", lambda f: change_tensors(f, {f"{Q0}.lora_A.weight": torch.zeros(8, 576)})),
    "one B is zero": ("LR011", lambda f: change_tensors(f, {f"{Q0}.lora_B.weight": -torch.zeros(576, 8)})),
    "another safetensors": ("LR012", lambda f: beside(f, "model.safetensors")),
    "a pickle beside": ("LR013", lambda f: beside(f, "adapter_model.bin")),
    "code from somewhere": ("LR014", lambda f: change_config(f, auto_map={"AutoModel": "org/x--model.Model"})),
    "a path of the trainer": ("LR015", lambda f: change_config(f, base_model_name_or_path="/home/ada/llama")),
    "a path in a list": ("LR015", lambda f: change_config(f, megatron_core=["C:\\data\\x"])),
    "a module to save that is not there": ("LR016", lambda f: change_config(f, modules_to_save=["head"])),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_finds_what_it_is_for(tmp_path: Path, name: str):
    code, breaking = BROKEN[name]
    findings = run(breaking(copy(SCIENCE, tmp_path / "a")))
    assert code in {finding.code for finding in findings}
    assert all(finding.message and finding.remedy for finding in findings)


def test_every_rule_is_shown_to_find_something():
    assert {code for code, _ in BROKEN.values()} == {code for code in RULES if code.startswith("LR")}


@pytest.mark.parametrize("folder", sorted(p for p in EXAMPLES.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_no_rule_complains_about_a_real_adapter(folder: Path):
    assert run(folder) == ()


class Zoo(nn.Module):
    """One layer of each kind that PEFT puts a LoRA on."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.lin = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)
        self.conv = nn.Conv2d(1, 4, 3)


OPTIONS: dict[str, dict] = {
    "plain": {"target_modules": ["lin"]},
    "rslora": {"target_modules": ["lin"], "use_rslora": True},
    "dora": {"target_modules": ["lin"], "use_dora": True},
    "lora_bias": {"target_modules": ["lin"], "lora_bias": True},
    "bias all": {"target_modules": ["lin"], "bias": "all"},
    "bias lora_only": {"target_modules": ["lin"], "bias": "lora_only"},
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r"l.n"},
    "embedding": {"target_modules": ["emb", "lin"]},
    "convolution": {"target_modules": ["conv"]},
    "modules_to_save": {"target_modules": ["lin"], "modules_to_save": ["head"]},
    "trainable tokens": {"target_modules": ["lin"], "trainable_token_indices": {"emb": [1, 2]}},
    "patterns": {"target_modules": ["lin", "head"], "rank_pattern": {"head": 1}, "alpha_pattern": {"lin": 3}},
    "target_parameters": {"target_modules": [], "target_parameters": ["lin.weight"]},
    "pissa": {"target_modules": ["lin"], "init_lora_weights": "pissa"},
    "olora": {"target_modules": ["lin"], "init_lora_weights": "olora"},
    "excluded": {"target_modules": ["lin", "head"], "exclude_modules": ["head"]},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIONS)
def test_no_rule_calls_what_peft_writes_an_error(tmp_path: Path, name: str):
    model = get_peft_model(Zoo(), LoraConfig(r=2, **OPTIONS[name]))
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.data.normal_()
    model.save_pretrained(tmp_path / "a")
    findings = run(tmp_path / "a")
    assert [finding for finding in findings if finding.severity == "error"] == []


def test_an_error_refuses_and_says_how_many_more(tmp_path: Path):
    folder = change_config(copy(SCIENCE, tmp_path / "a"), r=16)
    with pytest.raises(CheckFailedError, match=r"LR003 .* \(and 59 more\)"):
        refuse_errors("a", run(folder))


def test_a_warning_does_not_refuse(tmp_path: Path):
    folder = train(tmp_path / "a", 1)
    zero = {n: torch.zeros_like(t) for n, t in tensors(folder).items() if "lora_B" in n}
    findings = run(change_tensors(folder, zero))
    assert [finding.severity for finding in findings] == ["warning"]
    refuse_errors("a", findings)


def test_integers_are_passed_over(tmp_path: Path):
    folder = copy(SCIENCE, tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.index": torch.full((3,), -1)}, path)
    assert run(folder) == ()
