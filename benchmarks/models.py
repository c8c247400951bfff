"""Base models with the shapes of real ones and random numbers, in shards, as folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from shapes import Shapes


def write_model(folder: Path, shapes: Shapes, hidden: int, vocabulary: int, dtype: str = "BF16") -> Path:
    """A Llama of these modules, with embedding and head: one shard for every 500 MB."""
    folder.mkdir(parents=True)
    width = {"BF16": 2, "F16": 2, "F32": 4}[dtype]
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    tensors |= {f"{name}.weight": shape for name, shape in shapes.items()}
    tensors |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in tensors.items():
        if size > 500_000_000:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += int(np.prod(shape)) * width
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    generator = np.random.default_rng(0)
    for file, tensor_names in zip(names, shards, strict=True):
        _write_shard(folder / file, {name: tensors[name] for name in tensor_names}, dtype, generator)
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _write_shard(file: Path, tensors: dict[str, tuple[int, ...]], dtype: str, generator: np.random.Generator) -> None:
    header, position = {}, 0
    blocks = []
    for name, shape in tensors.items():
        numbers = (0.02 * generator.standard_normal(int(np.prod(shape)), np.float32)).astype(np.float32)
        stored = {"F32": lambda x: x, "F16": lambda x: x.astype(np.float16), "BF16": _bf16}[dtype](numbers)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + stored.nbytes]}
        position += stored.nbytes
        blocks.append(stored)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with file.open("wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        for block in blocks:
            stream.write(block.data)


def _bf16(numbers: np.ndarray) -> np.ndarray:
    return (numbers.view(np.uint32) >> 16).astype(np.uint16)
