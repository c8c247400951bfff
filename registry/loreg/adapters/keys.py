"""Read and write tensor names of PEFT's format: ``base_model.model.<module>.lora_A.weight`` and its siblings."""

from __future__ import annotations

import re
from collections.abc import Collection

PREFIX = "base_model.model."
#: Ends the name of the rows of single tokens (``trainable_token_indices``).
TRAINED_ROWS_SUFFIX = ".token_adapter.trainable_tokens_delta"
_LORA = ".lora_"
_PARTS = {
    "A.weight": "A",
    "B.weight": "B",
    "B.bias": "bias",
    "embedding_A": "embedding_A",
    "embedding_B": "embedding_B",
    "magnitude_vector": "magnitude",
    "magnitude_vector.weight": "magnitude",
}
_FOREIGN_FORMATS = (
    (re.compile(r"lora_(unet|te\d?)_|\.lora_(up|down)\."), "kohya"),
    (re.compile(r"\.(hada_|lokr_|oft_blocks|lora_mid|dora_scale)"), "LyCORIS"),
    (re.compile(r"^(transformer|unet|text_encoder)\.|_lora\.(up|down)\.|\.lora\.(up|down)\."), "diffusers"),
    (re.compile(r"^diffusion_model\."), "ComfyUI"),
    (re.compile(r"\.lora_[ab]$"), "MLX"),
    (re.compile(r"\.lora_[AB]$"), "loralib"),
)


def parse_key(name: str) -> tuple[str, str] | None:
    """Return the module and part of the tensor called ``name``; None if PEFT would not look at it.

    The part is ``A``, ``B``, ``bias``, ``magnitude``, ``embedding_A`` or ``embedding_B``, and empty for a full tensor,
    whose "module" is all that stands after PEFT's prefix.
    """
    if not name.startswith(PREFIX):
        return None
    module, lora, rest = name[len(PREFIX) :].rpartition(_LORA)
    if not lora:
        return rest, ""
    part = _PARTS.get(rest)
    return (module, part) if part else None


def strip_base_layer(name: str) -> str:
    """Return the name of a full tensor without PEFT's ``base_layer``, which that of a bias beside LoRA has in it."""
    return name.replace(".base_layer.bias", ".bias") if name.endswith(".base_layer.bias") else name


def weight_of_full_tensor(name: str) -> str:
    """Return what a model calls the full tensor that an adapter keeps under ``name``."""
    return name.removeprefix(PREFIX).replace(".token_adapter.base_layer.", ".").replace(".base_layer.", ".")


def full_tensor_key(name: str, modules: Collection[str]) -> str:
    """Return the name under which PEFT looks for the full tensor ``name`` when ``modules`` carry LoRA.

    ``name`` is as :func:`strip_base_layer` gives it.
    """
    module = name.removeprefix(PREFIX).removesuffix(".bias")
    return f"{PREFIX}{module}.base_layer.bias" if name.endswith(".bias") and module in modules else name


def detect_foreign_format(names: list[str]) -> str:
    """Return the known format other than PEFT's whose tensor names these are; else an empty text."""
    return next((format_ for pattern, format_ in _FOREIGN_FORMATS for name in names if pattern.search(name)), "")


def factor_key(module: str, part: str) -> str:
    """Return the name under which PEFT looks for a part of ``module``, called as :func:`parse_key` calls it."""
    return PREFIX + module + _LORA + next(suffix for suffix, name in _PARTS.items() if name == part)
