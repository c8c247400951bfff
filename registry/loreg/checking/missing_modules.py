"""Modules that some servers expect beside those that an adapter has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loreg.bases import names


def missing_in_layers(modules: Iterable[str], tensor_digests: Mapping[str, object] | None) -> list[str]:
    """Return the modules that are there in some layers and not in others, in order of layers.

    The layers are those of the base whose ``tensor_digests`` are given, by canonical name; else those in which the
    adapter has any module.
    """
    present: dict[tuple[str, str], set[int]] = {}
    layers: dict[str, set[int]] = {}
    for module in modules:
        before, number, after = split_layer(module)
        if number is not None:
            present.setdefault((before, after), set()).add(number)
            layers.setdefault(before, set()).add(number)
    if tensor_digests is not None:
        for name in tensor_digests:
            before, number, _ = split_layer(name)
            if number is not None and before in layers:
                layers[before].add(number)
    missing = []
    for (before, after), numbers in present.items():
        for number in sorted(layers[before] - numbers):
            name = f"{before}{number}{after}"
            if tensor_digests is None or names.canonical_name(f"{name}.weight") in tensor_digests:
                missing.append(name)
    return missing


def missing_partners(modules: Iterable[str], module_type: str, partner: str) -> list[str]:
    """Return the modules of the type ``partner`` that are not there beside one of the type ``module_type``."""
    present = set(modules)
    of_type = [name for name in sorted(present) if f".{name}".endswith(f".{module_type}")]
    partners = (f"{name.removesuffix(module_type)}{partner}" for name in of_type)
    return [name for name in partners if name not in present]


def split_layer(module: str) -> tuple[str, int | None, str]:
    """Split a name at the number of its layer: ``("model.layers.", 3, ".self_attn.q_proj")``; None without one."""
    parts = module.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal() and 0 < i < len(parts) - 1:
            return ".".join(parts[:i]) + ".", int(part), "." + ".".join(parts[i + 1 :])
    return "", None, module
