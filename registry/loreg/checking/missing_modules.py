"""Modules that some servers expect beside those that an adapter has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loreg.bases import names


def missing_in_layers(modules: Iterable[str], tensor_digests: Mapping[str, object] | None) -> list[str]:
    """The modules that are there in some layers and not in others, in order of layers.

    The layers are those of the base whose ``tensor_digests`` are given, by canonical name; else those in which the
    adapter has anything.
    """
    having: dict[tuple[str, str], set[int]] = {}
    layers: dict[str, set[int]] = {}
    for module in modules:
        before, number, after = split_layer(module)
        if number is not None:
            having.setdefault((before, after), set()).add(number)
            layers.setdefault(before, set()).add(number)
    if tensor_digests is not None:
        for name in tensor_digests:
            before, number, _ = split_layer(name)
            if number is not None and before in layers:
                layers[before].add(number)
    missing = []
    for (before, after), numbers in having.items():
        for number in sorted(layers[before] - numbers):
            name = f"{before}{number}{after}"
            if tensor_digests is None or names.canonical_name(f"{name}.weight") in tensor_digests:
                missing.append(name)
    return missing


def missing_partners(modules: Iterable[str], kind: str, partner: str) -> list[str]:
    """The modules of the type ``partner`` that are not there beside one of the type ``kind``."""
    every = set(modules)
    wanted = (f"{m.removesuffix(kind)}{partner}" for m in sorted(every) if m == kind or m.endswith(f".{kind}"))
    return [name for name in wanted if name not in every]


def split_layer(module: str) -> tuple[str, int | None, str]:
    """``("model.layers.", 3, ".self_attn.q_proj")``: what is before and after the number of the layer."""
    parts = module.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal() and 0 < i < len(parts) - 1:
            return ".".join(parts[:i]) + ".", int(part), "." + ".".join(parts[i + 1 :])
    return "", None, module
