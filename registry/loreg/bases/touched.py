"""Which tensors of its base an adapter touches, and of which shape they must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.forms import Form
from loreg.adapters.layout import Layout, Module
from loreg.bases import names

SCHEMA = "loreg.base-target/1"

Shape = tuple[int, ...]
#: In the order in which their modules declare them: PEFT wraps the first of two parameters first, so it lies inside.
_PARAMETERS = ("gate_up_proj", "down_proj")
#: What models that store their experts one by one call the rows of each parameter, with Mixtral's own words beside.
_ONE_BY_ONE = {
    "gate_up_proj": (("gate_proj.weight", "w1.weight"), ("up_proj.weight", "w3.weight")),
    "down_proj": (("down_proj.weight", "w2.weight"),),
}


@dataclass(frozen=True)
class Part:
    """One tensor of the base that a module's factors change.

    ``name`` is the name that the adapter's model has for it, ``found`` the canonical name that the base has, None if
    it has none; ``shapes`` would fit. It takes the ``rows`` (first, end) of the delta's matrix number
    ``matrix``; all rows, or all matrices, where that is None.
    """

    module: Module
    name: str
    found: str | None
    shapes: tuple[Shape, ...]
    matrix: int | None = None
    rows: tuple[int, int] | None = None


def parts(layout: Layout, tensors: Iterable[str]) -> tuple[Part, ...]:
    """Every tensor that the factors of the adapter change, among a base's ``tensors`` by canonical name."""
    index = names.Index(tensors)
    transposed = bool(layout.config.raw.get("fan_in_fan_out"))
    return tuple(
        part
        for module in layout.modules.values()
        if module.form is not None
        for part in (
            _of_experts(module, module.form, layout, index)
            if module.form.kind == "experts"
            else [_part(module, f"{module.name}.weight", index, _shapes(module.form, transposed))]
        )
    )


def _part(module: Module, name: str, index: names.Index, shapes: tuple[Shape, ...], **which: Any) -> Part:
    return Part(module, name, index.find(name), shapes, **which)


def _shapes(form: Form, transposed: bool) -> tuple[Shape, ...]:
    if form.kind == "embedding" or (form.kind == "linear" and transposed):
        return ((form.in_, form.out),)
    if form.kind == "convolution":
        return ((form.out, *form.kernel),)
    return ((form.out, form.in_),)


def _of_experts(module: Module, form: Form, layout: Layout, index: names.Index) -> Iterator[Part]:
    """The parameter of all experts together, or the tensors of each one, as transformers splits them to save them."""
    owner, parameter = _parameter(module.name, layout)
    name = f"{owner}.{parameter}"
    split = _ONE_BY_ONE.get(parameter, ())
    if index.find(name) is not None or not split:
        shapes: set[Shape] = {(form.matrices, form.out, form.in_), (form.matrices, form.in_, form.out)}
        if form.matrices == 1:
            shapes.add((form.out, form.in_))
        yield _part(module, name, index, tuple(sorted(shapes)))
        return
    each = form.out // len(split)
    for expert in range(form.matrices):
        for i, spellings in enumerate(split):
            tried = [f"{owner}.{expert}.{spelling}" for spelling in spellings]
            found = next((name for name in tried if index.find(name) is not None), tried[0])
            rows = (i * each, (i + 1) * each)
            yield _part(module, found, index, ((each, form.in_),), matrix=expert, rows=rows)


def _parameter(module: str, layout: Layout) -> tuple[str, str]:
    """The module that owns the parameter, and the parameter's name."""
    owner, depth = module, 0
    while owner.endswith(".base_layer"):
        owner, depth = owner.removesuffix(".base_layer"), depth + 1
    targets = [str(target).rpartition(".") for target in layout.config.raw.get("target_parameters") or ()]
    own = {name for of, _, name in targets if owner == of or owner.endswith(f".{of}")}
    order = sorted(own, key=lambda name: (_PARAMETERS.index(name) if name in _PARAMETERS else len(_PARAMETERS), name))
    return owner, order[max(0, len(order) - 1 - depth)]


def target(leaves: Mapping[str, Mapping[str, Any]], layout: Layout) -> str | None:
    """Digest over the tensors that an adapter touches, by the names that it has for them; None if one is missing."""
    some = parts(layout, leaves)
    if any(part.found is None for part in some):
        return None
    chosen = {names.canonical(part.name): leaves[part.found] for part in some if part.found}
    document = {"schema": SCHEMA, "names": names.VERSION, "tensors": chosen}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
