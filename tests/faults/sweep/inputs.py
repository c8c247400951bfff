"""What the verbs are given: small adapters, a base of three shards and one tuned from it, the same every time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LAYERS, OUT, IN, RANK = 3, 96, 128, 16
MODULES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(LAYERS) for name in "qv"]
_LARGE = 24_000  # rank 16 on so many rows and columns, three layers of two modules: 18 MB, more than one part of S3


def write_inputs(folder: Path) -> Path:
    """Write all of it below ``folder``."""
    base = {f"{module}.weight": _numbers(number, OUT, IN) for number, module in enumerate(MODULES)}
    tuned = {name: weight + 0.01 * _numbers(50 + n, OUT, IN) for n, (name, weight) in enumerate(base.items())}
    _write_model(folder / "base", base)
    _write_model(folder / "tuned", tuned)
    for seed, name in enumerate(("one", "next", "two", "new"), 100):
        _write_adapter(folder / name, seed, OUT, IN)
    _write_adapter(folder / "large", 104, _LARGE, _LARGE)
    return folder


def _numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _write_model(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    names = list(tensors)
    shards = {f"model-{n + 1:05}-of-{LAYERS:05}.safetensors": names[2 * n : 2 * n + 2] for n in range(LAYERS)}
    for file, shard in shards.items():
        save_file({name: tensors[name] for name in shard}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, shard in shards.items() for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text("{}")


def _write_adapter(folder: Path, seed: int, out: int, in_: int) -> None:
    folder.mkdir(parents=True)
    tensors = {}
    for number, module in enumerate(MODULES):
        tensors[f"base_model.model.{module}.lora_A.weight"] = _numbers(1000 * seed + number, RANK, in_)
        tensors[f"base_model.model.{module}.lora_B.weight"] = _numbers(2000 * seed + number, out, RANK)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    (folder / "README.md").write_text(f"# Adapter {seed}\n")
