"""Find the tensors of a base that an adapter changes: their names, the shapes that fit, which are transposed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from loreg.adapters.module import Module
from loreg.adapters.module_shape import ModuleKind, ModuleShape
from loreg.adapters.structure import AdapterStructure
from loreg.bases import names
from loreg.bases.architecture import find_architecture
from loreg.bases.tensor_digest import TensorDigest
from loreg.bases.weight_lookup import WeightLocation, WeightLookup
from loreg.canonical_json import canonical_json

AFFECTED_SCHEMA = "loreg.base-target/1"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TargetTensor:
    """One tensor of the base that a module's factors change.

    ``name`` is the name that the adapter's model has for the weight, ``base_tensor`` the canonical name of the base's
    tensor for it: None if the base has none, or none that can be changed, for the reason ``why_not``. A tensor of one
    of the ``shapes`` fits. It takes the ``rows`` (first, end) of the delta's matrix number ``matrix``; all rows, or all
    matrices, where that is None. ``row_chunk`` (number, count) says that the weight is one of ``count`` equal runs of
    the tensor's rows. The tensor is stored as the transpose of the delta if ``transposed``; None where nothing but its
    shape says so. ``tied`` says that the tensor is stored under the name of another weight.
    """

    module: Module
    name: str
    base_tensor: str | None
    shapes: tuple[Shape, ...]
    matrix: int | None = None
    rows: tuple[int, int] | None = None
    row_chunk: tuple[int, int] | None = None
    transposed: bool | None = False
    tied: bool = False
    why_not: str = ""

    def is_stored_transposed(self, shape: Shape) -> bool | None:
        """Return whether a tensor of this shape holds the transpose of the delta; None where nothing says so."""
        module_shape = self.module.shape
        if self.transposed is not None or module_shape is None:
            return self.transposed
        out, in_ = module_shape.out, module_shape.in_
        return None if out == in_ else tuple(shape[-2:]) == (in_, out)


def build_lookup(structure: AdapterStructure, tensors: Iterable[str], config: Mapping[str, object]) -> WeightLookup:
    """Return the lookup of a base's ``tensors`` (canonical names) as the class of the adapted model names them."""
    mapping = structure.config.raw.get("auto_mapping")
    trained_class = str(mapping.get("base_model_class") or "") if isinstance(mapping, dict) else ""
    has_full_modules = any(not key.endswith(".bias") for key in structure.full_tensors)
    architecture = find_architecture(
        config, structure.config.task_type, trained_class, has_full_modules=has_full_modules
    )
    return WeightLookup(tensors, architecture, config)


def target_tensors(structure: AdapterStructure, lookup: WeightLookup) -> tuple[TargetTensor, ...]:
    """Return every tensor of the base that the factors of the adapter change."""
    return tuple(
        target
        for module in structure.modules.values()
        if module.shape is not None
        for target in _target_tensors(module, module.shape, structure, lookup)
    )


def _target_tensors(
    module: Module, shape: ModuleShape, structure: AdapterStructure, lookup: WeightLookup
) -> Iterator[TargetTensor]:
    locations = lookup.find(module.weight)
    if shape.kind == ModuleKind.EXPERTS and locations and locations[0].is_one_expert:
        yield from _per_expert_tensors(module, shape, locations)
        return
    transposed = _is_transposed_in_memory(module, shape, structure, lookup)
    if not locations:
        yield TargetTensor(module, module.weight, None, _possible_shapes(shape, transposed), transposed=transposed)
        return
    location = locations[0]
    if location.why_not or location.is_one_expert:
        yield TargetTensor(
            module, module.weight, None, (), why_not=location.why_not or f"the files hold it as {location.name}"
        )
        return
    if location.part.conversion and not location.is_row_chunk:  # its matrices are transposed between file and memory
        transposed = None
    row_chunk = (location.part.source, location.part.pieces) if location.is_row_chunk else None
    shapes = _possible_shapes(shape, transposed)
    if row_chunk:
        shapes = tuple((rows * row_chunk[1], *others) for rows, *others in shapes)
    yield TargetTensor(
        module, module.weight, location.name, shapes, row_chunk=row_chunk, transposed=transposed, tied=location.tied
    )


def _is_transposed_in_memory(
    module: Module, shape: ModuleShape, structure: AdapterStructure, lookup: WeightLookup
) -> bool | None:
    """Return whether the weight is (in, out) in memory, by the class of the model; None where nothing says so.

    PEFT keeps one ``fan_in_fan_out`` for all modules of an adapter, that of the last.
    """
    if shape.kind == ModuleKind.EMBEDDING:
        return True
    if shape.kind == ModuleKind.EXPERTS:
        if shape.matrices == 1 and not module.weight.endswith("_proj"):
            return False
        return lookup.architecture.has_transposed_experts(module.weight) if lookup.architecture else None
    if shape.kind != ModuleKind.LINEAR:
        return False
    if lookup.architecture is not None:
        return lookup.architecture.is_transposed(module.name)
    return None if structure.config.raw.get("fan_in_fan_out") else False


def _possible_shapes(shape: ModuleShape, transposed: bool | None) -> tuple[Shape, ...]:
    if shape.kind == ModuleKind.CONVOLUTION:
        return ((shape.out, *shape.kernel),)
    plain, swapped = (shape.out, shape.in_), (shape.in_, shape.out)
    matrices = {None: (plain, swapped), True: (swapped,), False: (plain,)}[transposed]
    if shape.kind != ModuleKind.EXPERTS:
        return tuple(dict.fromkeys(matrices))
    stacked = tuple((shape.matrices, *matrix) for matrix in matrices)
    return tuple(dict.fromkeys((*stacked, *(matrices if shape.matrices == 1 else ()))))


def _per_expert_tensors(
    module: Module, shape: ModuleShape, locations: Iterable[WeightLocation]
) -> Iterator[TargetTensor]:
    """Yield the tensors of each expert, as transformers splits a parameter of all of them to save it."""
    for location in locations:
        part = location.part
        height = shape.out // part.pieces
        rows = (part.source * height, (part.source + 1) * height) if part.pieces > 1 else None
        if part.expert is None or part.expert >= shape.matrices:
            yield TargetTensor(module, location.name, None, (), why_not=f"it has factors for {shape.matrices} experts")
            return
        yield TargetTensor(module, location.name, location.name, ((height, shape.in_),), matrix=part.expert, rows=rows)


def affected_digest(
    tensor_digests: Mapping[str, TensorDigest], structure: AdapterStructure, lookup: WeightLookup
) -> str | None:
    """Return the digest over the tensors that an adapter changes, by its names for them; None if one is missing."""
    affected: dict[str, TensorDigest] = {}
    for target in target_tensors(structure, lookup):
        if target.base_tensor is None:
            return None
        affected[names.canonical_name(target.name)] = tensor_digests[target.base_tensor]
    document = {"schema": AFFECTED_SCHEMA, "names": names.VERSION, "tensors": affected}
    return hashlib.sha256(canonical_json(document)).hexdigest()
