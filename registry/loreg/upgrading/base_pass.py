"""Read the weights of both bases, each changed tensor once, and measure what every adapter meets of the change.

Adapters are taken together by the tensor that they touch: five hundred of them cost one pass, and the memory of the
two tensors that are compared, and of the factors on them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.header import Tensor
from loreg.adapters.module_shape import ModuleKind, as_matrices
from loreg.adapters.structure import AdapterStructure
from loreg.baking.float_codec import read_tensor
from loreg.bases import names
from loreg.bases.affected_tensors import TargetTensor
from loreg.bases.compatibility import BaseTensors
from loreg.bases.model import Model
from loreg.entities import Progress, no_progress
from loreg.upgrading.touched_change import Array, Directions, TouchedChange, delta_directions, measure_touched
from loreg.upgrading.touched_tensors import TouchedTensor, pair_tensors

_BATCH = 32  # adapters that one thread measures on a tensor
#: A tensor of both bases, by its canonical names.
_Pair = tuple[str, str]


@dataclass(frozen=True)
class BaseWeights:
    """A base whose weights are on this machine."""

    tensors: BaseTensors
    model: Model

    @cached_property
    def locations(self) -> Mapping[str, tuple[Path, Tensor]]:
        """Where each tensor is stored, by its canonical name."""
        return names.by_canonical_name(self.model.tensors)

    def read(self, name: str) -> Array:
        """Read the tensor of that canonical name, in float32, or in float64 if it is stored so."""
        return read_tensor(*self.locations[name])


@dataclass(frozen=True, eq=False)
class ComparedAdapter:
    """An adapter whose weights are where its structure says, and the tensors that it touches."""

    structure: AdapterStructure
    tensors: Sequence[TouchedTensor]


@dataclass(frozen=True)
class _Touch:
    """The factors of one module on one tensor; ``number`` is the position of the adapter."""

    number: int
    adapter: ComparedAdapter
    target: TargetTensor
    transposed: bool

    def directions(self, matrix: int) -> Directions:
        """Return the directions of the delta on the matrix with that number."""
        b, a = _read_factors(self.adapter, self.target.module.name)
        rows = slice(*self.target.rows) if self.target.rows else slice(None)
        return delta_directions(b[matrix][rows], a[matrix], self.target.module.scale)


@dataclass(frozen=True)
class BaseChanges:
    """What a pass measured: of each adapter its modules, and ‖W′ − W‖/‖W‖ of all tensors that changed.

    That is None where none of these could be compared, or has numbers that are not finite.
    """

    adapters: tuple[Mapping[str, TouchedChange], ...]
    change: float | None


def measure_bases(
    old: BaseWeights, new: BaseWeights, adapters: Sequence[ComparedAdapter], progress: Progress = no_progress
) -> BaseChanges:
    """Measure what each adapter meets of its modules' change. Raises IntegrityError for a file that is cut off."""
    changes: tuple[dict[str, TouchedChange], ...] = tuple({} for _ in adapters)

    def add(touch: _Touch, figures: TouchedChange) -> None:
        of_adapter, module = changes[touch.number], touch.target.module.name
        of_adapter[module] = of_adapter.get(module, TouchedChange()) + figures

    touches = _by_tensor(adapters)
    pairs = sorted({*touches, *_changed_pairs(old, new)}, key=lambda pair: _place(old, pair))
    whole = change = 0.0
    # Factors are narrow: a thread of its own for some adapters is faster than several threads for each product.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, pair in enumerate(pairs):
            progress("comparing the bases", done, len(pairs))
            if _is_same(old, new, pair):  # not read: the deltas on it count, and no change
                for touch in touches[pair]:
                    for matrix in _numbers(touch.target):
                        add(touch, TouchedChange(delta=float(np.sum(touch.directions(matrix).s ** 2))))
                continue
            weight = old.read(pair[0])
            difference = new.read(pair[1]) - weight
            whole += float(np.sum(np.square(weight, dtype=np.float64)))
            change += float(np.sum(np.square(difference, dtype=np.float64)))
            for touch, figures in _measure_tensor(weight, difference, touches.get(pair, ()), pool):
                add(touch, figures)
    progress("comparing the bases", len(pairs), len(pairs))
    is_known = whole > 0 and math.isfinite(whole + change)
    return BaseChanges(changes, math.sqrt(change / whole) if is_known else None)


def _by_tensor(adapters: Sequence[ComparedAdapter]) -> dict[_Pair, list[_Touch]]:
    """Return what touches each tensor with factors, of those that can be compared."""
    touches: dict[_Pair, list[_Touch]] = {}
    for number, adapter in enumerate(adapters):
        for tensor in adapter.tensors:
            if tensor.target is not None:
                touch = _Touch(number, adapter, tensor.target, tensor.transposed)
                touches.setdefault((tensor.old_name, tensor.new_name), []).append(touch)
    return touches


def _changed_pairs(old: BaseWeights, new: BaseWeights) -> Iterator[_Pair]:
    """Yield the tensors that both bases have, in one shape, and that are not the same."""
    before, after = old.tensors.tensor_digests, new.tensors.tensor_digests
    for name, new_name in pair_tensors(before, after):
        if new_name is None or before[name] == after[new_name] or before[name]["shape"] != after[new_name]["shape"]:
            continue
        if {before[name]["dtype"], after[new_name]["dtype"]} <= set(FLOATS):
            yield name, new_name


def _is_same(old: BaseWeights, new: BaseWeights, pair: _Pair) -> bool:
    return old.tensors.tensor_digests[pair[0]] == new.tensors.tensor_digests[pair[1]]


def _place(old: BaseWeights, pair: _Pair) -> tuple[str, int]:
    file, tensor = old.locations[pair[0]]
    return str(file), tensor.start


def _measure_tensor(
    weight: Array, difference: Array, touches: Sequence[_Touch], pool: ThreadPoolExecutor
) -> Iterator[tuple[_Touch, TouchedChange]]:
    """Yield the figures of each touch on one tensor; those that take the same part of it go together."""
    groups: dict[tuple[object, ...], list[_Touch]] = {}
    for touch in touches:
        target = touch.target
        part = target.row_chunk, target.matrix, tuple(_numbers(target)), touch.transposed
        groups.setdefault(part, []).append(touch)
    for group in groups.values():
        parts = zip(_matrices(weight, group[0]), _matrices(difference, group[0]), strict=True)
        for (number, of_weight), (_, of_difference) in parts:
            measure = partial(_measure_batch, of_weight, of_difference, number)
            batches = [group[start : start + _BATCH] for start in range(0, len(group), _BATCH)]
            for batch, figures in zip(batches, pool.map(measure, batches), strict=True):
                yield from zip(batch, figures, strict=True)


def _measure_batch(weight: Array, difference: Array, number: int, batch: Sequence[_Touch]) -> list[TouchedChange]:
    with np.errstate(invalid="ignore", over="ignore"):  # the verdict says of which numbers nothing is known
        return list(measure_touched(weight, difference, (touch.directions(number) for touch in batch)))


def _numbers(target: TargetTensor) -> range:
    """Return the numbers of the matrices that the tensor holds: one, or one for each expert."""
    shape = target.module.shape
    if target.matrix is None and shape is not None and shape.kind == ModuleKind.EXPERTS:
        return range(shape.matrices)
    return range(target.matrix or 0, (target.matrix or 0) + 1)


def _matrices(array: Array, touch: _Touch) -> Iterator[tuple[int, Array]]:
    """Yield the matrices (out, in) of a tensor that the factors act on, each with its number."""
    numbers = _numbers(touch.target)
    if touch.target.row_chunk is not None:
        piece, pieces = touch.target.row_chunk
        height = len(array) // pieces
        array = array[piece * height : (piece + 1) * height]
    stacked = array if array.ndim == 3 and len(array) == len(numbers) and _is_stack(touch.target) else array[None]
    for number, matrix in zip(numbers, stacked, strict=True):
        flat = matrix.reshape(len(matrix), -1)
        yield number, flat.T if touch.transposed else flat


def _is_stack(target: TargetTensor) -> bool:
    return target.matrix is None and target.module.shape is not None and bool(target.module.shape.parameter)


@lru_cache(maxsize=64)
def _read_factors(adapter: ComparedAdapter, name: str) -> tuple[Array, Array]:
    """Read ``b (E, out, r)`` and ``a (E, r, in)`` of one module, without the scale."""
    module = adapter.structure.modules[name]
    assert module.shape is not None  # noqa: S101  targets are made of modules that have one
    a, b = (read_tensor(adapter.structure.weights, module.tensors[part]) for part in module.shape.tensor_names)
    return as_matrices(module.shape, a, b)
