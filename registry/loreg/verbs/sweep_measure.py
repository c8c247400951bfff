"""Merge a candidate, let a program or a function say how good it is, and keep that."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from loreg.canonical_json import canonical_json
from loreg.entities import SweepCandidate, SweepOptions, SweepTrial
from loreg.errors import EvaluationError, LoregError
from loreg.sweeping.command_runner import CommandRunner
from loreg.sweeping.evaluators import Evaluate, Function, choose_evaluator, measure_with
from loreg.sweeping.loss_model import Array
from loreg.verbs.sweep_trials import TrialBook


@dataclass(frozen=True)
class Measurer:
    """Trials of one sweep, each merged and evaluated once, also if the sweep is ended and started again."""

    book: TrialBook
    evaluate: Evaluate
    commands: CommandRunner
    _trials: dict[bytes, SweepTrial] = field(default_factory=dict)
    #: The recipes that an earlier run of the sweep had measured.
    recalled: set[bytes] = field(default_factory=set)

    def trial(self, candidate: SweepCandidate) -> SweepTrial:
        """Return the trial of a candidate; what fails is told in it, and tried again by the next sweep."""
        recipe = canonical_json(candidate.recipe)
        if recipe not in self._trials:
            recalled = self._recall(candidate)
            if recalled is not None:
                self.recalled.add(recipe)
            self._trials[recipe] = recalled or self._measure(candidate)
        return replace(self._trials[recipe], candidate=candidate)

    def _recall(self, candidate: SweepCandidate) -> SweepTrial | None:
        kept = self.book.journal.recall(_key(candidate))
        if kept is None or (kept["has_losses"] and self.book.journal.recall_arrays(_losses_key(candidate)) is None):
            return None
        times = {"merge_seconds": kept["merge"], "evaluate_seconds": kept["evaluate"]}
        return SweepTrial(0, candidate, kept["scores"], **times)

    def _measure(self, candidate: SweepCandidate) -> SweepTrial:
        """Merge and evaluate a candidate. Raises UsageError for what no trial could be evaluated by."""
        with contextlib.ExitStack() as folders:
            try:
                merged, merge_seconds = self.book.timed_merge(candidate)
                folder = folders.enter_context(self.book.write(merged))
            except LoregError as error:
                return SweepTrial(0, candidate, error=error.message)
            start = time.perf_counter()
            try:
                measured = self.evaluate(folder)
            except EvaluationError as error:
                return SweepTrial(0, candidate, error=error.message)
        seconds = time.perf_counter() - start
        if measured.losses:
            self.book.journal.record_arrays(_losses_key(candidate), measured.losses)
        scores, times = dict(measured.scores), {"merge": merge_seconds, "evaluate": seconds}
        measures = {
            "metric": measured.metric,
            "higher_is_better": measured.higher_is_better,
            "has_losses": bool(measured.losses),
        }
        self.book.journal.record(_key(candidate), {"scores": scores, **measures, **times})
        return SweepTrial(0, candidate, scores, merge_seconds=merge_seconds, evaluate_seconds=seconds)

    def metric(self, candidate: SweepCandidate) -> tuple[str, bool | None]:
        """Return what the scores of a candidate measure, and whether higher is better, where the evaluation said so."""
        kept = self.book.journal.recall(_key(candidate)) or {}
        return kept.get("metric", ""), kept.get("higher_is_better")

    def note_recalled(self, seed: int) -> list[str]:
        """Return a note on what an earlier run had measured, if any: the program may be another since."""
        if not self.recalled:
            return []
        before = f"{len(self.recalled)} of {len(self._trials)} trials were measured before and are not again"
        return [f"{before}; --seed {seed + 1} begins anew"]

    def losses(self, candidate: SweepCandidate) -> Mapping[str, Array]:
        """Return the loss of each token by task, empty where only scores are known. Raises EvaluationError."""
        trial = self.trial(candidate)
        if trial.error:
            raise EvaluationError(trial.error, hint="run the evaluation by hand on a merged adapter")
        return self.book.journal.recall_arrays(_losses_key(candidate)) or {}


def open_measurer(book: TrialBook, evaluate: str | Function, options: SweepOptions) -> Measurer:
    """Return what evaluates the trials of a sweep, as ``evaluate`` says. Raises UsageError, NotFoundError."""
    commands = CommandRunner(options.timeout)
    if not isinstance(evaluate, str):
        return Measurer(book, measure_with(evaluate, options.metric), commands)
    base = Path(book.base).expanduser() if book.base else None
    return Measurer(book, choose_evaluator(evaluate, base, options.metric, commands), commands)


def _key(candidate: SweepCandidate) -> dict[str, object]:
    return {"measured": candidate.recipe}


def _losses_key(candidate: SweepCandidate) -> dict[str, object]:
    return {"losses": candidate.recipe}
