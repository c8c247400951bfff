"""TSV, Iso-C, Iso-CTS and SVC: methods that rebuild the spectrum of the merged delta, in the core.

Published code runs on dense matrices and meets the null space of low-rank deltas, where singular vectors are
arbitrary. Here directions of zero singular value are left out, so every result is a function of the deltas.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loreg.algebra.canonical import CanonicalForm, canonicalize
from loreg.algebra.decompositions import svd
from loreg.algebra.spectrum import Spectrum, decompose
from loreg.merging.batch import Batch
from loreg.merging.method import Method, MethodFamily, Parameter, Values


def tsv(batch: Batch, values: Values) -> Spectrum:
    """Return ``U⊥ diag(S) V⊥ᵀ`` of all sources' singular vectors side by side, each side made orthogonal (Procrustes).

    Where there are more vectors than dimensions, each source keeps its share of the largest.
    """
    room = min(batch.framed.left.r.shape[-2], batch.framed.right.r.shape[-2])
    total = sum(batch.stack.ranks)
    parts = []
    for part, weight in zip(batch.framed.sources(), batch.weights.unbind(-1), strict=True):
        keep = part.rank if total <= room else max(1, part.rank * room // total)
        parts.append(_weighted(_directions(canonicalize(part), keep), weight))
    return _orthogonal(batch, parts, torch.cat([part.s for part in parts], dim=-1))


def iso(batch: Batch, values: Values) -> Spectrum:
    """Return the singular vectors of the weighted sum, all with its mean singular value (Iso-C)."""
    merged = _sum(batch)
    flat = torch.where(merged.s > 0, _mean(merged.s), 0.0)
    return Spectrum(merged.left, merged.right, merged.u, flat, merged.v, flat.square().sum(-1))


def iso_cts(batch: Batch, values: Values) -> Spectrum:
    """Return Iso-C of the leading vectors of the sum, joined by those that each source has beside them (Iso-CTS)."""
    merged = _sum(batch)
    # how many directions are common, how many are each source's own
    count, size = len(batch.positions), merged.s.shape[-1]
    own = round((size - int(size * values["common"])) / count)
    shared = size - own * count
    if shared < 1:
        own, shared = (size - 1) // count, size - (size - 1) // count * count
    # common directions
    common = _directions(CanonicalForm(merged.u, merged.s, merged.v), shared)
    # task-specific directions
    parts = [common]
    for part, weight in zip(batch.framed.sources(), batch.weights.unbind(-1), strict=True):
        core = weight.reshape(-1, 1, 1) * (part.b @ part.a)
        u, s, vh = svd(core - common.u @ (common.u.mT @ core))
        norm = torch.linalg.matrix_norm(core).unsqueeze(-1)
        s = torch.where(s > norm * max(batch.shape) * torch.finfo(s.dtype).eps, s, 0.0)
        parts.append(_directions(CanonicalForm(u, s, vh.mT), own))
    # orthogonalise, isotropic scaling
    s = torch.cat([part.s for part in parts], dim=-1)
    return _orthogonal(batch, parts, torch.where(s > 0, _mean(s), 0.0))


def svc(batch: Batch, values: Values) -> Spectrum:
    """Return the weighted sum, each singular value divided by how often the sources counted its direction.

    The sum's response to direction i, ``uᵢᵀΔ``, is ``sₜ`` times that of source t, projected on it: over 1 it was
    counted before. σᵢ is divided by the mean of ``max(alpha, sₜ)``.
    """
    merged = _sum(batch)
    # project: the response of each source, and of the sum, to each direction
    responses = merged.u.mT @ batch.framed.cores()  # (T, n, p, m')
    response = merged.s.unsqueeze(-1) * merged.v.mT
    ratio = (response * responses).sum(-1) / responses.square().sum(-1).clamp_min(1e-300)
    # calibrate
    counted = ratio.clamp_min(values["alpha"]).mean(0)
    s, order = (merged.s / counted).sort(dim=-1, descending=True)
    u, v = (x.gather(-1, order.unsqueeze(-2).expand_as(x)) for x in (merged.u, merged.v))
    return Spectrum(merged.left, merged.right, u, s, v, s.square().sum(-1))


def _sum(batch: Batch) -> Spectrum:
    framed = batch.framed
    size = (batch.weights.abs() * batch.norms()).sum(-1)
    return decompose(framed.left, framed.right, framed.weighted_sum(batch.weights), size)


def _directions(canonical_form: CanonicalForm, keep: int) -> CanonicalForm:
    """Return the ``keep`` leading singular vectors; those of a zero singular value are zero."""
    u, s, v = canonical_form.u[..., :keep], canonical_form.s[..., :keep], canonical_form.v[..., :keep]
    nonzero = (s > s[..., :1] * u.shape[-2] * torch.finfo(s.dtype).eps).to(s.dtype).unsqueeze(-2)
    return CanonicalForm(u * nonzero, s * nonzero.squeeze(-2), v * nonzero)


def _weighted(canonical_form: CanonicalForm, weight: Tensor) -> CanonicalForm:
    sign = torch.where(weight < 0, -1.0, 1.0).to(canonical_form.u)
    nonzero = (weight != 0).to(canonical_form.u).reshape(-1, 1, 1)
    return CanonicalForm(
        canonical_form.u * sign.reshape(-1, 1, 1) * nonzero,
        canonical_form.s * weight.abs().unsqueeze(-1),
        canonical_form.v * nonzero,
    )


def _orthogonal(batch: Batch, parts: list[CanonicalForm], s: Tensor) -> Spectrum:
    left = _polar(torch.cat([part.u for part in parts], dim=-1))
    right = _polar(torch.cat([part.v for part in parts], dim=-1))
    return decompose(batch.framed.left, batch.framed.right, (left * s.unsqueeze(-2)) @ right.mT)


def _polar(x: Tensor) -> Tensor:
    """Return the nearest matrix with orthonormal columns (Schönemann 1966), on the span of x where its rank is less."""
    u, s, vh = svd(x)
    spanned = (s > s[..., :1] * max(x.shape[-2:]) * torch.finfo(s.dtype).eps).to(s.dtype)
    nearest: Tensor = (u * spanned.unsqueeze(-2)) @ vh
    return nearest


def _mean(s: Tensor) -> Tensor:
    """Return the mean of the singular values that are not zero, (n, 1)."""
    return s.sum(-1, keepdim=True) / s.count_nonzero(dim=-1).clamp_min(1).unsqueeze(-1)


METHODS = (
    Method(
        name="tsv",
        family=MethodFamily.SPECTRAL,
        summary="every source's singular vectors, made orthogonal to one another",
        source="Gargiulo et al. 2025, Task Singular Vectors, arXiv 2412.00081",
        concept=(
            "The singular vectors of all weighted deltas are put side by side, each side is replaced by the nearest "
            "matrix with orthonormal columns (Procrustes), and the singular values stay: directions of different "
            "sources no longer interfere."
        ),
        use="to join adapters of several tasks whose directions overlap, so that in a sum they disturb each other",
        merge=tsv,
    ),
    Method(
        name="iso",
        family=MethodFamily.SPECTRAL,
        summary="the weighted sum with all of its singular values equal (Iso-C)",
        source="Marczak et al. 2025, No Task Left Behind, arXiv 2502.04959",
        concept=(
            "The weighted sum keeps its singular vectors; all of its singular values become their mean (Iso-C), so "
            "that directions that few sources have weigh as much as common ones."
        ),
        use="to join several tasks, of which the strongest would drown the rest in a sum",
        merge=iso,
    ),
    Method(
        name="iso_cts",
        family=MethodFamily.SPECTRAL,
        summary="the sum's leading directions and each source's own, all with one singular value (Iso-CTS)",
        source="Marczak et al. 2025, No Task Left Behind, arXiv 2502.04959",
        concept=(
            "The leading directions of the weighted sum, a share ``common`` of them, are joined by the leading ones "
            "that each source has beside them; all are made orthogonal and get one singular value, the mean (Iso-CTS)."
        ),
        use="as iso, with more adapters or more different ones, where what only one of them has gets lost",
        merge=iso_cts,
        parameters=(Parameter("common", 0.8, "the share of directions taken from the sum", 0, 1),),
    ),
    Method(
        name="svc",
        family=MethodFamily.SPECTRAL,
        summary="the weighted sum, directions that several sources share not counted several times",
        source="Li et al. 2026, When Shared Knowledge Hurts, arXiv 2602.05536",
        concept=(
            "A direction that several sources have is counted several times in their sum. Each singular value of the "
            "sum is divided by how often the sources counted its direction: the mean over the sources of ``max(alpha, "
            "sₜ)``, where sₜ is the ratio of the sum's response to that of the source."
        ),
        use="to join adapters of overlapping tasks, whose sum overshoots what they share",
        merge=svc,
        parameters=(
            Parameter(
                "alpha", 1.0, "the least that a source counts: 1 never amplifies, 0.1 is the paper's code", 0.01, 100
            ),
        ),
    ),
)
