"""Certify merged modules: exactly, from their singular values in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loreg.algebra.factors import Factors, Stack, rounding_error, squared_norm
from loreg.algebra.spectrum import Spectrum, retained_energy
from loreg.merging.certificate import SHARES, CertifiedModule, Energies, make_certificate


def certify(
    modules: Sequence[str],
    spectrum: Spectrum,
    ranks: Tensor,
    subspaces: Spectrum,
    kept: Factors,
    stored: Factors,
    sources: Stack,
    positions: Sequence[int],
    count: int,
    lost: Tensor,
) -> list[CertifiedModule]:
    """Certify n merged deltas, truncated at ``ranks`` (n): ``kept`` in float64, ``stored`` as in the file.

    ``subspaces`` has the singular vectors of ``kept``; ``sources`` are the T deltas in the coordinates of the
    spectrum and ``positions`` says which of ``count`` they are; ``lost`` (n) is ``‖delta − kept‖²``.
    """
    squares = spectrum.s.square()
    sigma_count = squares.shape[-1]
    rounding = rounding_error(kept, stored).tolist()
    directions = torch.minimum(ranks, subspaces.numerical_rank())  # a zero singular value has no direction of its own
    shares = torch.stack(
        [retained_energy(subspaces.u, subspaces.v, s, directions) for s in sources.sources()], -1
    ).tolist()
    wholes = torch.stack([squared_norm(s) for s in sources.sources()], -1).tolist()
    smallest = {name: _smallest_ranks(squares, spectrum.energy, share) for name, share in SHARES.items()}
    energy, missing, sigmas = spectrum.energy.tolist(), lost.tolist(), spectrum.s.tolist()
    certified = []
    for i, (module, rank) in enumerate(zip(modules, ranks.tolist(), strict=True)):
        of_sources = [(0.0, 0.0)] * count
        for position, share, whole in zip(positions, shares[i], wholes[i], strict=True):
            of_sources[position] = (share, whole)
        energies = Energies(energy[i], missing[i], rounding[i], tuple(of_sources))
        certificate = make_certificate(
            module,
            energies,
            shape=kept.shape,
            rank_in=sum(sources.ranks),
            rank=rank,
            sigma_next=sigmas[i][rank] if rank < sigma_count else 0.0,
            ranks={name: r if (r := values[i]) <= sigma_count else None for name, values in smallest.items()},
            complete=spectrum.complete,
        )
        certified.append(CertifiedModule(certificate, energies, tuple(sigmas[i])))
    return certified


def _smallest_ranks(squares: Tensor, energy: Tensor, share: float) -> list[int]:
    """Return the smallest rank of each module that keeps ``share`` of its energy; one more than known if none does."""
    squares, energy = squares.cpu(), energy.cpu()  # a GPU does not add up in the same order every time
    kept = torch.cumsum(squares, -1) / energy.clamp_min(1e-300).unsqueeze(-1)
    # The whole of a complete spectrum may add up to 1 − 1e-16.
    ranks: list[int] = torch.where(energy > 0, (kept < share).sum(-1) + 1, 0).tolist()
    return ranks
