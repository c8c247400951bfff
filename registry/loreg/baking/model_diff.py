"""Compare a fine-tune with its base: which weights changed, and how an adapter could hold each change."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.header import Tensor
from loreg.adapters.module_shape import ModuleKind, ModuleShape
from loreg.baking.float_codec import NUMPY_DTYPES, Array, Scratch, decode, read_bytes, read_into
from loreg.baking.weight_tying import tied_groups
from loreg.bases import names
from loreg.bases.architecture import Architecture, find_architecture
from loreg.bases.identify import digest_tensor
from loreg.bases.model import Model
from loreg.bases.renaming import WeightInFile
from loreg.bases.weight_lookup import EXPERT_CONVERSIONS, WeightLookup
from loreg.errors import MergeError

_TILE_ELEMENTS = 1 << 20  # elements of each model that are compared together
#: An embedding of a model whose class is not known.
_EMBEDDING_NAME = re.compile(r"(^|[._])(embed\w*|wte|wpe)\.")


@dataclass(frozen=True)
class RowBlock:
    """``count`` rows from ``first`` on of one tensor in both models; each row has ``width`` elements."""

    new: tuple[Path, Tensor]
    old: tuple[Path, Tensor]
    first: int
    count: int
    width: int

    def tiles(self) -> Iterator[Array]:
        """Yield ``new − old`` in float32 as it is stored, some rows (n, width) at a time."""
        step = max(1, _TILE_ELEMENTS // max(1, self.width))
        scratch_new, scratch_old, wide = Scratch(), Scratch(), np.dtype(np.float32)
        files = os.open(self.new[0], os.O_RDONLY), os.open(self.old[0], os.O_RDONLY)
        try:
            for done in range(0, self.count, step):
                begin, count = (self.first + done) * self.width, min(step, self.count - done) * self.width
                new = _read_elements(files[0], self.new[1], begin, count, scratch_new, wide)
                old = _read_elements(files[1], self.old[1], begin, count, scratch_old, wide)
                yield np.subtract(new, old).reshape(-1, self.width)
        finally:
            for file in files:
                os.close(file)


#: What a tensor is of the parameter of all experts, that tensor, and the same of the base, None if it lacks it.
ExpertPiece = tuple[WeightInFile, tuple[Path, Tensor], tuple[Path, Tensor] | None]


@dataclass(frozen=True)
class ChangedWeight:
    """One weight of both models: ``name`` is its name in memory. ``old`` is None where the base lacks it.

    ``shape`` is how factors would hold the difference, None where it must be kept whole, for ``reason``. A matrix that
    is stored ``transposed`` is (in, out). The experts of a layer are ``matrices``, each made of rows of some tensors;
    of other weights ``new`` and ``old`` are the whole.
    """

    name: str
    new: tuple[Path, Tensor]
    old: tuple[Path, Tensor] | None
    shape: ModuleShape | None
    reason: str = ""
    transposed: bool = False
    matrices: tuple[tuple[RowBlock, ...], ...] = ()

    def tiles(self, matrix: int = 0) -> Iterator[tuple[int, Array]]:
        """Yield ``new − old`` of one matrix in float32 as it is stored: the first row, and a tile (n, columns)."""
        first = 0
        for rows in self.matrices[matrix] if self.matrices else [self._all_rows()]:
            for tile in rows.tiles():
                yield first, tile
                first += len(tile)

    def _all_rows(self) -> RowBlock:
        assert self.old is not None  # noqa: S101  only weights with a shape have a difference
        shape = self.new[1].shape
        return RowBlock(self.new, self.old, 0, shape[0], math.prod(shape[1:]))

    def is_changed(self) -> bool:
        """Return whether any number differs; stops at the first that does."""
        if self.matrices:
            return any(tile.any() for matrix in self.matrices for rows in matrix for tile in rows.tiles())
        if self.old is None or self.old[1].shape != self.new[1].shape:
            return True
        if not self.new[1].shape or not {self.new[1].dtype, self.old[1].dtype} <= set(FLOATS):
            return read_bytes(*self.new) != read_bytes(*self.old)
        return any(tile.any() for _, tile in self.tiles())


def changed_weights(base: Model, tuned: Model) -> list[ChangedWeight]:
    """Return every weight of the tuned model that is not the same in the base, in the order of its files.

    A weight that is tied to others in the tuned model is there under each of their names, so that the adapter changes
    all of them. Raises MergeError for what no adapter can hold.
    """
    base_tensors = names.by_canonical_name(base.tensors)
    lookup = WeightLookup(base_tensors, find_architecture(base.config), base.config)
    architecture = find_architecture(tuned.config)
    changed = []
    experts: dict[str, list[ExpertPiece]] = {}
    for weight, part, tensor in _weights_in_memory(tuned, architecture):
        locations = [location for location in lookup.find(weight) if _is_counterpart(location.part, part)]
        old = base_tensors[locations[0].name] if locations else None
        if part.expert is not None and part.conversion in EXPERT_CONVERSIONS:
            experts.setdefault(weight, []).append((part, tensor, old))
            continue
        candidate = _compare(weight, tensor, old, architecture)
        if candidate.is_changed():
            if part.conversion:
                raise _conversion_error(candidate.new[1].name, part)
            changed.append(candidate)
    joined = (_join_experts(weight, pieces) for weight, pieces in experts.items())
    return changed + [candidate for candidate in joined if candidate.is_changed()]


def _join_experts(weight: str, pieces: list[ExpertPiece]) -> ChangedWeight:
    """Return the parameter that holds the experts of a layer, which the files store as one tensor each."""
    matrices: dict[int, list[RowBlock]] = {}
    for part, new, old in sorted(pieces, key=lambda piece: (piece[0].expert or 0, piece[0].source)):
        if old is None or old[1].shape != new[1].shape or not {new[1].dtype, old[1].dtype} <= set(FLOATS):
            raise MergeError(
                f"{new[1].name} is not in the base as {new[1].dtype} {new[1].shape}", hint="--base names its own base"
            )
        matrices.setdefault(part.expert or 0, []).append(RowBlock(new, old, 0, *new[1].shape))
    experts = tuple(tuple(blocks) for _, blocks in sorted(matrices.items()))
    out, in_ = sum(block.count for block in experts[0]), experts[0][0].width
    shape = ModuleShape(ModuleKind.EXPERTS, 1, out, in_, len(experts), parameter=weight.rpartition(".")[2])
    return ChangedWeight(weight, pieces[0][1], pieces[0][2], shape, matrices=experts)


def _split_experts(name: str, new: tuple[Path, Tensor], old: tuple[Path, Tensor], transposed: bool) -> ChangedWeight:
    """Return the parameter that holds the experts of a layer, which the files store as one (experts, rows, columns)."""
    count, height, width = new[1].shape
    matrices = tuple((RowBlock(new, old, expert * height, height, width),) for expert in range(count))
    out, in_ = (width, height) if transposed else (height, width)
    shape = ModuleShape(ModuleKind.EXPERTS, 1, out, in_, count, parameter=name.rpartition(".")[2])
    return ChangedWeight(name, new, old, shape, transposed=transposed, matrices=matrices)


def _weights_in_memory(
    model: Model, architecture: Architecture | None
) -> Iterator[tuple[str, WeightInFile, tuple[Path, Tensor]]]:
    """Yield every weight in memory, what the tensor of a file is of it, and that tensor; a tied one under each name."""
    tensors = model.tensors
    file_names = names.by_canonical_name({name: name for name in tensors})
    lookup = WeightLookup(file_names, architecture, model.config)
    groups = tied_groups(
        lookup, file_names, lambda one, other: digest_tensor(*tensors[one]) == digest_tensor(*tensors[other])
    )
    in_memory = {
        names.canonical_name(weight): weight for tie in lookup.ties for group in tie.groups for weight in group
    }
    group_of = {name: group for group in groups for name in group.stored}
    done: set[str] = set()
    for name, tensor in tensors.items():
        if (group := group_of.get(name)) is None:
            for part in architecture.weights_in_file(name) if architecture else [WeightInFile(name)]:
                yield part.weight, part, tensor
        elif group.source not in done:
            done.add(group.source)
            for weight in sorted(in_memory[member] for member in group.members):
                yield weight, WeightInFile(weight), tensor


def _is_counterpart(one: WeightInFile, other: WeightInFile) -> bool:
    """Return whether two tensors are the same piece of one weight."""
    return (one.conversion, one.source, one.expert) == (other.conversion, other.source, other.expert)


def _conversion_error(name: str, part: WeightInFile) -> MergeError:
    return MergeError(
        f"{name} changed, and transformers converts it ({part.conversion}): "
        f"an adapter would have to hold {part.weight}",
        hint="save both models as they are in memory: model.save_pretrained(DIR, save_original_format=False)",
    )


def _compare(
    name: str, new: tuple[Path, Tensor], old: tuple[Path, Tensor] | None, architecture: Architecture | None
) -> ChangedWeight:
    shape = new[1].shape
    if old is None:
        return ChangedWeight(name, new, None, None, "the base has no such tensor")
    if old[1].shape != shape:
        return ChangedWeight(name, new, old, None, f"its shape was {old[1].shape}, and is {shape} now")
    for _, tensor in (new, old):
        if tensor.dtype not in FLOATS:
            return ChangedWeight(name, new, old, None, f"its dtype is {tensor.dtype}")
    module = name.removesuffix(".weight")
    if len(shape) == 3 and module == name and architecture is not None:
        return _split_experts(name, new, old, architecture.has_transposed_experts(name))
    if len(shape) < 2 or module == name or (architecture is not None and not architecture.is_layer(module)):
        return ChangedWeight(name, new, old, None, "it is no matrix of a layer that factors can be added to")
    if len(shape) > 2:
        return ChangedWeight(
            name, new, old, ModuleShape(ModuleKind.CONVOLUTION, 1, shape[0], math.prod(shape[1:]), kernel=shape[1:])
        )
    if architecture.is_embedding(module) if architecture else _EMBEDDING_NAME.search(name):
        return ChangedWeight(name, new, old, ModuleShape(ModuleKind.EMBEDDING, 1, shape[1], shape[0]), transposed=True)
    transposed = architecture is not None and architecture.is_transposed(module)
    out, in_ = reversed(shape) if transposed else shape
    return ChangedWeight(name, new, old, ModuleShape(ModuleKind.LINEAR, 1, out, in_), transposed=transposed)


def _read_elements(
    file: int, tensor: Tensor, first: int, count: int, scratch: Scratch, wide: np.dtype[np.float32]
) -> Array:
    dtype = NUMPY_DTYPES[tensor.dtype]
    stored = scratch.get("read", count, dtype)
    read_into(file, tensor.start + first * dtype.itemsize, stored)
    return decode(stored, tensor.dtype, wide, scratch)
