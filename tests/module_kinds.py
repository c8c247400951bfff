"""A model with one module of every kind that PEFT puts LoRA on, and adapters of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

FORMS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "embedding": (["words"], {}),
    "convolution": (["image", "sound"], {}),
    "transposed": (["old"], {"fan_in_fan_out": True}),
    "with biases": (["plain"], {"lora_bias": True}),
    "mixed": (["words", "image", "plain"], {"use_rslora": True}),
    "experts": ([], {"target_parameters": ["experts.gate_up_proj"]}),
    "experts, nested": ([], {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
    "experts and more": (["plain"], {"target_parameters": ["experts.down_proj"], "use_rslora": True}),
}


class Experts(nn.Module):
    """Two stacks of matrices, as in a mixture of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 6, 10))
        self.down_proj = nn.Parameter(torch.randn(3, 5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return sum(x @ self.gate_up_proj[e] @ self.down_proj[e].new_ones(10, 6) for e in range(3))


class Everything(nn.Module):
    """One module of every kind that PEFT puts LoRA on."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 12)
        self.image = nn.Conv2d(4, 9, (3, 2))
        self.sound = nn.Conv1d(5, 7, 3)
        self.old = Conv1D(14, 12)
        self.plain = nn.Linear(14, 6)
        self.experts = Experts()

    def forward(self, words: Tensor, image: Tensor, sound: Tensor) -> Tensor:
        x = self.experts(self.plain(torch.tanh(self.old(self.words(words)))))
        return x.mean() + self.image(image).mean() + self.sound(sound).mean()


def new_model() -> Everything:
    torch.manual_seed(11)
    return Everything().eval()


def write_base(folder: Path) -> Path:
    """The base of :func:`new_model` as a folder."""
    folder.mkdir()
    save_file(new_model().state_dict(), folder / "model.safetensors")
    return folder


def train(folder: Path, seed: int, targets: list[str], model: nn.Module | None = None, **options: Any) -> Path:
    config = LoraConfig(target_modules=targets, **{"r": 3, "lora_alpha": 5, **options})
    peft = get_peft_model(model or new_model(), config)
    torch.manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.data.normal_(0, 0.3)
        if "magnitude" in name:
            parameter.data.mul_(1 + 0.2 * torch.rand_like(parameter))
    peft.save_pretrained(folder)
    return folder
