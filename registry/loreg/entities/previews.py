"""What a merge would keep and lose, answered without making it."""

from __future__ import annotations

from collections.abc import Mapping

from loreg.entities.versions import Source
from loreg.value import Value


class PreviewFigures(Value, frozen=True):
    """The figures of the certificate of one module, or of all together, whose ``module`` is empty.

    ``rank_in`` is the sum of the sources' ranks, ``rank`` the one that is kept. ``norm`` is that of the merged delta
    (Frobenius), ``epsilon`` the relative error of the truncation, ``retained_energy`` is 1 − ε², ``sigma_next`` the
    first singular value that is lost. ``retention`` has the share of each source's squared norm that is kept; None for
    one without a delta here. ``ranks`` are the smallest that keep 90, 99 and 99.9 % of the energy; None where that is
    not known.
    """

    module: str
    shape: tuple[int, ...]
    rank_in: int
    rank: int
    norm: float
    epsilon: float
    retained_energy: float
    sigma_next: float
    retention: tuple[float | None, ...]
    ranks: Mapping[str, int | None]


class MergePreview(Value, frozen=True):
    """What ``loreg merge`` would say of these ``sources`` with their weights, at ``rank``; None loses nothing.

    If ``exact``, the figures are those of the certificate. Else they are those of an adapter of that rank which exists,
    and the merge's own error is at most that large. ``errors`` has ε of all modules together at rank 0, 1, 2, …, if
    all had it. ``size`` is the bytes of the tensors in the file. The error that storing in the file's dtype adds is not
    in it: only the merge knows.
    """

    sources: tuple[Source, ...]
    rank: int | None
    total: PreviewFigures
    modules: tuple[PreviewFigures, ...]
    errors: tuple[float, ...]
    size: int
    exact: bool
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    method: str = "linear"
