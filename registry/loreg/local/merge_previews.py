"""Preview a merge of stored versions: their files are read once and reduced, and every question after that is fast."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from loreg.entities import MergePreview, PreviewFigures, Source
from loreg.errors import MergeError, UsageError
from loreg.local.reduced_versions import Stored, VersionReader, reduce_versions
from loreg.merging.certificate import Certificate, aggregate, list_warnings
from loreg.merging.coefficients import LINEAR_METHODS
from loreg.merging.compatibility import biases_need_linear
from loreg.merging.strength import describe_strength
from loreg.previewing.weighted_sum import judge_sum

MAX_SOURCES = 16
_MAX_WEIGHT = 1e6
_MAX_RANK = 1 << 16


def validate_preview(count: int, weights: Sequence[float], rank: int | None, method: str) -> None:
    """Raise UsageError unless ``count`` sources, with a finite weight each, can be previewed at ``rank``."""
    if method not in LINEAR_METHODS:
        raise UsageError(
            f"the method {method!r} is not previewed, for it needs more than inner products of the adapters: expected "
            f"{', '.join(LINEAR_METHODS)}",
            hint="loreg methods",
        )
    if not 1 <= count <= MAX_SOURCES:
        raise UsageError(f"{count} sources: expected 1 to {MAX_SOURCES}", hint="loreg merge team/a team/b --dry-run")
    if method == "slerp" and count != 2:
        raise UsageError(f"the method slerp merges exactly 2 adapters, not {count}", hint="loreg methods slerp")
    if len(weights) != count:
        raise UsageError(
            f"{count} adapters and {len(weights)} weights: expected one weight for each adapter",
            hint=f"--weights {','.join(['1'] * count)}",
        )
    if not all(math.isfinite(weight) and abs(weight) <= _MAX_WEIGHT for weight in weights):
        raise UsageError(
            f"the weights {list(weights)} are not all within ±{_MAX_WEIGHT:g}", hint="use numbers like 0.7"
        )
    if rank is not None and not 1 <= rank <= _MAX_RANK:
        raise UsageError(f"rank {rank} is not possible: expected 1 to {_MAX_RANK}", hint="--rank 16, or leave it out")


def preview_stored_merge(
    reader: VersionReader, sources: Sequence[Stored], weights: Sequence[float], rank: int | None, method: str
) -> MergePreview:
    """Preview the merge of versions that the caller may read, by ``method``, truncated at ``rank``.

    The request is one that :func:`validate_preview` takes. Raises MergeError for what cannot be merged, NotAllowedError
    for what is too much for a registry, and ConflictError while it reads others.
    """
    reduced = reduce_versions(reader, sources)
    labels = [version.ref for version, _ in sources]
    if method != "linear" and reduced.biased:
        raise biases_need_linear(labels[reduced.biased[0]], method)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            judged = judge_sum(reduced.groups, weights, rank, method)
    except np.linalg.LinAlgError as error:
        raise _too_large() from error
    total = aggregate("", judged.modules).certificate
    if not math.isfinite(total.norm):
        raise _too_large()
    return MergePreview(
        sources=tuple(
            Source(version.ref, version.digest, float(weight))
            for (version, _), weight in zip(sources, weights, strict=True)
        ),
        rank=rank,
        total=_figures(total),
        modules=tuple(_figures(module.certificate) for module in judged.modules),
        errors=judged.errors,
        size=judged.size + reduced.other_bytes,
        exact=judged.exact,
        warnings=tuple(list_warnings(total, labels)),
        method=method,
        notes=tuple(describe_strength(method == "linear", 1.0, judged.modules)),
    )


def _too_large() -> MergeError:
    return MergeError("the merged delta has numbers that float64 cannot hold", hint="lower the weights")


def _figures(certificate: Certificate) -> PreviewFigures:
    return PreviewFigures(
        module=certificate.module,
        shape=certificate.shape,
        rank_in=certificate.rank_in,
        rank=certificate.rank,
        norm=certificate.norm,
        epsilon=certificate.epsilon,
        retained_energy=certificate.retained_energy,
        sigma_next=certificate.sigma_next,
        retention=certificate.retention,
        ranks=certificate.ranks,
    )
