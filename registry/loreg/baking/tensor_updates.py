"""Turn the factors of adapters into terms on the tensors of a base, read when they are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.module import Module
from loreg.adapters.module_shape import as_matrices
from loreg.adapters.structure import AdapterStructure
from loreg.baking.float_codec import Array, read_tensor
from loreg.baking.low_rank_update import LowRankTerm
from loreg.bases.affected_tensors import TargetTensor
from loreg.errors import MergeError

_ROUNDING_ERROR = 1e-6  # of float32, relative to a whole delta


@dataclass(frozen=True, eq=False)
class BakeSource:
    """An adapter that is baked in, each delta times ``weight(module)``; ``label`` is its name in messages."""

    label: str
    digest: str
    structure: AdapterStructure
    weight: Callable[[str], float]

    def tensor(self, module: Module, part: str) -> Array:
        """Read the tensor ``part`` of a module, in float32, or in float64 if it is stored so.

        Raises MergeError for a dtype that cannot be computed with.
        """
        tensor = module.tensors[part]
        if tensor.dtype not in FLOATS:
            raise MergeError(
                f"{self.label} cannot be baked: {tensor.name} is {tensor.dtype}, expected one of {', '.join(FLOATS)}",
                hint="convert its factors to one of these first",
            )
        return read_tensor(self.structure.weights, tensor)


@dataclass(frozen=True)
class TensorUpdate:
    """What one module of an adapter changes in a tensor of the base, and whether that is stored transposed."""

    source: BakeSource
    target: TargetTensor
    transposed: bool


def build_terms(updates: Sequence[TensorUpdate], rows: int) -> Callable[[int], Sequence[LowRankTerm]]:
    """Return a function from the number of a matrix, of ``rows`` rows, to the terms that are added to it."""
    return lambda matrix: [
        _embed_in_chunk(_build_term(update, matrix), update.target.row_chunk, rows) for update in updates
    ]


def is_same_update(one: Sequence[TensorUpdate], other: Sequence[TensorUpdate]) -> bool:
    """Return whether the updates of two tensors are the same, but for rounding in float32; False for DoRA."""
    terms = [[_build_term(update, 0) for update in updates] for updates in (one, other)]
    if any(term.magnitude is not None for of_tensor in terms for term in of_tensor):
        return False
    left, right = (_sum_terms(of_tensor) for of_tensor in terms)
    if left is None or right is None:
        return left is right
    if left[0].shape[0] != right[0].shape[0] or left[1].shape[1] != right[1].shape[1]:
        return False
    (p_left, q_left), (p_right, q_right) = left, right
    difference = np.concatenate([p_left, -p_right], axis=1), np.concatenate([q_left, q_right], axis=0)
    return _squared_norm(*difference) <= _ROUNDING_ERROR**2 * max(_squared_norm(*left), _squared_norm(*right))


def _sum_terms(terms: Sequence[LowRankTerm]) -> tuple[Array, Array] | None:
    """Return ``p`` and ``q`` of the sum of the terms as one product, in float64; None if there are none."""
    if not terms:
        return None
    p = [np.multiply(term.p, term.weight * term.scale, dtype=np.float64) for term in terms]
    return np.concatenate(p, axis=1), np.concatenate([term.q for term in terms], axis=0).astype(np.float64)


def _squared_norm(p: Array, q: Array) -> float:
    """Return ``‖p @ q‖²`` without the product, which may be as large as an embedding."""
    return float(np.sum((p.T @ p) * (q @ q.T)))


def bias_terms(sources: Sequence[tuple[BakeSource, Module]]) -> Callable[[int], Sequence[LowRankTerm]]:
    """Return the terms of ``lora_bias``: the scaled biases of the adapters, on the base's bias as one row."""
    identity = np.ones((1, 1), np.float32)
    return lambda matrix: [
        LowRankTerm(identity, np.atleast_2d(source.tensor(module, "bias")), module.scale, source.weight(module.name))
        for source, module in sources
    ]


def _build_term(update: TensorUpdate, matrix: int) -> LowRankTerm:
    source, target, module = update.source, update.target, update.target.module
    b, a = _factors(source, module.name)
    number = matrix if target.matrix is None else target.matrix
    rows = slice(*target.rows) if target.rows else slice(None)
    p, q = b[number][rows], a[number]
    if update.transposed:
        p, q = q.T, p.T
    magnitude = source.tensor(module, "magnitude").reshape(-1) if "magnitude" in module.tensors else None
    return LowRankTerm(p, q, module.scale, source.weight(module.name), magnitude, update.transposed)


def _embed_in_chunk(term: LowRankTerm, row_chunk: tuple[int, int] | None, rows: int) -> LowRankTerm:
    """Return a term on one of several equal runs of a tensor's rows as one on all of its ``rows``."""
    if row_chunk is None:
        return term
    piece, pieces = row_chunk
    p = np.zeros((rows, term.p.shape[1]), term.p.dtype)
    p[piece * rows // pieces : (piece + 1) * rows // pieces] = term.p
    return replace(term, p=p)


@functools.lru_cache(maxsize=8)
def _factors(source: BakeSource, name: str) -> tuple[Array, Array]:
    """Read ``b (E, out, r)`` and ``a (E, r, in)`` of one module, without the scale."""
    module = source.structure.modules[name]
    assert module.shape is not None  # noqa: S101  targets are made of modules that have one
    a_part, b_part = module.shape.tensor_names
    return as_matrices(module.shape, source.tensor(module, a_part), source.tensor(module, b_part))
