"""Certificates: what a merge kept and lost, per module and in total. Imports no torch: a preview has the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from loreg.merging.documents import CERTIFICATE_SCHEMA, CertificateDocument, FiguresDocument

#: The shares of the energy, as they are written, for which a certificate says the smallest rank.
SHARES = {"90": 0.9, "99": 0.99, "99.9": 0.999}
_MIN_RETENTION = 0.5  # a source that keeps less than this share of its delta is worth a warning
_MAX_DTYPE_ERROR = 0.01  # and so is a dtype that adds a larger error


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
    """The squared norms of one module from which its certificate, and the total, are made.

    ``sources`` has, for each source, what is kept of its delta and the whole of it.
    """

    whole: float
    lost: float
    rounding: float
    sources: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class CertifiedModule:
    """One module: its certificate, the squared norms behind it, the singular values that are known."""

    certificate: Certificate
    energies: Energies
    sigmas: tuple[float, ...]


def aggregate(module: str, parts: Sequence[CertifiedModule]) -> CertifiedModule:
    """Certify several matrices as one block-diagonal delta, called ``module``; empty for the total of all modules.

    Squared norms add, also those of the singular values at one place in the spectra.
    """
    energies = [part.energies for part in parts]
    sources = tuple(
        (sum(kept for kept, _ in of_source), sum(whole for _, whole in of_source))
        for of_source in zip(*(e.sources for e in energies), strict=True)
    )
    total = Energies(
        sum(e.whole for e in energies), sum(e.lost for e in energies), sum(e.rounding for e in energies), sources
    )
    certificates = [part.certificate for part in parts]
    certificate = make_certificate(
        module,
        total,
        shape=certificates[0].shape if module else (),
        rank_in=max(c.rank_in for c in certificates),
        rank=max(c.rank for c in certificates),
        sigma_next=max(c.sigma_next for c in certificates),
        ranks={name: _largest(c.ranks[name] for c in certificates) for name in SHARES},
        complete=all(c.complete for c in certificates),
    )
    by_place = zip_longest(*(part.sigmas for part in parts), fillvalue=0.0)
    return CertifiedModule(certificate, total, tuple(math.hypot(*values) for values in by_place))


def list_warnings(total: Certificate, labels: Sequence[str]) -> list[str]:
    """Return what the user should know before using the result; ``labels`` name the sources."""
    warnings = [
        f"{label} keeps {100 * kept:.3g} % of its delta: raise its weight or the rank"
        for label, kept in zip(labels, total.retention, strict=True)
        if kept is not None and kept < _MIN_RETENTION
    ]
    if total.dtype_error > _MAX_DTYPE_ERROR:
        warnings.append(f"storing adds an error of {total.dtype_error:.1e}: the dtype is too narrow for these numbers")
    if not total.norm:
        warnings.append("the merged delta is zero: the result does nothing")
    return warnings


def to_json(modules: Sequence[CertifiedModule], labels: Sequence[str]) -> CertificateDocument:
    """Return the certificate of all modules as the JSON document that is stored with the version."""
    total = aggregate("", modules).certificate
    return {
        "schema": CERTIFICATE_SCHEMA,
        "total": _document(total),
        "modules": [_document(m.certificate) for m in modules],
        "warnings": list_warnings(total, labels),
    }


def _document(certificate: Certificate) -> FiguresDocument:
    return {
        "module": certificate.module,
        "shape": list(certificate.shape),
        "rank_in": certificate.rank_in,
        "rank": certificate.rank,
        "norm": certificate.norm,
        "epsilon": certificate.epsilon,
        "retained_energy": certificate.retained_energy,
        "sigma_next": certificate.sigma_next,
        "dtype_error": certificate.dtype_error,
        "retention": list(certificate.retention),
        "ranks": certificate.ranks,
        "complete": certificate.complete,
    }


def _largest(ranks: Iterable[int | None]) -> int | None:
    choices = list(ranks)
    return None if None in choices else max(rank for rank in choices if rank is not None)


def make_certificate(
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
    """Make the certificate of one module, or of all, from its squared norms."""
    lost_share = energies.lost / energies.whole if energies.whole else 0.0
    kept_energy = energies.whole - energies.lost
    return Certificate(
        module=module,
        shape=shape,
        rank_in=rank_in,
        rank=rank,
        norm=math.sqrt(energies.whole),
        epsilon=math.sqrt(lost_share),
        retained_energy=1 - lost_share,
        sigma_next=sigma_next,
        dtype_error=math.sqrt(energies.rounding / kept_energy) if kept_energy else 0.0,
        retention=tuple(min(kept / whole, 1.0) if whole else None for kept, whole in energies.sources),
        ranks=ranks,
        complete=complete,
    )
