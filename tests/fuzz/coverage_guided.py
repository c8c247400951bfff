#!/usr/bin/env python3
"""``make fuzz``: libFuzzer, guided by the branches of loreg's readers and rules that a case reaches.

Outside the suite, because it never ends by itself and needs atheris. It keeps one case for every branch in ``corpus/``,
which the suite replays. Every second mutation changes bytes; the others change what the documents say and leave them
sound, because hardly a changed byte gets past the JSON.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["loreg.adapters", "loreg.checking", "loreg.bases"]):
    from fuzz.targets import SEPARATOR, look_at_bytes, to_bytes

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "I64": 64, "BOOL": 8}
_ENDS = (
    ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_embedding_A", ".lora_embedding_B", ".weight", ".bias",
    ".lora_magnitude_vector", ".base_layer.lora_A.weight", ".base_layer.lora_B.weight", ".base_layer.bias",
)  # fmt: skip
_MODULES = (
    "model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.0.v_proj", "lm_head", "model.embed_tokens",
    "layers.0.experts", "layers.0.w1", "conv", "score",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 8, 16.5, -1, 1e300, "", "all", "lora_only", "pissa", "loftq", "gaussian", "/home/x",
    "C:\\x", "all-linear", r".*\.q_proj", "(a+)+$", ["q_proj"], ["lm_head"], ["layers.0.experts.down_proj"], {},
    {"q_proj": 4}, {"layers.0.q_proj": 2, "v_proj": 3}, {"(a+)+$": 2}, [[0, 2]], "IA3",
)  # fmt: skip
_FIELDS = (
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "use_rslora", "bias",
    "lora_bias", "modules_to_save", "init_lora_weights", "fan_in_fan_out", "target_parameters", "auto_map",
    "base_model_name_or_path", "ensure_weight_tying", "trainable_token_indices", "layer_replication", "use_qalora",
    "of_next_year",
)  # fmt: skip


def one(data: bytes) -> None:
    look_at_bytes(data)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Another case of at most ``most`` bytes."""
    choose = random.Random(seed)
    parts = data.split(SEPARATOR, 2)
    try:
        config, header = json.loads(parts[0]), json.loads(parts[1])
        if choose.random() < 0.5 or not isinstance(config, dict) or not isinstance(header, dict):
            raise ValueError
        if choose.random() < 0.5:
            config[choose.choice(_FIELDS)] = choose.choice(_VALUES)
        else:
            _change_tensor(header, choose)
        changed = to_bytes(config, header, parts[2].decode(errors="replace") if len(parts) > 2 else "")
        return changed if len(changed) <= most else data[:most]
    except (ValueError, IndexError, RecursionError):
        return bytes(atheris.Mutate(data, most))


def _change_tensor(header: dict[str, Any], choose: random.Random) -> None:
    """Add, remove or reshape a tensor, and lay all of them end to end again."""
    if header and choose.random() < 0.3:
        header.pop(choose.choice(sorted(header)))
    else:
        name = f"base_model.model.{choose.choice(_MODULES)}{choose.choice(_ENDS)}"
        shape = [choose.choice((0, 1, 2, 4, 8, 16)) for _ in range(choose.choice((1, 2, 2, 2, 3, 4)))]
        header[name] = {"dtype": choose.choice(sorted(_BITS)), "shape": shape}
    at = 0
    for entry in header.values():
        if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
            size = _BITS.get(str(entry.get("dtype")), 8) // 8
            for n in entry["shape"]:
                size *= n if isinstance(n, int) else 1
            entry["data_offsets"], at = [at, at + size], at + size


if __name__ == "__main__":
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()
