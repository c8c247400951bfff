"""Adapters with the shapes of real models and random numbers, as folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, int]]  # module -> (out, in)


def transformer(layers: int, hidden: int, kv: int, mlp: int, only: tuple[str, ...] = ()) -> Shapes:
    """The seven projections of every layer of a Llama-like model."""
    layer_shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    return {
        f"model.layers.{layer}.{name}": shape
        for layer in range(layers)
        for name, shape in layer_shapes.items()
        if not only or name.rpartition(".")[2] in only
    }


SMOLLM2 = transformer(30, 576, 192, 1536)
LLAMA = transformer(32, 4096, 1024, 14336)
ATTENTION = transformer(1, 4096, 1024, 14336, only=("q_proj", "k_proj", "v_proj", "o_proj"))
SQUARE = transformer(1, 4096, 1024, 14336, only=("q_proj",))


def factors(shapes: Shapes, rank: int, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Random (B, A) of every module."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            0.01 * torch.randn(out, rank, generator=generator),
            torch.randn(rank, in_, generator=generator) / in_**0.5,
        )
        for name, (out, in_) in shapes.items()
    }


def write(folder: Path, shapes: Shapes, rank: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    """One PEFT adapter."""
    folder.mkdir(parents=True)
    tensors = {}
    for name, (b, a) in factors(shapes, rank, seed).items():
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.to(dtype)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    return folder
