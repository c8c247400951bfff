"""Adapters as terms on the tensors of a base, read when they are needed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loreg.adapters.module_shape import as_matrices
from loreg.adapters.structure import AdapterStructure, Module
from loreg.baking.dtypes import FLOATS, Array, compute_dtype, read_tensor
from loreg.baking.low_rank_update import LowRankTerm
from loreg.bases.affected_tensors import TargetTensor
from loreg.errors import MergeError

_ROUNDING = 1e-6  # of float32, relative to a whole delta


@dataclass(frozen=True, eq=False)
class BakeSource:
    """An adapter that is baked in: its deltas times ``weight(module)``."""

    label: str
    digest: str
    structure: AdapterStructure
    weight: Callable[[str], float]

    def tensor(self, module: Module, part: str) -> Array:
        """The numbers of one tensor, in float32, or in float64 if that is what they are."""
        found = module.tensors[part]
        if found.dtype not in FLOATS:
            raise MergeError(
                f"{self.label} cannot be baked: {found.name} is {found.dtype}, expected one of {', '.join(FLOATS)}",
                hint="convert its factors to one of these first",
            )
        descriptor = os.open(self.structure.weights, os.O_RDONLY)
        try:
            return read_tensor(descriptor, found, compute_dtype(found.dtype))
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class TensorUpdate:
    """A part of one adapter that falls on a tensor, and whether that tensor is stored transposed."""

    source: BakeSource
    target: TargetTensor
    transposed: bool


def build_terms(hits: Sequence[TensorUpdate], rows: int) -> Callable[[int], Sequence[LowRankTerm]]:
    """The terms of each matrix, of so many rows, of the tensor that the parts fall on."""
    return lambda matrix: [_within(_term(hit, matrix), hit.target.into, rows) for hit in hits]


def is_same_update(one: Sequence[TensorUpdate], other: Sequence[TensorUpdate]) -> bool:
    """Whether parts that fall on two tensors change both alike, but for rounding in float32."""
    terms = [[_term(hit, 0) for hit in hits] for hits in (one, other)]
    if any(term.magnitude is not None for some in terms for term in some):
        return False
    left, right = (_sum_terms(some) for some in terms)
    if left is None or right is None:
        return left is right
    if left[0].shape[0] != right[0].shape[0] or left[1].shape[1] != right[1].shape[1]:
        return False
    (p, q), (p_other, q_other) = left, right
    difference = np.concatenate([p, -p_other], axis=1), np.concatenate([q, q_other], axis=0)
    return _squared_norm(*difference) <= _ROUNDING**2 * max(_squared_norm(*left), _squared_norm(*right))


def _sum_terms(terms: Sequence[LowRankTerm]) -> tuple[Array, Array] | None:
    """The sum of the terms as one product of two matrices, in float64; None if there are none."""
    if not terms:
        return None
    p = [np.multiply(term.p, term.weight * term.scale, dtype=np.float64) for term in terms]
    return np.concatenate(p, axis=1), np.concatenate([term.q for term in terms], axis=0).astype(np.float64)


def _squared_norm(p: Array, q: Array) -> float:
    """``‖p @ q‖²`` without the product, which may be as large as an embedding."""
    return float(np.sum((p.T @ p) * (q @ q.T)))


def bias_terms(sources: Sequence[tuple[BakeSource, Module]]) -> Callable[[int], Sequence[LowRankTerm]]:
    """``lora_bias``: the scaled biases of the adapters, on the base's bias as one row."""
    one = np.ones((1, 1), np.float32)
    return lambda matrix: [
        LowRankTerm(one, np.atleast_2d(source.tensor(module, "bias")), module.scale, source.weight(module.name))
        for source, module in sources
    ]


def _term(hit: TensorUpdate, matrix: int) -> LowRankTerm:
    part, module = hit.target, hit.target.module
    b, a = _factors(hit.source, module.name)
    number = matrix if part.matrix is None else part.matrix
    rows = slice(*part.rows) if part.rows else slice(None)
    p, q = b[number][rows], a[number]
    if hit.transposed:
        p, q = q.T, p.T
    magnitude = hit.source.tensor(module, "magnitude").reshape(-1) if "magnitude" in module.tensors else None
    return LowRankTerm(p, q, module.scale, hit.source.weight(module.name), magnitude, hit.transposed)


def _within(term: LowRankTerm, into: tuple[int, int] | None, rows: int) -> LowRankTerm:
    """The same change as one of the whole tensor, where it falls on one of several equal runs of its rows."""
    if into is None:
        return term
    piece, pieces = into
    p = np.zeros((rows, term.p.shape[1]), term.p.dtype)
    p[piece * rows // pieces : (piece + 1) * rows // pieces] = term.p
    return replace(term, p=p)


@functools.lru_cache(maxsize=8)
def _factors(source: BakeSource, name: str) -> tuple[Array, Array]:
    """``b (E, out, r)`` and ``a (E, r, in)`` of one module, without the scale."""
    module = source.structure.modules[name]
    assert module.shape is not None  # noqa: S101  parts are made of modules that have one
    a_part, b_part = module.shape.tensor_names
    return as_matrices(module.shape, source.tensor(module, a_part), source.tensor(module, b_part))
