"""What a merge kept and lost, per module and in total; exact figures from the singular values in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from loreg.algebra.factors import Factors, Stack, rounding_error, squared_norm
from loreg.algebra.spectrum import Spectrum, retained_energy

SCHEMA = "loreg.certificate/2"
_SHARES = {"90": 0.9, "99": 0.99, "99.9": 0.999}
_LITTLE = 0.5  # a source that keeps less than this share of its delta deserves a word
_COARSE = 0.01  # and so does a dtype that adds an error of this size


@dataclass(frozen=True)
class Certificate:
    """Figures of one module, or of all of them together.

    ``epsilon`` is the relative Frobenius error ``√(Σ_{i>r} σᵢ² / Σ σᵢ²)``, ``retained_energy`` is ``1 − ε²``,
    ``sigma_next`` is σ_{r+1}, which bounds ``‖δy‖ ≤ σ_{r+1}·‖x‖``, ``dtype_error`` is the relative error that
    storing in the file's dtype adds. ``retention`` has, per source, the share of the squared norm of its delta that
    lies in the kept subspaces; None where a source has no delta here. ``ranks`` are the smallest that keep 90, 99
    and 99.9 % of the energy. Where not all singular values are known (``complete`` is False), ``sigma_next`` is an
    estimate from below and a rank beyond the known ones is None.
    """

    module: str
    shape: tuple[int, ...]
    rank_in: int
    rank: int
    norm: float
    epsilon: float
    retained_energy: float
    sigma_next: float
    dtype_error: float
    retention: tuple[float | None, ...]
    ranks: Mapping[str, int | None]
    complete: bool


@dataclass(frozen=True)
class Energies:
    """The squared norms of one module from which its certificate, and the total, are made."""

    whole: float
    lost: float
    rounding: float
    sources: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class CertifiedModule:
    """One matrix: its certificate, the squared norms behind it, the singular values that are known."""

    certificate: Certificate
    energies: Energies
    sigmas: tuple[float, ...]


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
    """Certify n merged deltas, truncated at ``ranks`` (n): ``kept`` in float64, ``stored`` what goes into the file.

    ``subspaces`` has the singular vectors of ``kept``; ``sources`` are the T deltas in the coordinates of the
    spectrum and ``positions`` says which of ``count`` they are; ``lost`` (n) is ``‖delta − kept‖²``.
    """
    squares = spectrum.s.square()
    known = squares.shape[-1]
    rounding = rounding_error(kept, stored).tolist()
    within = torch.minimum(ranks, subspaces.numerical_rank())  # what has no singular value has no direction of its own
    shares = torch.stack([retained_energy(subspaces.u, subspaces.v, s, within) for s in sources.sources()], -1).tolist()
    wholes = torch.stack([squared_norm(s) for s in sources.sources()], -1).tolist()
    smallest = {name: _smallest_ranks(squares, spectrum.energy, share) for name, share in _SHARES.items()}
    energy, missing, sigmas = spectrum.energy.tolist(), lost.tolist(), spectrum.s.tolist()
    measured = []
    for i, (module, rank) in enumerate(zip(modules, ranks.tolist(), strict=True)):
        of_sources = [(0.0, 0.0)] * count
        for position, share, whole in zip(positions, shares[i], wholes[i], strict=True):
            of_sources[position] = (share, whole)
        energies = Energies(energy[i], missing[i], rounding[i], tuple(of_sources))
        certificate = _certificate(
            module,
            energies,
            shape=kept.shape,
            rank_in=sum(sources.ranks),
            rank=rank,
            sigma_next=sigmas[i][rank] if rank < known else 0.0,
            ranks={name: r if (r := values[i]) <= known else None for name, values in smallest.items()},
            complete=spectrum.complete,
        )
        measured.append(CertifiedModule(certificate, energies, tuple(sigmas[i])))
    return measured


def aggregate(module: str, parts: Sequence[CertifiedModule]) -> CertifiedModule:
    """Several matrices as one block-diagonal delta: squared norms add, also those of a place in the spectrum."""
    every = [part.energies for part in parts]
    sources = tuple(
        (sum(kept for kept, _ in of_source), sum(whole for _, whole in of_source))
        for of_source in zip(*(e.sources for e in every), strict=True)
    )
    energies = Energies(
        sum(e.whole for e in every), sum(e.lost for e in every), sum(e.rounding for e in every), sources
    )
    certificates = [part.certificate for part in parts]
    certificate = _certificate(
        module,
        energies,
        shape=certificates[0].shape if module else (),
        rank_in=max(c.rank_in for c in certificates),
        rank=max(c.rank for c in certificates),
        sigma_next=max(c.sigma_next for c in certificates),
        ranks={name: _largest(c.ranks[name] for c in certificates) for name in _SHARES},
        complete=all(c.complete for c in certificates),
    )
    by_place = zip_longest(*(part.sigmas for part in parts), fillvalue=0.0)
    return CertifiedModule(certificate, energies, tuple(math.hypot(*values) for values in by_place))


def warnings(whole: Certificate, labels: Sequence[str]) -> list[str]:
    """What a person should know before using the result."""
    found = [
        f"{label} keeps {100 * kept:.3g} % of its delta: raise its weight or the rank"
        for label, kept in zip(labels, whole.retention, strict=True)
        if kept is not None and kept < _LITTLE
    ]
    if whole.dtype_error > _COARSE:
        found.append(f"storing adds an error of {whole.dtype_error:.1e}: the dtype is too narrow for these numbers")
    if not whole.norm:
        found.append("the merged delta is zero: the result does nothing")
    return found


def to_json(modules: Sequence[CertifiedModule], labels: Sequence[str], more: Sequence[str] = ()) -> dict[str, Any]:
    """The certificate of all modules as a JSON document, as it is stored with the version."""
    whole = aggregate("", modules).certificate
    return {
        "schema": SCHEMA,
        "total": _document(whole),
        "modules": [_document(m.certificate) for m in modules],
        "warnings": [*warnings(whole, labels), *more],
    }


def _document(figures: Certificate) -> dict[str, Any]:
    return {**vars(figures), "shape": list(figures.shape), "retention": list(figures.retention)}


def _largest(ranks: Iterable[int | None]) -> int | None:
    every = list(ranks)
    return None if None in every else max(rank for rank in every if rank is not None)


def _certificate(
    module: str,
    energies: Energies,
    *,
    shape: tuple[int, ...],
    rank_in: int,
    rank: int,
    sigma_next: float,
    ranks: Mapping[str, int | None],
    complete: bool,
) -> Certificate:
    lost = energies.lost / energies.whole if energies.whole else 0.0
    kept = energies.whole - energies.lost
    return Certificate(
        module=module,
        shape=shape,
        rank_in=rank_in,
        rank=rank,
        norm=math.sqrt(energies.whole),
        epsilon=math.sqrt(lost),
        retained_energy=1 - lost,
        sigma_next=sigma_next,
        dtype_error=math.sqrt(energies.rounding / kept) if kept else 0.0,
        retention=tuple(min(part / of, 1.0) if of else None for part, of in energies.sources),
        ranks=ranks,
        complete=complete,
    )


def _smallest_ranks(squares: Tensor, energy: Tensor, share: float) -> list[int]:
    """The smallest rank of each module that keeps ``share`` of its energy; one too many if it is not among these."""
    squares, energy = squares.cpu(), energy.cpu()  # a GPU does not add up in the same order every time
    kept = torch.cumsum(squares, -1) / energy.clamp_min(1e-300).unsqueeze(-1)
    # The whole of a complete spectrum may add up to 1 − 1e-16.
    ranks: list[int] = torch.where(energy > 0, (kept < share).sum(-1) + 1, 0).tolist()
    return ranks
