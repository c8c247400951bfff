"""Subspaces that several matrices share: Tucker-2, by higher-order orthogonal iteration.

Source: De Lathauwer, De Moor & Vandewalle 2000, On the best rank-(R₁, R₂, …) approximation of higher-order tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loreg.algebra.decompositions import svd

_ITERATIONS = 100
_TOLERANCE = 1e-8


def shared_subspaces(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Orthonormal ``u (n, rows, rank)``, ``v (n, columns, rank)`` that keep the most of ``Σₜ ‖uᵀ Mₜ v‖²``.

    ``matrices`` is (n, T, rows, columns). Starts from the singular vectors of the unfoldings and improves u and v in
    turn, each module until its energy grows by less than 1e-8 of it.
    """
    u = _leading(matrices, rank)
    v = _leading(matrices.mT, rank)
    energy = _energy(matrices, u, v)
    for _ in range(_ITERATIONS):
        next_u = _leading(matrices @ v.unsqueeze(1), rank)
        next_v = _leading(matrices.mT @ next_u.unsqueeze(1), rank)
        next_energy = _energy(matrices, next_u, next_v)
        better = next_energy > energy * (1 + _TOLERANCE)
        if not bool(better.any()):
            break
        pick = better.reshape(-1, 1, 1)
        u, v = torch.where(pick, next_u, u), torch.where(pick, next_v, v)
        energy = torch.where(better, next_energy, energy)
    return u, v


def _leading(matrices: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors of ``[M₁ … M_T]``, (n, rows, rank)."""
    unfolded = matrices.transpose(1, 2).flatten(2)
    return svd(unfolded)[0][..., :rank]


def _energy(matrices: Tensor, u: Tensor, v: Tensor) -> Tensor:
    cores: Tensor = u.mT.unsqueeze(1) @ matrices @ v.unsqueeze(1)
    return cores.square().sum((-3, -2, -1))
