"""Copies of an adapter as people make them: rounded, scaled, factored anew, at other ranks, merged, trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Factors = dict[str, tuple[Tensor, Tensor]]
_A, _B = ".lora_A.weight", ".lora_B.weight"


def read(folder: Path) -> tuple[Factors, dict[str, Tensor], dict[str, object]]:
    """The factors (B, A) by module in float64, all other tensors, and the configuration."""
    tensors = load_file(folder / WEIGHTS)
    names = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
    factors = {name: (tensors.pop(name + _B).double(), tensors.pop(name + _A).double()) for name in names}
    return factors, tensors, json.loads((folder / CONFIG).read_text())


def write(folder: Path, source: Path, factors: Factors, dtype: torch.dtype = torch.float32, **fields: object) -> Path:
    """An adapter like ``source`` with other factors."""
    _, others, config = read(source)
    folder.mkdir(parents=True)
    tensors = {name: tensor.to(dtype) for name, tensor in others.items()}
    for name, (b, a) in factors.items():
        tensors[name + _B], tensors[name + _A] = b.to(dtype).contiguous(), a.to(dtype).contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    rank = next(iter(factors.values()))[1].shape[0]
    (folder / CONFIG).write_text(json.dumps({**config, "r": rank, **fields}))
    return folder


def rounded(folder: Path, source: Path, dtype: torch.dtype) -> Path:
    return write(folder, source, read(source)[0], dtype)


def scaled(folder: Path, source: Path, factor: float) -> Path:
    return write(folder, source, {name: (factor * b, a) for name, (b, a) in read(source)[0].items()})


def refactored(folder: Path, source: Path, seed: int = 0) -> Path:
    """The same deltas, of factors mixed by a random matrix."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, (b, a) in read(source)[0].items():
        mix = torch.randn(a.shape[0], a.shape[0], generator=generator, dtype=torch.float64)
        factors[name] = b @ mix, torch.linalg.solve(mix, a)
    return write(folder, source, factors)


def reranked(folder: Path, source: Path, rank: int) -> Path:
    """The truncated singular value decomposition of the dense deltas."""
    factors = {}
    for name, (b, a) in read(source)[0].items():
        left, upper = torch.linalg.qr(b)
        right, lower = torch.linalg.qr(a.T)
        u, s, vh = torch.linalg.svd(upper @ lower.T)
        factors[name] = left @ u[:, :rank] * s[:rank], vh[:rank] @ right.T
    config = read(source)[2]
    return write(folder, source, factors, lora_alpha=config["lora_alpha"] * rank / config["r"])


def merged(folder: Path, sources: Mapping[Path, float]) -> Path:
    """The weighted sum of deltas, exactly: factors side by side, with scale 1."""
    stacks: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for source, weight in sources.items():
        factors, _, config = read(source)
        scale = config["lora_alpha"] / config["r"]
        for name, (b, a) in factors.items():
            left, right = stacks.setdefault(name, ([], []))
            left.append(weight * scale * b)
            right.append(a)
    factors = {name: (torch.cat(left, 1), torch.cat(right, 0)) for name, (left, right) in stacks.items()}
    rank = next(iter(factors.values()))[1].shape[0]
    return write(folder, next(iter(sources)), factors, lora_alpha=rank)


def one_step_more(folder: Path, source: Path, seed: int, rate: float = 2e-4) -> Path:
    """A step of Adam, whose first is the sign of the gradient: that of a random low-rank loss."""
    generator = torch.Generator().manual_seed(seed)

    def step(factor: Tensor) -> Tensor:
        return factor - rate * torch.randn(factor.shape, generator=generator, dtype=torch.float64).sign()

    return write(folder, source, {name: (step(b), step(a)) for name, (b, a) in read(source)[0].items()})


#: The copies of one adapter that leave it the only source, with the relation that they have to it.
VARIANTS: Mapping[str, tuple[str, Callable[[Path, Path], Path]]] = {
    "bf16": ("precision", lambda folder, source: rounded(folder, source, torch.bfloat16)),
    "fp16": ("precision", lambda folder, source: rounded(folder, source, torch.float16)),
    "scaled": ("scaled", lambda folder, source: scaled(folder, source, 2.0)),
    "turned": ("scaled", lambda folder, source: scaled(folder, source, -0.7)),
    "refactored": ("refactored", refactored),
    "reranked": ("reranked", lambda folder, source: reranked(folder, source, read(source)[2]["r"] // 2)),
    "one step more": ("near", lambda folder, source: one_step_more(folder, source, 1)),
    "copied": ("same", lambda folder, source: Path(shutil.copytree(source, folder))),
}
