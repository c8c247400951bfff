"""KnOTS, Core Space and Compress-then-Merge: TIES on entries of the deltas in a basis that all sources share.

The basis comes from the deltas, never from how they are factored: each adapter is brought to its balanced canonical
form ``U√S, √SVᵀ`` first. Refactoring ``(BG, G⁻¹A)`` changes nothing here, where it changes published code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loreg.algebra.canonical import canonicalize
from loreg.algebra.decompositions import svd
from loreg.algebra.factors import Factors
from loreg.algebra.tucker import shared_subspaces
from loreg.merging.batch import Batch
from loreg.merging.entrywise import EntrywiseMerge
from loreg.merging.method import Method, MethodFamily, Parameter, Values
from loreg.merging.pruning import AT_RANDOM, LARGEST, Block, PruneRule
from loreg.merging.sign_election import ELECTION
from loreg.merging.thresholds import ThresholdCalibration
from loreg.merging.tiled_delta import DeltaView


def aligned(batch: Batch, values: Values) -> list[DeltaView]:
    """View the deltas as KnOTS: with ``[Δ₁ … Δ_T] = U S [V₁ᵀ … V_Tᵀ]``, as ``S Vₜᵀ = UᵀΔₜ`` (k, in)."""
    left = batch.framed.left.fix_signs(_left_singular_vectors(torch.cat(list(batch.framed.cores()), dim=-1)))
    framed, sources = batch.framed.sources(), batch.stack.sources()
    return [
        DeltaView([Factors(left[i].T @ f.b[i], s.a[i]) for f, s in zip(framed, sources, strict=True)], left=left[i])
        for i in range(len(batch.modules))
    ]


def canonical_cores(batch: Batch, values: Values) -> list[DeltaView]:
    """View the deltas as Core Space: as ``P_Bᵀ Δₜ P_A`` (k, k), P the singular vectors of all canonical factors."""
    forms = [canonicalize(part) for part in batch.framed.sources()]
    left = _left_singular_vectors(torch.cat([form.u * form.s.sqrt().unsqueeze(-2) for form in forms], dim=-1))
    right = _left_singular_vectors(torch.cat([form.v * form.s.sqrt().unsqueeze(-2) for form in forms], dim=-1))
    return _in_bases(batch, left, right)


def compressed(batch: Batch, values: Values) -> list[DeltaView]:
    """View the deltas as Compress-then-Merge: as ``UᵀΔₜV`` (r, r) in subspaces that fit all, their norms balanced."""
    cores = batch.framed.cores().transpose(0, 1)
    norms = torch.linalg.matrix_norm(cores).unsqueeze(-1).unsqueeze(-1)
    mean, balance = norms.mean(dim=1, keepdim=True), values["balance"]
    balanced = cores * torch.where(norms > 0, (1 - balance) + balance * mean / norms.clamp_min(1e-300), 0.0)
    rank = min(batch.rank or max(batch.stack.ranks), *cores.shape[-2:])
    return _in_bases(batch, *shared_subspaces(balanced, rank))


def _in_bases(batch: Batch, left: Tensor, right: Tensor) -> list[DeltaView]:
    sources = batch.framed.sources()
    left, right = batch.framed.left.fix_signs(left), batch.framed.right.fix_signs(right)
    return [
        DeltaView([Factors(left[i].T @ p.b[i], p.a[i] @ right[i]) for p in sources], left[i], right[i])
        for i in range(len(batch.modules))
    ]


def _left_singular_vectors(columns: Tensor) -> Tensor:
    return svd(columns)[0]


def _chosen_rule(values: Values) -> PruneRule:
    return LARGEST if values["drop"] == "small" else AT_RANDOM


def _keep_chosen(entries: Tensor, block: Block) -> None:
    _chosen_rule(block.values).prune(entries, block)


def _count_chosen(values: Values, total: int) -> tuple[int, ...]:
    return _chosen_rule(values).counts(values, total)


#: Prunes as the parameter ``drop`` says.
_BY_DROP = PruneRule(_keep_chosen, _count_chosen)
_PARAMETERS = (
    Parameter(
        "drop", "small", "which entries are dropped: the small ones, or random ones", choices=("small", "random")
    ),
    Parameter("density", 0.2, "the share of entries that is kept", 1e-6, 1),
    Parameter("seed", 0, "of a random drop, which also depends on the source's digest and the module", 0, 2**63),
    Parameter(
        "rescale",
        "none",
        "make up for what was dropped: not, by 1/density for a random drop, to the same sum of magnitudes",
        choices=("none", "density", "l1"),
    ),
    Parameter("elect", "mass", "whose sign wins; none sums all", choices=("mass", "count", "none")),
    *ELECTION[1:],
)


def _threshold(default: str) -> Parameter:
    about = "whether entries compete within their module or over all modules"
    return Parameter("threshold", default, about, choices=("tensor", "global"))


METHODS = (
    Method(
        name="knots_ties",
        family=MethodFamily.SHARED_BASIS,
        summary="TIES on the deltas in the left singular basis of all of them side by side",
        source="Stoica et al. 2025, KnOTS, arXiv 2410.19735",
        concept=(
            "The deltas are put side by side, ``[Δ₁ … Δ_T] = U S [V₁ᵀ … V_Tᵀ]``, so that all share the left singular "
            "vectors U. TIES runs on the entries of ``S Vₜᵀ``; the result is taken back with U. By default entries of "
            "all modules compete."
        ),
        use="where the adapters' deltas are poorly aligned, so that TIES on their dense entries keeps little of each",
        merge=EntrywiseMerge(aligned, _BY_DROP),
        parameters=(*_PARAMETERS, _threshold("global")),
        calibrate=ThresholdCalibration(aligned, _BY_DROP),
    ),
    Method(
        name="core_ties",
        family=MethodFamily.SHARED_BASIS,
        summary="TIES, or another rule by entries, on the k × k cores of the deltas in canonical bases",
        source="Panariello et al. 2025, Core Space, arXiv 2509.17786",
        concept=(
            "Each delta is written as a core ``P_Bᵀ Δₜ P_A`` in bases that span the factors of all sources, k × k with "
            "k = Σ rₜ at most, without loss. TIES runs on the entries of the cores. The factors are brought to their "
            "canonical form first, so that the result does not depend on how an adapter happens to be factored."
        ),
        use="as knots_ties, where models are wide: the entries are k × k, whatever the width",
        merge=EntrywiseMerge(canonical_cores, _BY_DROP),
        parameters=(*_PARAMETERS, _threshold("tensor")),
        calibrate=ThresholdCalibration(canonical_cores, _BY_DROP),
    ),
    Method(
        name="ctm",
        family=MethodFamily.SHARED_BASIS,
        summary="TIES on r × r coordinates in subspaces fitted to all deltas: rank r, nothing truncated after",
        source="He et al. 2026, Compress then Merge, arXiv 2606.03723",
        concept=(
            "Subspaces of rank r that fit all deltas at once, their norms balanced first, are found by alternating "
            "eigenproblems (Tucker). TIES runs on the r × r coordinates in them, so the result has rank r and nothing "
            "is truncated after."
        ),
        use="where the result has to have a given rank, as a server's largest",
        merge=EntrywiseMerge(compressed, _BY_DROP),
        parameters=(
            *_PARAMETERS,
            Parameter("balance", 1.0, "how far the deltas' norms are made equal before fitting: 0 not, 1 fully", 0, 1),
            _threshold("tensor"),
        ),
        calibrate=ThresholdCalibration(compressed, _BY_DROP),
    ),
)
