"""Compare the deltas of adapters exactly, from their factors: what a sketch only makes likely is confirmed here.

⟨Δ, Δ'⟩ = Σ (BᵀB') ∘ (A A'ᵀ), in float64: no delta is ever formed. Two of them that are equal come out as equal to 1e-8.

Suffixes: q the adapter that is asked about, c a candidate; o out, i in, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.dtypes import DTYPES
from loreg.adapters.header import Tensor
from loreg.identity.blas import one_blas_thread
from loreg.identity.factors import FactorFile, Factors, is_readable, singular_values

Array = NDArray[Any]
_SMALLEST = 2.0**-24  # of float16: below it rounding is no longer relative


@dataclass
class PairSums:
    """Sums over the modules of two adapters: squared norms and the inner product of their deltas.

    ``best`` is the most that an approximation at the lower of the two ranks can keep of ‖Δ‖² of the other one.
    ``is_close`` says whether every number of one's factors is the other's, rounded; ``is_equal``, whether all are the
    same. ``distance`` is the sum of ‖B_q − B_c‖² / ‖B_c‖² and that of A, over ``pairs`` of factors.
    """

    qq: float = 0.0
    cc: float = 0.0
    qc: float = 0.0
    best: float = 0.0
    is_close: bool = True
    is_equal: bool = True
    distance: float = 0.0
    pairs: int = 0
    lower_q: int = 0
    lower_c: int = 0
    shared: int = 0

    @property
    def cosine(self) -> float:
        """The cosine of the two deltas; 0 if one is zero."""
        norms = math.sqrt(self.qq * self.cc)
        return max(-1.0, min(1.0, self.qc / norms)) if norms else 0.0

    @property
    def scale(self) -> float:
        """The number c for which c·Δ_c is closest to Δ_q."""
        return self.qc / self.cc if self.cc else 0.0

    @property
    def error(self) -> float:
        """‖Δ_q − c·Δ_c‖ / ‖Δ_q‖ with that number."""
        left = self.qq - self.scale * self.qc
        return math.sqrt(max(left, 0.0) / self.qq) if self.qq else 0.0

    @property
    def has_other_factors(self) -> bool:
        """Whether the factors differ by far more than rounding, or are of other ranks."""
        return not self.pairs or bool(self.lower_q or self.lower_c) or self.distance / self.pairs > 0.01


def compare_pair(query: FactorFile, candidate: FactorFile) -> PairSums:
    """Compare all deltas of two adapters. A module that one lacks counts as zero there."""
    sums = PairSums()
    with one_blas_thread():
        for name in sorted(query.modules.keys() | candidate.modules.keys()):
            q, c = (file.read(name) if name in file.modules else None for file in (query, candidate))
            if q is not None and c is not None and _same_shape(q, c):
                _add_module(sums, q, c, _precision(query, candidate, name))
                continue
            sums.qq += _energy(q)
            sums.cc += _energy(c)
            sums.is_close = sums.is_equal = False
    return sums


def gram_matrix(files: Sequence[FactorFile]) -> Array:
    """Return the inner products (T, T) of all deltas of T adapters."""
    gram = np.zeros((len(files), len(files)))
    with one_blas_thread():
        for name in sorted(set().union(*(file.modules for file in files))):
            opened = [(t, file.read(name)) for t, file in enumerate(files) if name in file.modules]
            for place, (s, one) in enumerate(opened):
                for t, other in opened[place:]:
                    if _same_shape(one, other):
                        gram[s, t] += _inner(one, other)
    return np.triu(gram) + np.triu(gram, 1).T


def stored_precision(file: FactorFile) -> int:
    """Return the bits of the significand that the factors really have: those of bfloat16 that lie in float32 have 8."""
    precision = 0
    for name in list(file.modules)[:4]:
        module, factors = file.structure.modules[name], file.read(name)
        parts = module.shape.tensor_names if module.shape is not None else ()
        for part, numbers in zip(parts, (factors.a, factors.b), strict=True):
            precision = max(precision, _bits_of(numbers, DTYPES[module.tensors[part].dtype].precision))
    return precision


def differing_tensors(query: FactorFile, candidate: FactorFile) -> tuple[str, ...]:
    """Return the names of the tensors beside the factors (heads, biases, magnitudes) that are not the same, rounded."""
    of_query, of_candidate = _other_tensors(query), _other_tensors(candidate)
    differing = sorted(of_query.keys() ^ of_candidate.keys())
    for name in sorted(of_query.keys() & of_candidate.keys()):
        q, c = of_query[name], of_candidate[name]
        if {q.dtype, c.dtype} <= {name for name, dtype in DTYPES.items() if dtype.precision} and q.shape == c.shape:
            precision = min(DTYPES[q.dtype].precision, DTYPES[c.dtype].precision)
            if _are_close(query.numbers(q), candidate.numbers(c), precision):
                continue
        differing.append(name)
    return tuple(differing)


def _add_module(sums: PairSums, q: Factors, c: Factors, precision: int) -> None:
    sums.shared += 1
    qq, cc = _energy(q), _energy(c)
    sums.qq += qq
    sums.cc += cc
    sums.qc += _inner(q, c)
    rank_q, rank_c = q.a.shape[1], c.a.shape[1]
    if rank_q != rank_c:
        sums.is_close = sums.is_equal = False
        sums.lower_q += rank_q < rank_c
        sums.lower_c += rank_c < rank_q
        higher, rank = (c, rank_q) if rank_q < rank_c else (q, rank_c)
        sums.best += float((singular_values(higher)[:, :rank] ** 2).sum())
        return
    sums.best += min(qq, cc)
    for one, other in ((q.b, c.b), (q.a, c.a)):
        sums.is_equal = sums.is_equal and bool((one == other).all())
        sums.is_close = sums.is_close and _are_close(one, other, precision)
        size = float((other**2).sum())
        sums.distance += float(((one - other) ** 2).sum()) / size if size else float(bool(one.any()))
        sums.pairs += 1


def _same_shape(one: Factors, other: Factors) -> bool:
    return one.b.shape[:2] == other.b.shape[:2] and one.a.shape[2] == other.a.shape[2]


def _inner(one: Factors, other: Factors) -> float:
    left = np.einsum("eor,eos->ers", one.b, other.b, optimize=True)
    right = np.einsum("eri,esi->ers", one.a, other.a, optimize=True)
    return one.scale * other.scale * float((left * right).sum())


def _energy(factors: Factors | None) -> float:
    return _inner(factors, factors) if factors is not None else 0.0


def _precision(query: FactorFile, candidate: FactorFile, name: str) -> int:
    """Return the bits of the coarsest dtype of the factors of a module in two adapters."""
    modules = (file.structure.modules[name] for file in (query, candidate))
    tensors = (module.tensors[part] for module in modules if module.shape for part in module.shape.tensor_names)
    return min(DTYPES[tensor.dtype].precision for tensor in tensors)


def _are_close(one: Array, other: Array, precision: int) -> bool:
    """Return whether the numbers differ by no more than the last place of a dtype with so many bits."""
    step = 2.0 ** (1 - min(precision, _bits_of(one, precision), _bits_of(other, precision)))
    return bool((np.abs(one - other) <= step * np.maximum(np.abs(one), np.abs(other)) + _SMALLEST).all())


def _bits_of(numbers: Array, precision: int) -> int:
    """Return how many bits of the significand are used: 8 if all are numbers of bfloat16, 11 if of float16."""
    if precision <= DTYPES["BF16"].precision:
        return precision
    bits = numbers.astype(np.float32).view(np.uint32)
    if precision <= DTYPES["F32"].precision and not (bits & 0xFFFF).any():
        return DTYPES["BF16"].precision
    with np.errstate(over="ignore"):
        if precision > DTYPES["F16"].precision and (numbers.astype(np.float16) == numbers).all():
            return DTYPES["F16"].precision
    return precision


def _other_tensors(file: FactorFile) -> dict[str, Tensor]:
    structure = file.structure
    tensors = dict(structure.full_tensors_and_token_rows)
    for name, module in structure.modules.items():
        factors = module.shape.tensor_names if is_readable(module) and module.shape is not None else ()
        tensors |= {f"{name}.{part}": tensor for part, tensor in module.tensors.items() if part not in factors}
    return tensors
