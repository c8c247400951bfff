"""Making adapters for tests: written by PEFT itself, or by hand where PEFT would not write such a thing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

OUT, IN = 24, 20


class Block(nn.Module):
    """Two projections of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(IN, OUT)
        self.v_proj = nn.Linear(OUT, IN)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.v_proj(torch.tanh(self.q_proj(x)))


class Model(nn.Module):
    """Two blocks and a head: the smallest thing that has layers, module types and something to save whole."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(IN, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def new_model() -> Model:
    """The same base every time."""
    torch.manual_seed(7)
    return Model().eval()


def write_base(folder: Path, changed: Mapping[str, Tensor] | None = None) -> Path:
    """The base of :func:`new_model` as a folder, with some tensors changed; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**new_model().state_dict(), **(changed or {})}, folder / "model.safetensors")
    return folder


def train(folder: Path, seed: int, *, head: bool = False, **options: Any) -> Path:
    """Write, with PEFT, an adapter whose factors are random, as after training; returns ``folder``."""
    options = {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 8, **options}
    config = LoraConfig(modules_to_save=["head"] if head else None, **options)
    model = get_peft_model(new_model(), config)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def deltas_by_peft(folder: Path) -> dict[str, Tensor]:
    """The delta of every module in float64, as PEFT itself computes it for the adapter in ``folder``."""
    model = PeftModel.from_pretrained(new_model(), folder).double()
    deltas = {}
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and "default" in getattr(module, "lora_A", {}):
            deltas[name] = module.get_delta_weight("default").detach()
    return deltas


def deltas_by_hand(folder: Path) -> dict[str, Tensor]:
    """The deltas in float64 from the files alone, for adapters of large real models; alpha and r are global here."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    deltas = {}
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight").removeprefix("base_model.model.")
            rank = config["rank_pattern"].get(module, config["r"])
            alpha = config["alpha_pattern"].get(module, config["lora_alpha"])
            b = tensors[name.replace("lora_A", "lora_B")]
            deltas[module] = alpha / rank * b.double() @ a.double()
    return deltas


def copy(source: Path, target: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(source, target)
    return target


def change_config(folder: Path, **fields: Any) -> Path:
    """Set fields of ``adapter_config.json``."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


def change_tensors(folder: Path, changed: Mapping[str, Tensor | None]) -> Path:
    """Replace tensors by name, or remove those that are None."""
    path = folder / "adapter_model.safetensors"
    tensors = {**load_file(path), **changed}
    save_file({name: t for name, t in tensors.items() if t is not None}, path, {"format": "pt"})
    return folder


def weighted_sum(deltas: list[dict[str, Tensor]], weights: list[float]) -> dict[str, Tensor]:
    """The dense reference: the sum of the weighted deltas, module by module."""
    modules = {module for of_source in deltas for module in of_source}
    return {m: sum(w * d[m] for d, w in zip(deltas, weights, strict=True) if m in d) for m in modules}


def relative_error(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative Frobenius error over all modules, which must be the same on both sides."""
    assert actual.keys() == expected.keys()
    return max(
        float(torch.linalg.norm(actual[m] - expected[m]) / torch.linalg.norm(expected[m]).clamp_min(1e-30))
        for m in expected
    )
