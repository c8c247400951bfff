"""Tensor names of PEFT's format: ``base_model.model.<module>.lora_A.weight`` and its siblings."""

from __future__ import annotations

import re
from collections.abc import Collection

PREFIX = "base_model.model."
TOKENS = ".token_adapter.trainable_tokens_delta"
_MARK = ".lora_"
_PARTS = {
    "A.weight": "A",
    "B.weight": "B",
    "B.bias": "bias",
    "embedding_A": "embedding_A",
    "embedding_B": "embedding_B",
    "magnitude_vector": "magnitude",
    "magnitude_vector.weight": "magnitude",
}
_FOREIGN = (
    (re.compile(r"lora_(unet|te\d?)_|\.lora_(up|down)\."), "kohya"),
    (re.compile(r"\.(hada_|lokr_|oft_blocks|lora_mid|dora_scale)"), "LyCORIS"),
    (re.compile(r"^(transformer|unet|text_encoder)\.|_lora\.(up|down)\.|\.lora\.(up|down)\."), "diffusers"),
    (re.compile(r"^diffusion_model\."), "ComfyUI"),
    (re.compile(r"\.lora_[ab]$"), "MLX"),
    (re.compile(r"\.lora_[AB]$"), "loralib"),
)


def parse_key(name: str) -> tuple[str, str] | None:
    """The module and part of the tensor called ``name``; an extra has no part. None if PEFT would not look at it."""
    if not name.startswith(PREFIX):
        return None
    module, mark, rest = name[len(PREFIX) :].rpartition(_MARK)
    if not mark:
        return rest, ""
    part = _PARTS.get(rest)
    return (module, part) if part else None


def plain_full_name(name: str) -> str:
    """The name of a whole tensor without PEFT's wrapping: a bias lies below ``base_layer`` where LoRA is beside it."""
    return name.replace(".base_layer.bias", ".bias") if name.endswith(".base_layer.bias") else name


def weight_of_full_tensor(name: str) -> str:
    """What a model calls the whole tensor that an adapter keeps under ``name``."""
    return name.removeprefix(PREFIX).replace(".token_adapter.base_layer.", ".").replace(".base_layer.", ".")


def full_tensor_key(plain: str, modules: Collection[str]) -> str:
    """The name under which PEFT looks for a whole tensor when ``modules`` carry LoRA."""
    module = plain.removeprefix(PREFIX).removesuffix(".bias")
    return f"{PREFIX}{module}.base_layer.bias" if plain.endswith(".bias") and module in modules else plain


def foreign_format(names: list[str]) -> str:
    """The format whose names these are, if it is a known one that is not PEFT's; else empty."""
    return next((label for pattern, label in _FOREIGN for name in names if pattern.search(name)), "")


def factor_key(module: str, part: str) -> str:
    """The name under which PEFT looks for the part ``A``, ``B``, ``bias``, ``magnitude`` or one of an embedding."""
    return PREFIX + module + _MARK + next(ending for ending, name in _PARTS.items() if name == part)
