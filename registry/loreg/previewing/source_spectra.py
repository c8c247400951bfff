"""Read the singular values of one adapter's deltas from its frames: nothing of the size of a weight is formed.

With ``Δ = U·L·Rᵀ·Vᵀ``, U and V orthonormal, the core ``L·Rᵀ`` has the singular values of Δ
(:mod:`loreg.previewing.joint_frames`). Where only the first coordinates of a frame are kept, they are the leading
singular directions: those of one source alone.

Shapes: n matrices of one group of modules, E of them in each module (experts, else 1), p singular values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.entities import ModuleSpectrum
from loreg.merging.certificate import SHARES
from loreg.previewing.joint_frames import FrameGroup

Array = NDArray[Any]


def read_spectra(groups: Iterable[FrameGroup]) -> list[ModuleSpectrum]:
    """Return the spectrum of every module of one adapter, by name, from its frames."""
    return sorted((spectrum for group in groups for spectrum in _read_group(group)), key=lambda s: s.module)


def retained_by_rank(spectra: Sequence[ModuleSpectrum]) -> tuple[float, ...]:
    """Return the share of the energy of all modules that their first 0, 1, 2, … singular values hold."""
    energy = sum(spectrum.norm**2 for spectrum in spectra)
    by_place = np.zeros(max((len(spectrum.sigmas) for spectrum in spectra), default=0))
    for spectrum in spectra:
        by_place[: len(spectrum.sigmas)] += np.square(spectrum.sigmas)
    shares = np.minimum(np.cumsum(by_place) / energy, 1.0) if energy else np.ones(len(by_place))
    return (0.0 if energy else 1.0, *shares.tolist())


def _read_group(group: FrameGroup) -> list[ModuleSpectrum]:
    kind = group.kind
    shape, experts = kind.shape, kind.shape.matrices
    s_np = np.linalg.svd(group.left @ group.right.swapaxes(1, 2), compute_uv=False)
    # Singular values that are rounding error are zero, by the threshold of loreg.algebra.spectrum.
    smallest_n = s_np[:, :1] * max(shape.out, shape.in_) * np.finfo(np.float64).eps
    squares_nep = np.square(np.where(s_np > smallest_n, s_np, 0.0)).reshape(-1, experts, s_np.shape[1])
    squares_np = squares_nep.sum(1)
    energy_n = squares_np.sum(1)
    complete = max(kind.coordinates) <= max(group.left.shape[1], group.right.shape[1])
    if not complete:
        energy_n = np.maximum(energy_n, group.gram.reshape(-1, experts).sum(1))
    stable_n = np.divide(energy_n, squares_np[:, 0], out=np.zeros_like(energy_n), where=squares_np[:, 0] > 0)
    needed = {name: _smallest_ranks(squares_np, energy_n, share) for name, share in SHARES.items()}
    return [
        ModuleSpectrum(
            module=name,
            shape=(shape.out, shape.in_),
            rank=kind.ranks[0],
            norm=float(energy_n[i]) ** 0.5,
            stable_rank=float(stable_n[i]),
            sigmas=tuple(np.sqrt(squares_np[i]).tolist()),
            ranks={share: ranks[i] for share, ranks in needed.items()},
            complete=complete,
        )
        for i, name in enumerate(group.modules)
    ]


def _smallest_ranks(squares_np: Array, energy_n: Array, share: float) -> list[int | None]:
    """Return for each module the smallest rank that keeps this share of the energy; None beyond what is known."""
    kept_np = np.cumsum(squares_np, 1) / np.maximum(energy_n, 1e-300)[:, None]
    ranks = np.where(energy_n > 0, (kept_np < share).sum(1) + 1, 0).tolist()
    return [rank if rank <= squares_np.shape[1] else None for rank in ranks]
