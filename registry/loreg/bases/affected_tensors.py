"""Which tensors of its base an adapter touches, of which shape they must be, and which way they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.structure import AdapterStructure, Module
from loreg.bases import names
from loreg.bases.architecture import find_architecture
from loreg.bases.weight_lookup import WeightLocation, WeightLookup

SCHEMA = "loreg.base-target/1"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TargetTensor:
    """One tensor of the base that a module's factors change.

    ``name`` is the name that the adapter's model has for the weight, ``found`` the canonical name of the tensor that
    the base has of it, None if it has none, or none that can be changed, for the reason ``cannot``. ``shapes`` would
    fit. It takes the ``rows`` (first, end) of the delta's matrix number ``matrix``; all rows, or all matrices, where
    that is None. ``into`` (piece, pieces) says that the weight is one of several equal runs of the tensor's rows. The
    tensor is held as the transpose of the delta if ``transposed``; None where nothing but its shape says so. ``tied``
    says that the tensor is stored under the name of another weight.
    """

    module: Module
    name: str
    place: str | None
    shapes: tuple[Shape, ...]
    matrix: int | None = None
    rows: tuple[int, int] | None = None
    into: tuple[int, int] | None = None
    transposed: bool | None = False
    tied: bool = False
    why_not: str = ""

    def lies_transposed(self, shape: Shape) -> bool | None:
        """Whether a tensor of this shape holds the transpose of the delta; None where nothing says so."""
        form = self.module.shape
        if self.transposed is not None or form is None:
            return self.transposed
        return None if form.out == form.in_ else tuple(shape[-2:]) == (form.in_, form.out)


def build_lookup(structure: AdapterStructure, tensors: Iterable[str], config: Mapping[str, Any]) -> WeightLookup:
    """The base's ``tensors`` by canonical name, as the class that the model is with the adapter names and ties them."""
    mapping = structure.config.raw.get("auto_mapping")
    trained = str(mapping.get("base_model_class") or "") if isinstance(mapping, dict) else ""
    whole = any(not key.endswith(".bias") for key in structure.full_tensors)
    return WeightLookup(tensors, find_architecture(config, structure.config.task_type, trained, whole=whole), config)


def target_tensors(structure: AdapterStructure, lookup: WeightLookup) -> tuple[TargetTensor, ...]:
    """Every tensor that the factors of the adapter change."""
    return tuple(
        part
        for module in structure.modules.values()
        if module.shape is not None
        for part in _target_tensors(module, module.shape, structure, lookup)
    )


def _target_tensors(
    module: Module, form: ModuleShape, structure: AdapterStructure, lookup: WeightLookup
) -> Iterator[TargetTensor]:
    places = lookup.find(module.weight)
    if form.kind == "experts" and places and places[0].is_of_experts:
        yield from _per_expert_tensors(module, form, places)
        return
    transposed = _transposed(module, form, structure, lookup)
    if not places:
        yield TargetTensor(module, module.weight, None, _shapes(form, transposed), transposed=transposed)
        return
    place = places[0]
    if place.why_not or place.is_of_experts:
        yield TargetTensor(
            module, module.weight, None, (), why_not=place.why_not or f"the files hold it as {place.name}"
        )
        return
    if place.part.how and not place.is_rows:  # its matrices are turned round between file and memory
        transposed = None
    into = (place.part.source, place.part.pieces) if place.is_rows else None
    shapes = _shapes(form, transposed)
    if into:
        shapes = tuple((shape[0] * into[1], *shape[1:]) for shape in shapes)
    yield TargetTensor(module, module.weight, place.name, shapes, into=into, transposed=transposed, tied=place.tied)


def _transposed(module: Module, form: ModuleShape, structure: AdapterStructure, lookup: WeightLookup) -> bool | None:
    """Which way the weight lies in memory: the class of the model says so. PEFT keeps one ``fan_in_fan_out`` for all
    modules of an adapter, that of the last."""
    if form.kind == "embedding":
        return True
    if form.kind == "experts":
        if form.matrices == 1 and not module.weight.endswith("_proj"):
            return False
        return lookup.architecture.has_transposed_experts(module.weight) if lookup.architecture else None
    if form.kind != "linear":
        return False
    if lookup.architecture is not None:
        return lookup.architecture.is_transposed(module.name)
    return None if structure.config.raw.get("fan_in_fan_out") else False


def _shapes(form: ModuleShape, transposed: bool | None) -> tuple[Shape, ...]:
    if form.kind == "convolution":
        return ((form.out, *form.kernel),)
    straight, turned = (form.out, form.in_), (form.in_, form.out)
    both = {None: (straight, turned), True: (turned,), False: (straight,)}[transposed]
    if form.kind != "experts":
        return tuple(dict.fromkeys(both))
    stacked = tuple((form.matrices, *shape) for shape in both)
    return tuple(dict.fromkeys((*stacked, *(both if form.matrices == 1 else ()))))


def _per_expert_tensors(module: Module, form: ModuleShape, places: Iterable[WeightLocation]) -> Iterator[TargetTensor]:
    """The tensors of each expert, as transformers splits a parameter of all of them to save it."""
    for place in places:
        part = place.part
        each = form.out // part.pieces
        rows = (part.source * each, (part.source + 1) * each) if part.pieces > 1 else None
        if part.expert is None or part.expert >= form.matrices:
            yield TargetTensor(module, place.name, None, (), why_not=f"it has factors for {form.matrices} experts")
            return
        yield TargetTensor(module, place.name, place.name, ((each, form.in_),), matrix=part.expert, rows=rows)


def affected_digest(
    tensor_digests: Mapping[str, Mapping[str, Any]], structure: AdapterStructure, lookup: WeightLookup
) -> str | None:
    """Digest over the tensors that an adapter touches, by the names that it has for them; None if one is missing."""
    some = target_tensors(structure, lookup)
    if any(part.place is None for part in some):
        return None
    chosen = {names.canonical_name(part.name): tensor_digests[part.place] for part in some if part.place}
    document = {"schema": SCHEMA, "names": names.VERSION, "tensors": chosen}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
