"""What a merge kept and lost, per module and in total; exact figures from the singular values in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loreg.algebra.factors import Factors, Spectrum, retained, rounding_error, squared_norm

SCHEMA = "loreg.certificate/1"
_SHARES = {"90": 0.9, "99": 0.99, "99.9": 0.999}
_LITTLE = 0.5  # a source that keeps less than this share of its delta deserves a word


@dataclass(frozen=True)
class Certificate:
    """Figures of one module, or of all of them together.

    ``epsilon`` is the relative Frobenius error ``√(Σ_{i>r} σᵢ² / Σ σᵢ²)``, ``retained_energy`` is ``1 − ε²``,
    ``sigma_next`` is σ_{r+1}, which bounds ``‖δy‖ ≤ σ_{r+1}·‖x‖``, ``dtype_error`` is the relative error that
    storing in the file's dtype adds. ``retention`` has, per source, the share of the squared norm of its delta that
    lies in the kept subspaces; None where a source has no delta here.
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
    ranks: Mapping[str, int]


@dataclass(frozen=True)
class Energies:
    """The squared norms of one module from which its certificate, and the total, are made."""

    whole: float
    lost: float
    rounding: float
    sources: tuple[tuple[float, float], ...]


def measure(
    module: str,
    full: Spectrum,
    kept: Factors,
    stored: Factors,
    sources: Sequence[Factors | None],
) -> tuple[Certificate, Energies]:
    """Certify one module: ``kept`` is its truncation in float64, ``stored`` what goes into the file."""
    squares = full.s.square()
    rank = min(kept.a.shape[0], full.s.numel())
    energies = Energies(
        whole=float(squares.sum()),
        lost=float(squares[rank:].sum()),
        rounding=rounding_error(kept, stored),
        sources=tuple((retained(full, rank, s), squared_norm(s)) if s is not None else (0.0, 0.0) for s in sources),
    )
    certificate = _certificate(
        module,
        energies,
        shape=kept.shape,
        rank_in=sum(s.a.shape[0] for s in sources if s is not None),
        rank=kept.a.shape[0],
        sigma_next=float(full.s[rank]) if rank < full.s.numel() else 0.0,
        ranks={name: _smallest_rank(squares, share) for name, share in _SHARES.items()},
    )
    return certificate, energies


def total(certificates: Sequence[Certificate], energies: Iterable[Energies]) -> Certificate:
    """All modules together, as one block-diagonal delta: squared norms add, the largest σ counts."""
    every = list(energies)
    sources = tuple(
        (sum(kept for kept, _ in of_source), sum(whole for _, whole in of_source))
        for of_source in zip(*(e.sources for e in every), strict=True)
    )
    together = Energies(
        sum(e.whole for e in every), sum(e.lost for e in every), sum(e.rounding for e in every), sources
    )
    return _certificate(
        "",
        together,
        shape=(),
        rank_in=max(c.rank_in for c in certificates),
        rank=max(c.rank for c in certificates),
        sigma_next=max(c.sigma_next for c in certificates),
        ranks={name: max(c.ranks[name] for c in certificates) for name in _SHARES},
    )


def warnings(whole: Certificate, labels: Sequence[str]) -> tuple[str, ...]:
    """What a person should know before using the result."""
    return tuple(
        f"{label} keeps {100 * kept:.3g} % of its delta: raise its weight or the rank"
        for label, kept in zip(labels, whole.retention, strict=True)
        if kept is not None and kept < _LITTLE
    )


def to_json(whole: Certificate, modules: Sequence[Certificate], notes: Sequence[str]) -> dict[str, Any]:
    """The certificate as a JSON document, as it is stored with the version."""
    return {
        "schema": SCHEMA,
        "total": _document(whole),
        "modules": [_document(certificate) for certificate in modules],
        "warnings": list(notes),
    }


def _document(figures: Certificate) -> dict[str, Any]:
    return {**asdict(figures), "shape": list(figures.shape), "retention": list(figures.retention)}


def _certificate(
    module: str,
    energies: Energies,
    *,
    shape: tuple[int, ...],
    rank_in: int,
    rank: int,
    sigma_next: float,
    ranks: Mapping[str, int],
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
    )


def _smallest_rank(squares: Tensor, share: float) -> int:
    """The smallest rank that keeps ``share`` of the energy."""
    if not float(squares.sum()):
        return 0
    kept = torch.cumsum(squares, 0) / squares.sum()
    return int((kept < share).sum()) + 1
