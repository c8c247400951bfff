"""No rule complains about real adapters, or about what PEFT writes for each option; the corpus has what they find."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import (
    BdLoraConfig,
    CordaConfig,
    EvaConfig,
    KasaConfig,
    LoraGAConfig,
    LoraRuntimeConfig,
    MontecloraConfig,
    VeloraConfig,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from deployments import EXAMPLES, SCIENCE
from factories import change_config, change_tensors, copy, train
from loreg.adapters.structure import read_structure
from loreg.checking.findings import raise_first_error
from loreg.checking.run import check_adapter as run_rules
from loreg.checking.run import scan_adapter
from loreg.entities import Finding
from loreg.errors import CheckFailedError


def run(folder: Path) -> tuple[Finding, ...]:
    files = [path.name for path in folder.iterdir()]
    return run_rules(scan_adapter(read_structure(folder), files))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("folder", sorted(p for p in EXAMPLES.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_no_rule_complains_about_a_real_adapter(folder: Path):
    assert run(folder) == ()


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)
        self.up = nn.Linear(8, 8)


class Zoo(nn.Module):
    """One layer of each kind that PEFT puts a LoRA on; the head is tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"tie_word_embeddings": True}
        self.emb = nn.Embedding(12, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.lin = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.gpt = Conv1D(8, 8)
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv3d(1, 4, 3)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.emb.weight

    def get_input_embeddings(self) -> nn.Module:
        return self.emb

    def get_output_embeddings(self) -> nn.Module:
        return self.head


LIN = {"target_modules": ["lin"]}
OPTIONS: dict[str, dict] = {
    "plain": LIN,
    "rslora": {**LIN, "use_rslora": True},
    "dora": {**LIN, "use_dora": True},
    "dora on a convolution": {"target_modules": ["conv2"], "use_dora": True},
    "dora on an embedding": {"target_modules": ["emb"], "use_dora": True},
    "dora, rslora and every bias": {**LIN, "use_dora": True, "use_rslora": True, "bias": "all"},
    "lora_bias": {**LIN, "lora_bias": True},
    "bias all": {**LIN, "bias": "all"},
    "bias lora_only": {**LIN, "bias": "lora_only"},
    "dropout": {**LIN, "lora_dropout": 0.1},
    "all-linear": {"target_modules": "all-linear"},
    "all-linear but one": {"target_modules": "all-linear", "exclude_modules": ["layers.0.lin"]},
    "a regex": {"target_modules": r"l.n"},
    "excluded": {"target_modules": ["lin", "up"], "exclude_modules": ["up"]},
    "one layer": {**LIN, "layers_to_transform": [1], "layers_pattern": "layers"},
    "embedding": {"target_modules": ["emb", "lin"]},
    "convolutions": {"target_modules": ["conv1", "conv2", "conv3"]},
    "Conv1D of GPT-2": {"target_modules": ["gpt"], "fan_in_fan_out": True},
    "attention that is one module": {"target_modules": ["attention"]},
    "modules_to_save": {**LIN, "modules_to_save": ["head"]},
    "patterns": {"target_modules": ["lin", "up"], "rank_pattern": {"up": 1}, "alpha_pattern": {"lin": 3}},
    "target_parameters alone": {"target_modules": [], "target_parameters": ["lin.weight"]},
    "target_parameters": {**LIN, "target_parameters": ["layers.0.up.weight"]},
    "trainable tokens": {**LIN, "trainable_token_indices": {"emb": [1, 2]}},
    "trainable tokens of the embedding": {**LIN, "trainable_token_indices": [1, 2]},
    "tied embeddings": {"target_modules": ["emb"], "ensure_weight_tying": True},
    "tied embeddings, whole": {**LIN, "modules_to_save": ["emb"], "ensure_weight_tying": True},
    "runtime_config": {**LIN, "runtime_config": LoraRuntimeConfig(ephemeral_gpu_offload=True)},
    "random B": {**LIN, "init_lora_weights": False},
    "gaussian": {**LIN, "init_lora_weights": "gaussian"},
    "orthogonal": {**LIN, "init_lora_weights": "orthogonal"},
    "mica": {**LIN, "init_lora_weights": "mica"},
    "eva": {**LIN, "init_lora_weights": "eva", "eva_config": EvaConfig()},
    "pissa": {**LIN, "init_lora_weights": "pissa"},
    "pissa by iterations": {**LIN, "init_lora_weights": "pissa_niter_4"},
    "olora": {**LIN, "init_lora_weights": "olora"},
}
#: Options that change what the weights mean in a way that loreg does not carry out: it says so, and stores them.
NOT_CARRIED_OUT: dict[str, dict] = {
    "layer_replication": {**LIN, "layer_replication": [[0, 2], [1, 3]]},
    "activated LoRA": {**LIN, "alora_invocation_tokens": [1, 2]},
    "QALoRA": {**LIN, "use_qalora": True, "qalora_group_size": 4},
    "BD-LoRA": {**LIN, "use_bdlora": BdLoraConfig(target_modules_bd_a=["lin"])},
    "VeLoRA": {**LIN, "velora_config": VeloraConfig()},
    "MonteCLoRA": {**LIN, "monteclora_config": MontecloraConfig()},
    "KaSA": {**LIN, "kasa_config": KasaConfig()},
}
#: Initialisations that need data, gradients or a quantizer: they too leave A and B, and this in the configuration.
SAVED: dict[str, dict] = {
    "loftq": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4, "loftq_iter": 1}},
    "corda": {"init_lora_weights": "corda", "corda_config": CordaConfig()},
    "lora_ga": {"init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig()},
}


def save(to: Path, options: dict, saved: dict) -> Path:
    """What PEFT writes with these options, the factors of a trained adapter."""
    model = get_peft_model(Zoo(), LoraConfig(r=2, **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    for name, value in saved.items():
        setattr(model.peft_config["default"], name, value)
    model.save_pretrained(to)
    return to


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTIONS)
def test_no_rule_complains_about_what_peft_writes(tmp_path: Path, name: str):
    assert run(save(tmp_path / "a", OPTIONS[name], {})) == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAVED)
def test_no_rule_complains_about_an_initialisation(tmp_path: Path, name: str):
    assert run(save(tmp_path / "a", LIN, SAVED[name])) == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOT_CARRIED_OUT)
def test_what_loreg_does_not_carry_out_is_a_warning(tmp_path: Path, name: str):
    findings = run(save(tmp_path / "a", NOT_CARRIED_OUT[name], {}))
    assert [(finding.code, finding.severity) for finding in findings] == [("LR009", "warning")]


@pytest.mark.parametrize("name", ["lora_diag", "lora_velora_embed", "lora_monteclora_sampler.std_prior"])
def test_tensors_of_a_variant_that_is_not_asked_for_have_no_place(tmp_path: Path, name: str):
    folder = change_tensors(copy(SCIENCE, tmp_path / "a"), {f"base_model.model.lin.{name}": torch.ones(2)})
    assert {finding.code for finding in run(folder)} == {"LR004"}


def test_an_error_refuses_and_says_how_many_more(tmp_path: Path):
    folder = change_config(copy(SCIENCE, tmp_path / "a"), r=16)
    with pytest.raises(CheckFailedError, match=r"LR003 .* \(and 59 more\)"):
        raise_first_error("a", run(folder))


def test_a_warning_does_not_refuse(tmp_path: Path):
    folder = train(tmp_path / "a", 1)
    zero = {n: torch.zeros_like(t) for n, t in tensors(folder).items() if "lora_B" in n}
    findings = run(change_tensors(folder, zero))
    assert [finding.severity for finding in findings] == ["warning"]
    raise_first_error("a", findings)


def test_integers_are_passed_over(tmp_path: Path):
    folder = copy(SCIENCE, tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.head.index": torch.full((3,), -1)}, path)
    assert run(change_config(folder, modules_to_save=["head"])) == ()
