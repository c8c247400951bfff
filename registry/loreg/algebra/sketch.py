"""The largest singular values of a matrix that exists only one tile of rows at a time.

Randomised subspace iteration, Halko, Martinsson & Tropp 2011 (arXiv 0909.4061), algorithm 4.4. Each pass applies
``ΔᵀΔ`` tile by tile, so that two power iterations and the answer cost three passes and no m × n matrix is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from loreg.algebra.decompositions import qr, svd

OVERSAMPLE = 10
_POWER_ITERATIONS = 2
_SEED = 20110101

Tiles = Callable[[], Iterable[tuple[int, Tensor]]]


def largest_singular(
    tiles: Tiles, shape: tuple[int, int], rank: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``u (out, p), s (p), v (in, p)`` with p = rank + 10 at most, and ``‖Δ‖²``, of the matrix in ``tiles()``.

    ``tiles()`` yields (first row, rows of Δ) and can be called again. What a truncation at r ≤ p loses is exactly
    ``‖Δ‖² − Σ_{i≤r} sᵢ²``.
    """
    out, in_ = shape
    width = min(rank + OVERSAMPLE, out, in_)
    generator = torch.Generator().manual_seed(_SEED)
    basis = torch.randn(in_, width, dtype=torch.float64, generator=generator).to(device)
    for _ in range(_POWER_ITERATIONS):
        image = torch.zeros_like(basis)
        for _, tile in tiles():
            image += tile.T @ (tile @ basis.to(tile.dtype))
        basis, _ = qr(image)
    image = basis.new_empty(out, width)
    energy = basis.new_zeros(())
    for first, tile in tiles():
        image[first : first + tile.shape[0]] = tile @ basis.to(tile.dtype)
        energy += torch.linalg.vector_norm(tile, dim=1).double().square().sum()
    u, s, wh = svd(image)
    return u, s, basis @ wh.T, energy
