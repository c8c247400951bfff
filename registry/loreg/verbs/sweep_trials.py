"""The trials of a sweep: merge a candidate, keep what was measured of it, push it as a version."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec

from loreg.algebra.factors import Factors
from loreg.entities import (
    MergeOptions,
    Progress,
    Provenance,
    SweepCandidate,
    SweepTrial,
    VersionMetadata,
)
from loreg.errors import ConflictError, NotAllowedError
from loreg.merging import provenance
from loreg.merging.execute import MergedAdapter
from loreg.merging.methods import find_method
from loreg.sweeping.journal import SWEEP_LABEL, Journal, sweeps_folder
from loreg.verbs.merge import blend, recipe_of
from loreg.verbs.push import push
from loreg.verbs.sweep_metrics import SweepMetrics
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import ResolvedSource

_CHOSEN, _CONFIRMED = "dev", "confirmed"  # the splits under which numbers are recorded


@dataclass
class TrialBook:
    """What is tried in one sweep of ``sources``, in the order of trying; versions go to ``name``, nowhere if None."""

    context: Context
    sources: Sequence[str]
    opened: Sequence[ResolvedSource]
    identity: str
    base: str | None
    base_digest: str | None
    name: str | None
    device: str
    extras: str | None
    progress: Progress
    calibration: Path | None = None
    trials: list[SweepTrial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def journal(self) -> Journal:
        """Where the sweep goes on if it is ended."""
        return Journal(sweeps_folder(self.context.base_cache) / self.identity)

    @property
    def base_folder(self) -> Path | None:
        """Where the base model lies."""
        return Path(self.base).expanduser() if self.base else None

    @property
    def full_rank(self) -> int:
        """The ranks of all sources together: what a weighted sum needs where they share nothing."""
        ranks = ([module.rank for module in s.structure.modules.values() if module.shape] for s in self.opened)
        return sum(map(max, ranks))

    def merge(self, candidate: SweepCandidate) -> MergedAdapter:
        """Merge a candidate; nothing is lost but to its rank, and by methods that make a delta of full rank.

        Raises LoregError for what cannot be merged so.
        """
        method = find_method(candidate.method)
        calibration = self.calibration if method.needs_moments else None
        options = MergeOptions(
            candidate.weights,
            candidate.method,
            scale=candidate.scale,
            rank=candidate.rank or (self.full_rank if method.full_rank else None),
            extras=self.extras,
        )
        recipe = recipe_of(options, self.sources, self.opened, (), calibration)
        return blend(self.opened, recipe, (), self.base, calibration, self.device, _quiet)

    @contextmanager
    def write(self, merged: MergedAdapter) -> Iterator[Path]:
        """Yield a temporary folder with a merged adapter."""
        with tempfile.TemporaryDirectory(prefix="loreg-sweep-") as folder:
            made_by = Provenance(merged.recipe.sources, merged.recipe.to_json(), merged.certificate)
            provenance.write_merged(Path(folder), merged.adapter, made_by)
            yield Path(folder)

    def record(self, trial: SweepTrial, metrics: SweepMetrics, folder: Path | None) -> SweepTrial:
        """Push a trial from its folder, with its numbers; then list it. What is pushed twice is one version."""
        numbered = msgspec.structs.replace(trial, number=len(self.trials))
        if self.name is not None and folder is not None:
            numbered = msgspec.structs.replace(numbered, version=self._push_again(numbered, metrics, folder))
        self.trials.append(numbered)
        return numbered

    def _push_again(self, trial: SweepTrial, metrics: SweepMetrics, folder: Path) -> str:
        """Return the ref that a trial is pushed as; empty, with a note, for one that was pushed and is refused now."""
        key = {"version": trial.candidate.recipe, "name": self.name}
        try:
            ref = self._push(trial, metrics, folder)
        except (NotAllowedError, ConflictError) as error:  # a version that was deleted or yanked does not come back
            if self.journal.recall(key) is None:
                raise
            self.notes.append(f"trial {trial.number} is no version any more: {error.message}")
            return ""
        self.journal.record(key, {"ref": ref})
        return ref

    def _push(self, trial: SweepTrial, metrics: SweepMetrics, folder: Path) -> str:
        measured = [*metrics.of_split(trial.scores, _CHOSEN), *metrics.of_split(trial.confirmed, _CONFIRMED)]
        metadata = VersionMetadata(
            metrics=measured,
            labels={SWEEP_LABEL: self.identity},
            message=f"sweep {self.identity}: {trial.candidate.what}",
        )
        assert self.name is not None  # noqa: S101
        pushed = push(self.context, folder, self.name, metadata, base=self.base_digest, progress=_quiet)
        return pushed.version.ref

    def timed_merge(self, candidate: SweepCandidate) -> tuple[MergedAdapter, float]:
        """Merge a candidate, and say how many seconds that took."""
        start = time.perf_counter()
        merged = self.merge(candidate)
        return merged, time.perf_counter() - start


def factors_of(merged: MergedAdapter) -> Mapping[str, Factors]:
    """Return the factors of a merged adapter, ``b (out, r)`` and ``a (r, in)`` of each module."""
    return {name: Factors(m.factors.b[0], m.factors.a[0]) for name, m in merged.adapter.modules.items()}


def _quiet(what: str, done: int, total: int) -> None:
    """Draw nothing: the sweep says itself how far it is."""
