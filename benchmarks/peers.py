"""The same merges by PEFT, and densely by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from shapes import Shapes, factors
from torch import nn


def peft_model(shapes: Shapes, rank: int, count: int) -> PeftModel:
    """A model of these linear layers, their weights one zero expanded, with ``count`` random adapters."""
    base = nn.Module()
    for name, (out, in_) in shapes.items():
        *path, leaf = name.split(".")
        owner = base
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        layer = nn.Linear(in_, out, bias=False, device="meta")
        layer.weight = nn.Parameter(torch.zeros(()).expand(out, in_), requires_grad=False)
        owner.add_module(leaf, layer)
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    model = get_peft_model(base, config, adapter_name="0")
    for number in range(1, count):
        model.add_adapter(str(number), config)
    for number in range(count):
        for name, (b, a) in factors(shapes, rank, number).items():
            layer = model.base_model.model.get_submodule(name)
            layer.lora_B[str(number)].weight.data.copy_(b)
            layer.lora_A[str(number)].weight.data.copy_(a)
    return model.requires_grad_(False)


def peft_seconds(model: PeftModel, weights: Sequence[float], runs: int, **how: object) -> list[float]:
    """Seconds of ``add_weighted_adapter`` alone, tensors in memory before and after."""
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        names = [str(number) for number in range(len(weights))]
        model.base_model.add_weighted_adapter(names, list(weights), "merged", **how)
        seconds.append(time.perf_counter() - begin)
        model.delete_adapter("merged")
    return seconds


def dense_seconds(shapes: Shapes, rank: int, weights: Sequence[float], keep: int) -> float:
    """A plain script: the dense weighted sum of each module in float32, its reduced SVD, the leading part."""
    sources = [factors(shapes, rank, number) for number in range(len(weights))]
    begin = time.perf_counter()
    for name in shapes:
        delta = sum(w * 2 * b @ a for w, (b, a) in zip(weights, (s[name] for s in sources), strict=True))
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        root = s[:keep].sqrt()
        u[:, :keep] * root, root.unsqueeze(1) * vh[:keep]
    return time.perf_counter() - begin
