"""What verbs answer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loreg.entities.bases import Verdict
from loreg.entities.displayed import Displayed
from loreg.entities.queries import Page
from loreg.entities.versions import Provenance, Version
from loreg.value import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SearchTerm(StrEnum):
    """A condition of a search whose name need not be exact."""

    TASK = "task"
    BASE = "base"


class TermMatch(Value, frozen=True):
    """What was meant by a ``word`` that is the name of no task or base: any of ``names``.

    Where none is near enough, ``suggestions`` are names that are written alike.
    """

    term: SearchTerm
    word: str
    names: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()


class SearchPage(Page[Version], frozen=True):
    """One page of what a search found; ``all_versions`` if older versions were looked at, and not only the newest.

    ``best`` if it holds of each adapter its best version alone. ``matches`` say what was meant by words that are no
    exact names. ``ranked`` is how many of the versions that match the text were ranked, the newest, where there are
    more; else None.
    """

    items: tuple[Version, ...]
    cursor: str | None
    all_versions: bool = False
    best: bool = False
    matches: tuple[TermMatch, ...] = ()
    ranked: int | None = None


class PushResult(Displayed, frozen=True):
    """What a push did: ``created`` is False when this content was there already."""

    version: Version
    created: bool
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


class ExportSummary(Value, frozen=True):
    """An adapter as ``server`` takes it: what was changed, and ``epsilon = ‖Δ' − Δ‖ / ‖Δ‖`` over all of its deltas.

    ``moved`` counts the modules whose delta is not the same to the last bit; ``worst`` is the one that moved most.
    """

    server: str
    changes: tuple[str, ...]
    epsilon: float
    moved: int
    worst: str
    worst_epsilon: float


class ExportResult(Value, frozen=True):
    """Where the adapter of ``source`` was written for a server."""

    source: str
    folder: Path
    fitted: ExportSummary


class PullResult(Displayed, frozen=True):
    """Where a version now lies; ``downloaded`` counts the bytes that were not there before.

    ``fitted`` says what was changed if it was pulled for a server.
    """

    version: Version
    folder: Path
    downloaded: int
    fitted: ExportSummary | None = None


class MergeResult(Displayed, frozen=True):
    """A merge: always a certificate; a version if it was pushed, a folder if it was written to one.

    ``already`` if the folder had this very merge before; then nothing was written. ``spectra`` has the singular values
    that are known of each merged delta, by module, the largest first; they are stored nowhere.
    """

    provenance: Provenance
    notes: tuple[str, ...]
    pushed: PushResult | None = None
    folder: Path | None = None
    already: bool = False
    spectra: Mapping[str, tuple[float, ...]] = msgspec.field(default_factory=dict)

    def plot(self) -> Figure:
        """Draw the singular values, kept and cut, and the error by rank; return the figure, as ``--plot`` writes it.

        ``provenance.plot()`` draws what was kept of each source. Raises MissingExtraError without matplotlib.
        """
        from loreg.entities.display.pictures import import_figures

        figure: Figure = import_figures().draw_spectra(self.provenance, self.spectra)
        return figure


class KeptAdapter(Value, frozen=True):
    """One of the K adapters that are kept: the mean of its ``sources``, in the order in which they came.

    ``cosines`` has for each the cosine with the mean of those before it; None for the first. ``merged`` is the merge.
    """

    sources: tuple[str, ...]
    cosines: tuple[float | None, ...]
    merged: MergeResult


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    ERROR = "error"
    WARNING = "warning"


class Finding(Value, frozen=True):
    """One rule's complaint; ``remedy`` says what to do."""

    code: str
    severity: Severity
    message: str
    remedy: str


class CheckReport(Value, frozen=True):
    """What was found on one adapter; ``path`` is its folder on this machine, empty for a version."""

    name: str
    path: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def count(self, severity: Severity) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)


class BakeResult(Value, frozen=True):
    """A model with adapters baked in: ``changed`` and ``copied`` count tensors, ``size`` is in bytes.

    ``verdicts`` say how well the base fits each source; ``resumed`` counts the shards that an earlier, interrupted
    bake had written; ``verified`` the tensors that were computed again and compared. ``already`` if this very model was
    there before; then nothing was written.
    """

    folder: Path
    changed: int
    copied: int
    size: int
    verdicts: tuple[Verdict, ...]
    resumed: int
    verified: int
    notes: tuple[str, ...]
    already: bool = False


class ExtractedModule(Value, frozen=True):
    """One changed matrix as factors of ``rank``: ``retained`` is the share that they keep of ``norm²`` (Frobenius)."""

    module: str
    shape: tuple[int, int]
    rank: int
    retained: float
    norm: float


class ExtractResult(Value, frozen=True):
    """An adapter out of a fine-tune: ``retained`` is the share of the energy of all factored modules together.

    ``whole`` are the tensors that no factors can hold, with the reason; a version if it was pushed, else a folder.
    """

    modules: tuple[ExtractedModule, ...]
    retained: float
    whole: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    pushed: PushResult | None = None
    folder: Path | None = None


class ReproduceResult(Value, frozen=True):
    """A stored merge, done again: ``identical`` to the bit, or the largest relative ``difference`` of a delta."""

    version: Version
    identical: bool
    difference: float
    folder: Path | None = None


class AdapterSimilarity(Displayed, frozen=True):
    """How alike the deltas of two adapters are, over the ``modules`` that both have.

    ``cosine`` of the deltas; ``left_overlap`` and ``right_overlap`` of their column and row spaces, from 0
    (orthogonal) to 1 (one contains the other); ``sign_conflict``, the share of sampled entries of opposite sign;
    ``norm_ratio``, ‖b‖/‖a‖, None if a is zero.
    """

    a: str
    b: str
    modules: int
    cosine: float
    left_overlap: float
    right_overlap: float
    sign_conflict: float
    norm_ratio: float | None
    near_duplicate: bool

    def exchange(self) -> AdapterSimilarity:
        """Return the same with the two adapters in the other order."""
        ratio = 0.0 if self.norm_ratio is None else 1 / self.norm_ratio if self.norm_ratio else None
        return msgspec.structs.replace(self, a=self.b, b=self.a, norm_ratio=ratio)


class FieldDiff(Value, frozen=True):
    """One field that differs: ``a`` and ``b`` are its values as text, empty where one of the two has it not."""

    name: str
    a: str
    b: str


class ModuleDiff(Value, frozen=True):
    """One module of two adapters: ranks, 0 where one has it not; cosine and Frobenius norms of the deltas.

    The numbers are None where they were not computed, or the two deltas have not the same shape.
    """

    name: str
    rank_a: int
    rank_b: int
    cosine: float | None = None
    norm_a: float | None = None
    norm_b: float | None = None


class AdapterDiff(Value, frozen=True):
    """How two adapters differ. ``card`` are the lines of a unified diff; equal fields are left out."""

    a: str
    b: str
    metrics: tuple[FieldDiff, ...]
    configuration: tuple[FieldDiff, ...]
    modules: tuple[ModuleDiff, ...]
    card: tuple[str, ...]
    notes: tuple[str, ...] = ()


class DoctorCheck(Value, frozen=True):
    """One line of ``loreg doctor``: what was looked at, what was found, whether it is well."""

    name: str
    value: str
    origin: str = ""
    ok: bool = True
    hint: str = ""
