"""Which whole tensors lie beside the factors of an adapter, and what its configuration says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loreg.adapters.keys import PREFIX


def whole_modules(extras: Iterable[str]) -> list[str]:
    """The modules that are in the file whole, by name: not biases alone, not copies of the base, not single tokens."""
    weights = [key for key in extras if not key.endswith(".bias") and not _is_beside_factors(key)]
    return sorted({key.removeprefix(PREFIX).rpartition(".")[0] for key in weights})


def full_biases(extras: Iterable[str]) -> list[str]:
    """The names of biases whose module is not whole."""
    wholes = set(whole_modules(extras))
    biases = (key.removeprefix(PREFIX) for key in extras if key.endswith(".bias"))
    return sorted(name for name in biases if name.removesuffix(".bias") not in wholes)


def _is_beside_factors(key: str) -> bool:
    return ".base_layer." in key or ".token_adapter." in key


def named_in_vain(
    raw: Mapping[str, Any], extras: Iterable[str], has_lora_bias: bool, but: Sequence[str]
) -> dict[str, Any]:
    """The fields for biases and whole modules that no tensor goes with, each with what it names in vain.

    ``but`` are whole modules that may be named so: PEFT itself names more of them than a model has.
    """
    extras = tuple(extras)
    found: dict[str, Any] = {}
    if raw.get("bias", "none") != "none" and not full_biases(extras):
        found["bias"] = raw["bias"]
    if raw.get("lora_bias") and not has_lora_bias:
        found["lora_bias"] = raw["lora_bias"]
    saved = raw.get("modules_to_save")
    missing = [
        name
        for name in (saved if isinstance(saved, list) else [])
        if name not in but and not any(_is(whole, name) for whole in whole_modules(extras))
    ]
    return {**found, "modules_to_save": missing} if missing else found


def not_named(raw: Mapping[str, Any], extras: Iterable[str], types: Sequence[str]) -> list[str]:
    """Whole modules of these types that ``modules_to_save`` does not name."""
    saved = raw.get("modules_to_save")
    saved = saved if isinstance(saved, list) else []
    return [
        name
        for name in whole_modules(extras)
        if name.rpartition(".")[2] in types and not any(_is(name, one) for one in saved)
    ]


def _is(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")
