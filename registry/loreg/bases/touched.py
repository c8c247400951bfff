"""Which tensors of its base an adapter touches, and of which shape they must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.layout import Layout, Module
from loreg.bases import names

SCHEMA = "loreg.base-target/1"


@dataclass(frozen=True)
class Touched:
    """A tensor of the base: the name that the adapter's model has for it, and the shapes that would fit.

    ``what`` is the module for a message.
    """

    what: str
    name: str
    shapes: tuple[tuple[int, ...], ...]


def touched(layout: Layout) -> tuple[Touched, ...]:
    """Every tensor of the base that the factors of the adapter change."""
    transposed = bool(layout.config.raw.get("fan_in_fan_out"))
    return tuple(
        Touched(module.name, tensor_name(module, layout), _shapes(module, transposed))
        for module in layout.modules.values()
        if module.form is not None
    )


def tensor_name(module: Module, layout: Layout) -> str:
    """The name of the tensor that the module's factors change, as the trained model has it."""
    if module.form is None or module.form.kind != "experts":
        return f"{module.name}.weight"
    raise NotImplementedError


def _shapes(module: Module, transposed: bool) -> tuple[tuple[int, ...], ...]:
    form = module.form
    if form is None:
        return ()
    if form.kind == "embedding" or (form.kind == "linear" and transposed):
        return ((form.in_, form.out),)
    if form.kind == "convolution":
        return ((form.out, *form.kernel),)
    if form.kind == "experts":
        return ((form.matrices, form.out, form.in_), (form.matrices, form.in_, form.out))
    return ((form.out, form.in_),)


def found_among(leaves: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The leaf of the tensor that an adapter calls ``name``; that of the embedding for a head that is tied to it."""
    leaf = names.find(leaves, name)
    if leaf is None and names.is_head(names.canonical(name)):
        embedding = names.embedding_among(leaves)
        return leaves[embedding] if embedding else None
    return leaf


def target(leaves: Mapping[str, Mapping[str, Any]], some: tuple[Touched, ...]) -> str | None:
    """Digest over the tensors that an adapter touches, by the names that it has for them; None if one is missing."""
    chosen = {names.canonical(each.name): found_among(leaves, each.name) for each in some}
    if None in chosen.values():
        return None
    document = {"schema": SCHEMA, "names": names.VERSION, "tensors": chosen}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
