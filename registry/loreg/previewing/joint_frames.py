"""Reduce adapters to small matrices, once, from which any weighted sum of them can be judged.

Of K sources with deltas ``Δₜ = Bₜ·Aₜ``, scales included, the factors of a module are laid side by side, ``B (out, k)``
and ``A (k, in)`` with ``k = Σ rₜ``. Their Gram matrices ``BᵀB`` and ``AAᵀ`` tell everything about every ``Σ wₜ·Δₜ``.
What is kept are L and R with ``BᵀB = LᵀL`` and ``AAᵀ = RᵀR``, from Householder's QR: a Gram matrix itself has the
square of the condition number, and half of the digits of small singular values would be lost (Golub & Van Loan, Matrix
Computations, §5.3). ``L·diag(w)·Rᵀ`` has the singular values of the sum.

The coordinates are turned so that the first ones matter most to all sources together: the rows of L by the
eigenvectors of ``Σ ΔₜΔₜᵀ/‖Δₜ‖²``, those of R by ``Σ ΔₜᵀΔₜ/‖Δₜ‖²``. Where all of them would take too long, the first
ones are a good part.

Shapes: n matrices, of modules of one shape with the same ranks; T sources that have them; m = min(out, k) and
m' = min(in, k) coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.dtypes import DTYPES
from loreg.adapters.module import Module
from loreg.adapters.module_shape import ModuleShape
from loreg.errors import MergeError
from loreg.identity.blas import one_blas_thread
from loreg.identity.factors import FactorFile

Array = NDArray[Any]
#: Coordinates that are kept at most.
MAX_COORDINATES = 64
_MAX_SQUARE = 1e290  # of the norm of a delta: many of them can be added


@dataclass(frozen=True)
class ModuleKind:
    """What modules that are reduced together have in common.

    Their ``shape``, the sources that have them (``positions``), the ``ranks`` there, and the ``bits`` of a number in
    the result.
    """

    shape: ModuleShape
    positions: tuple[int, ...]
    ranks: tuple[int, ...]
    bits: int

    @property
    def coordinates(self) -> tuple[int, int]:
        """How many coordinates the two frames have, m and m'."""
        k = sum(self.ranks)
        return min(self.shape.out, k), min(self.shape.in_, k)


@dataclass(frozen=True)
class FrameGroup:
    """Modules of one kind: ``left`` is (n, m, k), ``right`` (n, m', k), ``gram`` (n, T, T) the deltas' inner products.

    Of more than :data:`MAX_COORDINATES` coordinates only so many are kept.

    n is the number of modules times ``kind.shape.matrices``.
    """

    kind: ModuleKind
    modules: tuple[str, ...]
    left: Array
    right: Array
    gram: Array

    @cached_property
    def deltas(self) -> Array:
        """The delta of every source in the coordinates that are kept, (n, T, m, m'): whatever the weights are."""
        columns = columns_of_sources(self.kind.ranks)
        with one_blas_thread():
            return np.stack([self.left[..., c] @ self.right[..., c].swapaxes(1, 2) for c in columns], axis=1)


def reduce_sources(files: Sequence[FactorFile], labels: Sequence[str]) -> list[FrameGroup]:
    """Reduce every module of every source, each read once, to float64 matrices in groups.

    ``labels`` name the sources. Raises MergeError for numbers that are not finite.
    """
    of_sources = [file.modules for file in files]
    names_of_kind: dict[ModuleKind, list[str]] = {}
    for name in sorted(set().union(*of_sources)):
        owners = {position: modules[name] for position, modules in enumerate(of_sources) if name in modules}
        names_of_kind.setdefault(_kind_of(owners), []).append(name)
    with one_blas_thread():
        return [_reduce(files, labels, kind, names) for kind, names in names_of_kind.items()]


def _kind_of(owners: Mapping[int, Module]) -> ModuleKind:
    """Return the kind of the modules of one name, by the position of their source."""
    shapes = [module.shape for module in owners.values() if module.shape is not None]
    dtypes = {
        module.tensors[part].dtype
        for module in owners.values()
        if module.shape is not None
        for part in module.shape.tensor_names
    }
    shape = replace(shapes[0], rank=0, stacked=False)  # without what is of one source
    return ModuleKind(shape, tuple(owners), tuple(shape.rank for shape in shapes), _common_bits(dtypes))


def _common_bits(dtypes: set[str]) -> int:
    """Return the bits of the narrowest dtype that holds all of these: half precision has two that do not mix."""
    bits = max(DTYPES[dtype].bits for dtype in dtypes)
    return 32 if bits == 16 and len(dtypes) > 1 else bits


def _reduce(files: Sequence[FactorFile], labels: Sequence[str], kind: ModuleKind, names: Sequence[str]) -> FrameGroup:
    left, right = [], []
    for name in names:
        parts = [read_balanced(files[position], labels[position], name) for position in kind.positions]
        b, a = np.concatenate([part[0] for part in parts], axis=2), np.concatenate([part[1] for part in parts], axis=1)
        left.append(np.linalg.qr(b, mode="r"))
        right.append(np.linalg.qr(a.swapaxes(1, 2), mode="r"))
    frames_left, frames_right = np.concatenate(left), np.concatenate(right)
    blocks = source_blocks(kind.ranks)
    gram = (
        blocks.T @ ((frames_left.swapaxes(1, 2) @ frames_left) * (frames_right.swapaxes(1, 2) @ frames_right)) @ blocks
    )
    norms = np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0)
    turned = _turn(frames_left, frames_right, norms, kind.ranks), _turn(frames_right, frames_left, norms, kind.ranks)
    return FrameGroup(kind, tuple(names), *turned, gram)


def read_balanced(file: FactorFile, label: str, name: str) -> tuple[Array, Array]:
    """Return the factors ``b (E, out, r)`` and ``a (E, r, in)`` of a module, with the root of its scale in each.

    ``label`` names the adapter. Raises MergeError for numbers that are not finite, or too large for a sum of squares.
    """
    part = file.read(name)
    if not (np.isfinite(part.b).all() and np.isfinite(part.a).all()):
        raise MergeError(
            f"{label} cannot be merged: module {name} has NaN or infinite numbers",
            hint="train again with a lower learning rate, or merge an earlier checkpoint",
        )
    root = abs(part.scale) ** 0.5  # so that no side is much larger
    b, a = np.sign(part.scale) * root * part.b, root * part.a
    with np.errstate(over="ignore", invalid="ignore"):
        most = float(np.square(b).sum()) * float(np.square(a).sum())
    if not most <= _MAX_SQUARE:
        raise MergeError(
            f"{label} cannot be compared or merged: the delta of module {name} has numbers that float64 cannot square",
            hint="train again with a lower learning rate, or merge an earlier checkpoint",
        )
    return b, a


def source_blocks(ranks: Sequence[int]) -> Array:
    """Return the matrix (k, T) that is 1 where a column of the stack is of a source, else 0."""
    return np.repeat(np.eye(len(ranks)), ranks, axis=0)


def _turn(frames: Array, others: Array, norms: Array, ranks: Sequence[int]) -> Array:
    """Return the frames (n, m, k) in coordinates of which the first matter most to all sources, each of norm 1.

    ``others`` are those of the other side, ``norms`` (n, T) the squared norms of the deltas.
    """
    summed = np.zeros((len(frames), frames.shape[1], frames.shape[1]))
    for t, columns in enumerate(columns_of_sources(ranks)):
        delta = frames[..., columns] @ others[..., columns].swapaxes(1, 2)
        scale = np.divide(1.0, norms[:, t], out=np.zeros(len(norms)), where=norms[:, t] > 0)
        summed += scale[:, None, None] * (delta @ delta.swapaxes(1, 2))
    _, vectors = np.linalg.eigh(summed)
    turned: Array = vectors[..., : -MAX_COORDINATES - 1 : -1].swapaxes(1, 2) @ frames
    return turned


def columns_of_sources(ranks: Sequence[int]) -> list[slice]:
    """Return where the columns of each source lie in the stack."""
    ends = np.cumsum(ranks).tolist()
    return [slice(end - rank, end) for end, rank in zip(ends, ranks, strict=True)]
