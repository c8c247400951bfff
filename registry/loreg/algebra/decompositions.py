"""Singular values, orthonormal columns, eigenvectors: of every matrix of a batch, where that is fast.

On a CPU these are torch's own. On a GPU its library takes the matrices of a batch one after another, and one of a few
hundred rows leaves it idle: LAPACK on the host is ahead (pytorch issues 86234 and 174674). So what is small goes to
the host, where each core takes a share of the batch, and what is tall is made small on the GPU first, by QR.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_SMALL = 1 << 17  # numbers of a matrix, 1 MiB, up to which QR too is the host's


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``u (…, rows, p)``, ``s (…, p)`` falling, ``vᵀ (…, p, columns)`` with p = min(rows, columns)."""
    if not x.is_cuda:
        u, s, vh = _thin(x)
        return u, s, vh
    rows, columns = x.shape[-2:]
    if rows < columns:
        v, s, uh = svd(x.mT)
        return uh.mT, s, v.mT
    if rows == columns or rows * columns <= _SMALL:
        u, s, vh = _on_host(_thin, x)
        return u, s, vh
    q, r = qr(x)
    u, s, vh = _on_host(_thin, r)
    return q @ u, s, vh


def qr(x: Tensor) -> tuple[Tensor, Tensor]:
    """``q (…, rows, p)`` with orthonormal columns and ``r (…, p, columns)``, by Householder's reflections."""
    small = x.shape[-2] * x.shape[-1] <= _SMALL
    q, r = _on_host(torch.linalg.qr, x) if x.is_cuda and small else torch.linalg.qr(x)
    return q, r


def eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (…, n), rising, and eigenvectors (…, n, n) of symmetric matrices."""
    values, vectors = _on_host(torch.linalg.eigh, x) if x.is_cuda else torch.linalg.eigh(x)
    return values, vectors


def pinv(x: Tensor, rtol: float) -> Tensor:
    """The pseudoinverse, singular values up to ``rtol`` of the largest taken as zero."""

    def inverted(some: Tensor) -> tuple[Tensor, ...]:
        return (torch.linalg.pinv(some, rtol=rtol),)

    (inverse,) = _on_host(inverted, x) if x.is_cuda else inverted(x)
    return inverse


def _thin(x: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.linalg.svd(x, full_matrices=False)
    return found


def _on_host(function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, ...]:
    """``function`` of every matrix in ``x (…, rows, columns)``, a share of them on each core of the host."""
    matrices = x.cpu().reshape(-1, *x.shape[-2:])
    shares = matrices.tensor_split(min(len(matrices), os.cpu_count() or 1))
    if len(shares) == 1:
        found = [function(matrices)]
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            found = list(pool.map(function, shares))
    parts = (torch.cat(part) for part in zip(*found, strict=True))
    return tuple(part.reshape(*x.shape[:-2], *part.shape[1:]).to(x.device) for part in parts)
