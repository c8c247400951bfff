"""Subspaces that several matrices share: Tucker-2, by higher-order orthogonal iteration (HOOI).

Source: De Lathauwer, De Moor & Vandewalle 2000, On the best rank-(R₁, R₂, …) approximation of higher-order tensors.

Suffixes: n modules, o rows, i columns, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loreg.algebra.decompositions import svd

_MAX_ITERATIONS = 100
_TOLERANCE = 1e-8


def shared_subspaces(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return orthonormal ``u (n, rows, rank)``, ``v (n, columns, rank)`` that keep the most of ``Σₜ ‖uᵀ Mₜ v‖²``.

    ``matrices`` is (n, T, rows, columns). Starts from the singular vectors of the unfoldings and improves u and v in
    turn, each module until its energy grows by less than 1e-8 of it.
    """
    # HOSVD
    u_nor = _leading_vectors(matrices, rank)
    v_nir = _leading_vectors(matrices.mT, rank)
    energy_n = _energy(matrices, u_nor, v_nir)
    # HOOI
    for _ in range(_MAX_ITERATIONS):
        next_u_nor = _leading_vectors(matrices @ v_nir.unsqueeze(1), rank)
        next_v_nir = _leading_vectors(matrices.mT @ next_u_nor.unsqueeze(1), rank)
        next_energy_n = _energy(matrices, next_u_nor, next_v_nir)
        better_n = next_energy_n > energy_n * (1 + _TOLERANCE)
        if not bool(better_n.any()):
            break
        better_n11 = better_n.reshape(-1, 1, 1)
        u_nor, v_nir = torch.where(better_n11, next_u_nor, u_nor), torch.where(better_n11, next_v_nir, v_nir)
        energy_n = torch.where(better_n, next_energy_n, energy_n)
    return u_nor, v_nir


def _leading_vectors(matrices: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors (n, rows, rank) of the unfoldings ``[M₁ … M_T]``."""
    unfolded = matrices.transpose(1, 2).flatten(2)
    return svd(unfolded)[0][..., :rank]


def _energy(matrices: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return ``Σₜ ‖uᵀ Mₜ v‖²`` (n)."""
    cores: Tensor = u.mT.unsqueeze(1) @ matrices @ v.unsqueeze(1)
    return cores.square().sum((-3, -2, -1))
