"""Judge a sum of adapters at a rank from their joint frames: what ``loreg merge`` certifies, in milliseconds.

The singular values of ``Σ wₜ·Δₜ`` are those of the core ``L·diag(w)·Rᵀ`` (:mod:`loreg.previewing.joint_frames`), so the
error at every rank is exact (Eckart & Young 1936), as is what the kept subspaces hold of each source. What each source
adds to the core, ``LₜRₜᵀ``, is computed once: other weights cost a sum and a decomposition of small matrices.

Where the ranks of the sources add up to more than :data:`MAX_EXACT`, the core is cut to its first coordinates, P·M·Q
with P and Q of orthonormal rows. What is answered then is the truncation of PᵀP·M·QᵀQ: an adapter of that rank which
exists, with ``‖M − PᵀX·Q‖² = ‖M‖² − ‖PMQᵀ‖² + ‖PMQᵀ − X‖²`` (Pythagoras) and ``‖M‖²`` exact from the inner products. By
Eckart and Young the merge's own error is at most that one. At a rank above :data:`MAX_EXACT`, X is the projection to as
many coordinates, which needs no decomposition.

Shapes: n matrices, T sources, k columns, p and p' coordinates, s singular values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.identity.blas import one_blas_thread
from loreg.merging.certificate import SHARES, CertifiedModule, Energies, aggregate, make_certificate
from loreg.merging.coefficients import LINEAR_METHODS
from loreg.previewing.joint_frames import FrameGroup

Array = NDArray[Any]
#: Coordinates up to which everything is computed exactly: with 210 modules that takes about 20 ms.
MAX_EXACT = 32
_HARMLESS = 1e-8  # smallest eigenvalue, of the largest, at which MMᵀ leaves 8 digits of every singular value


@dataclass(frozen=True)
class JudgedSum:
    """The certificates by module, without rounding; ε of all at every rank; the bytes of the factors that are written.

    ``exact`` is False where the figures are bounds.
    """

    modules: tuple[CertifiedModule, ...]
    errors: tuple[float, ...]
    size: int
    exact: bool


def judge_sum(
    groups: Sequence[FrameGroup], weights: Sequence[float], rank: int | None, method: str = "linear"
) -> JudgedSum:
    """Judge ``Σ cₜ·Δₜ`` truncated at ``rank`` in every module; None drops only what is numerically zero.

    ``method`` is one of :data:`loreg.merging.coefficients.LINEAR_METHODS`, which finds c from the weights.
    """
    find_coefficients, values = LINEAR_METHODS[method]
    modules: list[CertifiedModule] = []
    energy, size, exact = 0.0, 0, True
    by_place = np.zeros(max(min(*group.kind.coordinates, MAX_EXACT) for group in groups))
    for group in groups:
        weights_nt = np.tile(np.asarray(weights, np.float64)[list(group.kind.positions)], (len(group.gram), 1))
        with one_blas_thread():  # a second one only waits: twice the work in the same time
            spectrum = _decompose(group, find_coefficients(group.gram, weights_nt, values), rank)
            ranks = _choose_ranks(group, spectrum, rank)
            certified = _certify(group, spectrum, ranks, len(weights))
        modules += certified
        energy += float(spectrum.energy.sum())
        by_place[: spectrum.s.shape[1]] += np.square(spectrum.s).sum(0)
        shape = group.kind.shape
        numbers = sum(module.certificate.rank for module in certified) * shape.matrices * (shape.out + shape.in_)
        size += numbers * group.kind.bits // 8
        exact = exact and spectrum.complete
    unknown = 0.0 if exact else max(energy - float(by_place.sum()), 0.0)
    lost = unknown + np.concatenate([np.cumsum(by_place[::-1])[::-1], [0.0]])  # no difference of large numbers
    errors = np.sqrt(lost / energy) if energy else np.zeros(len(lost))
    return JudgedSum(
        tuple(sorted(modules, key=lambda module: module.certificate.module)), tuple(errors.tolist()), size, exact
    )


@dataclass(frozen=True)
class _Spectrum:
    """``u (n, p, s)``, ``s (n, s)`` falling and ``v (n, p', s)`` of n cores; ``energy`` (n) is ``‖Σ cₜ·Δₜ‖²``.

    ``weights`` (n, T) are the coefficients c of the sources that have the modules. ``u`` and ``v`` have no columns
    where the rank is larger than the cores are.
    """

    u: Array
    s: Array
    v: Array
    energy: Array
    weights: Array
    complete: bool


def _decompose(group: FrameGroup, weights: Array, rank: int | None) -> _Spectrum:
    shape, ranks = group.kind.shape, group.kind.ranks
    complete = max(group.kind.coordinates) <= MAX_EXACT
    core = _sum_deltas(group, weights, MAX_EXACT)
    is_taken = (weights != 0).any(0).tolist()
    most = sum(rank for rank, taken in zip(ranks, is_taken, strict=True) if taken)
    u, s, v = _svd(core, most, with_vectors=complete or (rank or 0) <= MAX_EXACT)
    norms = np.sqrt(np.maximum(np.diagonal(group.gram, axis1=1, axis2=2), 0.0))
    # Singular values that are rounding error are zero, by the threshold of loreg.algebra.spectrum.
    largest = np.maximum(s[:, 0], (norms * np.abs(weights)).sum(1))
    s = np.where(s > (largest * max(shape.out, shape.in_) * np.finfo(np.float64).eps)[:, None], s, 0.0)
    energy = np.square(s).sum(1)
    if not complete:
        energy = np.maximum(energy, np.einsum("nt,ntu,nu->n", weights, group.gram, weights))
    return _Spectrum(u, s, v, energy, weights, complete)


def _sum_deltas(group: FrameGroup, weights: Array, coordinates: int) -> Array:
    """Return ``Σ cₜ·Δₜ`` in its first coordinates, so many at most, (n, p, p')."""
    deltas = group.deltas[..., :coordinates, :coordinates]
    summed = weights[:, 0, None, None] * deltas[:, 0]
    for t in range(1, deltas.shape[1]):
        summed += weights[:, t, None, None] * deltas[:, t]
    return summed


def _svd(core: Array, most: int, *, with_vectors: bool) -> tuple[Array, Array, Array]:
    """Return the thin SVD of the cores (n, p, p'), of rank ``most`` at most.

    By eigenvectors of MMᵀ, which takes a third of the time, where its condition is harmless. Without vectors these are
    empty.
    """
    square = core @ core.swapaxes(1, 2)
    values, vectors = np.linalg.eigh(square) if with_vectors else (np.linalg.eigvalsh(square), square[..., :0])
    values, most = values[:, ::-1], min(most, core.shape[1])
    if core.shape[1] > core.shape[2] or not most or (values[:, most - 1] <= _HARMLESS * values[:, 0]).any():
        u, s, vh = np.linalg.svd(core, full_matrices=False)
        return u, s, vh.swapaxes(1, 2)
    s, u = np.sqrt(values[:, :most]), vectors[..., ::-1][..., :most]
    return u, s, (core.swapaxes(1, 2) @ u) / s[:, None, : u.shape[2]]


def _choose_ranks(group: FrameGroup, spectrum: _Spectrum, rank: int | None) -> Array:
    """Return the rank of each matrix (n); those of one module are written at one, the largest that one needs."""
    shape = group.kind.shape
    if rank is not None:
        return np.full(len(spectrum.s), min(rank, shape.out, shape.in_))
    if not spectrum.complete:  # at most, for how many are zero is not known
        return np.full(len(spectrum.s), min(group.kind.coordinates))
    needed = np.count_nonzero(spectrum.s, axis=1).reshape(-1, shape.matrices).max(1)
    ranks: Array = np.repeat(np.clip(needed, 1, min(shape.out, shape.in_)), shape.matrices)
    return ranks


def _certify(group: FrameGroup, spectrum: _Spectrum, ranks: Array, count: int) -> list[CertifiedModule]:
    """Certify every module of a group; ``count`` is how many sources the merge has."""
    kind, squares = group.kind, np.square(spectrum.s)
    place = np.arange(squares.shape[1])
    loses_nothing = ranks >= min(group.kind.coordinates)
    kept = np.where(place < ranks[:, None], squares, 0.0).sum(1)
    tail = np.where(place >= ranks[:, None], squares, 0.0).sum(1)  # no difference of large numbers
    wholes = np.maximum(np.diagonal(group.gram, axis1=1, axis2=2), 0.0)
    lost = tail
    if not spectrum.complete and ranks.min() > MAX_EXACT:
        kept, shares = _keep_coordinates(group, spectrum.weights, int(ranks.min()))
    else:
        shares = _kept_of_sources(group, spectrum, ranks)
    if not spectrum.complete:
        lost = np.where(loses_nothing, 0.0, np.maximum(spectrum.energy - kept, 0.0))
        # the sum as it is spans what its sources span, unless they cancel
        shares = np.where(loses_nothing[:, None] & (spectrum.weights != 0), wholes, shares)
    in_order = np.cumsum(squares, 1) / np.maximum(spectrum.energy, 1e-300)[:, None]
    smallest = {
        name: np.where(spectrum.energy > 0, (in_order < share).sum(1) + 1, 0).tolist() for name, share in SHARES.items()
    }
    nexts = np.where(ranks < len(place), spectrum.s[np.arange(len(ranks)), np.minimum(ranks, len(place) - 1)], 0.0)
    columns = (spectrum.energy, lost, shares, wholes, nexts, ranks)
    certified = []
    for i, (energy, missing, parts, whole, sigma_next, rank) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        of_sources = [(0.0, 0.0)] * count
        for position, *both in zip(kind.positions, parts, whole, strict=True):
            of_sources[position] = (both[0], both[1])
        energies = Energies(energy, missing, 0.0, tuple(of_sources))
        certificate = make_certificate(
            group.modules[i // kind.shape.matrices],
            energies,
            shape=(kind.shape.out, kind.shape.in_),
            rank_in=sum(kind.ranks),
            rank=rank,
            sigma_next=sigma_next,
            ranks={name: r if (r := values[i]) <= len(place) else None for name, values in smallest.items()},
            complete=spectrum.complete,
        )
        certified.append(CertifiedModule(certificate, energies, ()))
    size = kind.shape.matrices
    if size == 1:
        return certified
    return [aggregate(name, certified[i * size : (i + 1) * size]) for i, name in enumerate(group.modules)]


def _kept_of_sources(group: FrameGroup, spectrum: _Spectrum, ranks: Array) -> Array:
    """Return ``‖Uᵣᵀ·Δₜ·Vᵣ‖²`` (n, T)."""
    # a zero singular value has no direction of its own
    is_kept = np.arange(spectrum.s.shape[1]) < np.minimum(ranks, np.count_nonzero(spectrum.s, axis=1))[:, None]
    most = int(is_kept.sum(1).max(initial=0))
    masks = is_kept[:, None, :most]
    left = (spectrum.u[..., :most] * masks).swapaxes(1, 2)
    right = spectrum.v[..., :most] * masks
    deltas = group.deltas[..., : left.shape[2], : right.shape[1]]
    shares = [np.square(left @ deltas[:, t] @ right).sum((1, 2)) for t in range(deltas.shape[1])]
    return np.stack(shares, -1)


def _keep_coordinates(group: FrameGroup, weights: Array, rank: int) -> tuple[Array, Array]:
    """Return what the first ``rank`` coordinates hold of the sum, ``‖PMQᵀ‖²`` (n), and of each source (n, T)."""
    deltas = group.deltas[..., :rank, :rank]
    return np.square(_sum_deltas(group, weights, rank)).sum((1, 2)), np.einsum("ntij,ntij->nt", deltas, deltas)
