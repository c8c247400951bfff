"""Decompose every matrix of a batch (SVD, QR, symmetric eigenvalues, pseudoinverse), where that is fast.

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

_SMALL = 1 << 17  # elements of a matrix (1 MiB in float64) up to which QR, too, is done on the host


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin SVD of ``x (…, rows, columns)``, with p = min(rows, columns).

    ``u (…, rows, p)``, ``s (…, p)`` falling, ``vᵀ (…, p, columns)``.
    """
    if not x.is_cuda:
        u, s, vh = _thin_svd(x)
        return u, s, vh
    rows, columns = x.shape[-2:]
    if rows < columns:
        v, s, uh = svd(x.mT)
        return uh.mT, s, v.mT
    if rows == columns or rows * columns <= _SMALL:
        u, s, vh = _on_host(_thin_svd, x)
        return u, s, vh
    q, r = qr(x)
    u, s, vh = _on_host(_thin_svd, r)
    return q @ u, s, vh


def qr(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the thin QR of ``x (…, rows, columns)`` by Householder reflections, with p = min(rows, columns).

    ``q (…, rows, p)`` with orthonormal columns and ``r (…, p, columns)``, upper triangular.
    """
    small = x.shape[-2] * x.shape[-1] <= _SMALL
    q, r = _on_host(torch.linalg.qr, x) if x.is_cuda and small else torch.linalg.qr(x)
    return q, r


def eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (…, n), rising, and eigenvectors (…, n, n) of the symmetric matrices ``x (…, n, n)``."""
    values, vectors = _on_host(torch.linalg.eigh, x) if x.is_cuda else torch.linalg.eigh(x)
    return values, vectors


def pinv(x: Tensor, rtol: float) -> Tensor:
    """Return the pseudoinverse (…, columns, rows) of ``x (…, rows, columns)`` (Moore–Penrose).

    Singular values up to ``rtol`` of the largest are taken as zero.
    """

    def invert(matrices: Tensor) -> tuple[Tensor, ...]:
        return (torch.linalg.pinv(matrices, rtol=rtol),)

    (inverse,) = _on_host(invert, x) if x.is_cuda else invert(x)
    return inverse


def _thin_svd(x: Tensor) -> tuple[Tensor, ...]:
    usv: tuple[Tensor, ...] = torch.linalg.svd(x, full_matrices=False)
    return usv


def _on_host(function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, ...]:
    """Apply ``function`` to every matrix in ``x (…, rows, columns)``, a share of them on each core of the host."""
    matrices = x.cpu().reshape(-1, *x.shape[-2:])
    shares = matrices.tensor_split(min(len(matrices), os.cpu_count() or 1))
    if len(shares) == 1:
        results = [function(matrices)]
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            results = list(pool.map(function, shares))
    outputs = (torch.cat(share_outputs) for share_outputs in zip(*results, strict=True))
    return tuple(output.reshape(*x.shape[:-2], *output.shape[1:]).to(x.device) for output in outputs)
