"""The largest singular values of a matrix that exists only one tile of rows at a time.

Randomised subspace iteration, Halko, Martinsson & Tropp 2011 (arXiv 0909.4061), algorithm 4.4. Each pass applies
``ΔᵀΔ`` tile by tile, so that two power iterations and the answer cost three passes and no m × n matrix is held.

Suffixes: o out, i in, p the width of the sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from loreg.algebra.decompositions import qr, svd

OVERSAMPLE = 10
_POWER_ITERATIONS = 2
_SEED = 20110101

#: The matrix as (first row, rows of it (rows, in)), from its beginning at every call.
Tiles = Callable[[], Iterable[tuple[int, Tensor]]]


def randomized_svd(
    tiles: Tiles, shape: tuple[int, int], rank: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``u (out, p), s (p), v (in, p)`` and ``‖Δ‖²`` () of the matrix Δ in ``tiles()``, of ``shape`` (out, in).

    p is rank + 10, and never more than the matrix has. Float64, on ``device``. What a truncation at r ≤ p loses is
    exactly ``‖Δ‖² − Σ_{i≤r} sᵢ²``.
    """
    out, in_ = shape
    width = min(rank + OVERSAMPLE, out, in_)
    # draw a Gaussian test matrix
    generator = torch.Generator().manual_seed(_SEED)
    basis_ip = torch.randn(in_, width, dtype=torch.float64, generator=generator).to(device)
    # power iteration, with an orthonormal basis after each
    for _ in range(_POWER_ITERATIONS):
        power_ip = torch.zeros_like(basis_ip)
        for _, tile in tiles():
            power_ip += tile.T @ (tile @ basis_ip.to(tile.dtype))
        basis_ip, _ = qr(power_ip)
    # SVD of Δ on that basis
    image_op = basis_ip.new_empty(out, width)
    energy = basis_ip.new_zeros(())
    for first, tile in tiles():
        image_op[first : first + tile.shape[0]] = tile @ basis_ip.to(tile.dtype)
        energy += torch.linalg.vector_norm(tile, dim=1).double().square().sum()
    u_op, s_p, wh_pp = svd(image_op)
    return u_op, s_p, basis_ip @ wh_pp.T, energy
