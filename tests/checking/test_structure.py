"""No rule complains about real adapters, or about what PEFT writes for each option; the corpus has what they find."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from loreg.adapters.layout import read_layout
from loreg.checking.run import read_weights, refuse_errors
from loreg.checking.run import run as run_rules
from loreg.errors import CheckFailedError
from loreg.records import Finding
from making import change_config, change_tensors, copy, train
from places import EXAMPLES, SCIENCE


def run(folder: Path) -> tuple[Finding, ...]:
    files = [path.name for path in folder.iterdir()]
    return run_rules(read_weights(read_layout(folder), files))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


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
