"""Which whole tensors lie beside the factors of an adapter, and what its configuration says of them.

``keys`` are the names that whole tensors have in the file, as in ``AdapterStructure.full_tensors``; ``config`` is the
document of ``adapter_config.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loreg.adapters.keys import PREFIX


def full_modules(keys: Iterable[str]) -> list[str]:
    """Return the modules that are in the file whole, by name.

    A bias alone does not make a module whole, nor does a copy of the base's weight or rows of single tokens.
    """
    weights = [key for key in keys if not key.endswith(".bias") and not _is_beside_factors(key)]
    return sorted({key.removeprefix(PREFIX).rpartition(".")[0] for key in weights})


def full_biases(keys: Iterable[str]) -> list[str]:
    """Return the names of the biases whose module is not in the file whole."""
    modules = set(full_modules(keys))
    biases = (key.removeprefix(PREFIX) for key in keys if key.endswith(".bias"))
    return sorted(name for name in biases if name.removesuffix(".bias") not in modules)


def _is_beside_factors(key: str) -> bool:
    return ".base_layer." in key or ".token_adapter." in key


def find_fields_without_tensors(
    config: Mapping[str, object], keys: Iterable[str], has_lora_bias: bool, accepted: Sequence[str]
) -> dict[str, Any]:
    """Return the fields for biases and whole modules that no tensor goes with, each with what it names in vain.

    ``accepted`` are whole modules that may be named all the same: PEFT itself names more of them than a model has.
    """
    keys = tuple(keys)
    fields: dict[str, Any] = {}
    if config.get("bias", "none") != "none" and not full_biases(keys):
        fields["bias"] = config["bias"]
    if config.get("lora_bias") and not has_lora_bias:
        fields["lora_bias"] = config["lora_bias"]
    missing = [
        name
        for name in _modules_to_save(config)
        if name not in accepted and not any(_is_named(module, name) for module in full_modules(keys))
    ]
    return {**fields, "modules_to_save": missing} if missing else fields


def find_unnamed_modules(config: Mapping[str, object], keys: Iterable[str], types: Sequence[str]) -> list[str]:
    """Return the whole modules of these types that ``modules_to_save`` does not name."""
    saved = _modules_to_save(config)
    return [
        module
        for module in full_modules(keys)
        if module.rpartition(".")[2] in types and not any(_is_named(module, name) for name in saved)
    ]


def _modules_to_save(config: Mapping[str, object]) -> list[Any]:
    saved = config.get("modules_to_save")
    return saved if isinstance(saved, list) else []


def _is_named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")
