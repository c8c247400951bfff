"""Merge a candidate, let a program or a function say how good it is, and keep that."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from msgspec.structs import replace

from loreg.canonical_json import canonical_json
from loreg.entities import SweepCandidate, SweepOptions, SweepTrial
from loreg.errors import EvaluationError, LoregError
from loreg.sweeping.command_runner import CommandRunner
from loreg.sweeping.evaluators import Evaluate, Function, choose_evaluator, measure_with
from loreg.sweeping.loss_model import Array
from loreg.verbs.sweep_on_cluster import Outcome, TrialCluster, open_cluster
from loreg.verbs.sweep_trials import TrialBook


@dataclass(frozen=True)
class Measurer:
    """Trials of one sweep, each merged and evaluated once, also if the sweep is ended and started again.

    ``jobs`` are evaluated side by side: by ``evaluate`` in the threads of a ``pool``, or on a ``cluster``.
    """

    book: TrialBook
    jobs: int
    evaluate: Evaluate | None = None
    pool: ThreadPoolExecutor | None = None
    cluster: TrialCluster | None = None
    _trials: dict[bytes, SweepTrial] = field(default_factory=dict)
    #: The recipes that an earlier run of the sweep had measured.
    recalled: set[bytes] = field(default_factory=set)

    def trial(self, candidate: SweepCandidate) -> SweepTrial:
        """Return the trial of a candidate; what fails is told in it, and tried again by the next sweep."""
        (trial,) = self.trials([candidate])
        return trial

    def trials(self, candidates: Sequence[SweepCandidate]) -> Iterator[SweepTrial]:
        """Yield the trials of candidates, in their order. Raises UsageError for what no trial could be evaluated by."""
        if self.cluster is not None:
            yield from self._trials_on(self.cluster, candidates)
        elif self.pool is not None and len(candidates) > 1:
            yield from self.pool.map(self._trial_here, candidates)
        else:
            yield from map(self._trial_here, candidates)  # in this thread, which Ctrl-C reaches

    def prepare(self, candidates: Sequence[SweepCandidate]) -> None:
        """Measure candidates that are asked for next, where several are evaluated side by side."""
        if self.jobs > 1:
            by_recipe = {canonical_json(candidate.recipe): candidate for candidate in candidates}
            deque(self.trials(list(by_recipe.values())), maxlen=0)

    def _trial_here(self, candidate: SweepCandidate) -> SweepTrial:
        if (trial := self._known(candidate)) is None:
            self._keep(self._measure(candidate))
            trial = self._trials[canonical_json(candidate.recipe)]
        return replace(trial, candidate=candidate)

    def _trials_on(self, cluster: TrialCluster, candidates: Sequence[SweepCandidate]) -> Iterator[SweepTrial]:
        """Yield the trials of candidates in their order, while those after them are evaluated and kept."""
        new = {canonical_json(c.recipe): c for c in candidates if self._known(c) is None}
        outcomes = cluster.evaluate(self.book, list(new.values()))
        for candidate in candidates:
            while (trial := self._known(candidate)) is None:
                self._keep(next(outcomes))
            yield replace(trial, candidate=candidate)

    def _known(self, candidate: SweepCandidate) -> SweepTrial | None:
        """Return the trial of a candidate that was measured by now, or by an earlier run of the sweep."""
        recipe = canonical_json(candidate.recipe)
        if recipe not in self._trials and (trial := self._recall(candidate)) is not None:
            self.recalled.add(recipe)
            self._trials[recipe] = trial
        return self._trials.get(recipe)

    def _recall(self, candidate: SweepCandidate) -> SweepTrial | None:
        kept = self.book.journal.recall(_key(candidate))
        if kept is None or (kept["has_losses"] and self.book.journal.recall_arrays(_losses_key(candidate)) is None):
            return None
        times = {"merge_seconds": kept["merge"], "evaluate_seconds": kept["evaluate"]}
        return SweepTrial(0, candidate, kept["scores"], **times)

    def _measure(self, candidate: SweepCandidate) -> Outcome:
        """Merge and evaluate a candidate here. Raises UsageError for what no trial could be evaluated by."""
        assert self.evaluate is not None  # noqa: S101
        with contextlib.ExitStack() as folders:
            try:
                merged, merge_seconds = self.book.timed_merge(candidate)
                folder = folders.enter_context(self.book.write(merged))
            except LoregError as error:
                return Outcome(candidate, error=error.message)
            start = time.perf_counter()
            try:
                measured = self.evaluate(folder)
            except EvaluationError as error:
                return Outcome(candidate, error=error.message)
        return Outcome(candidate, measured, "", merge_seconds, time.perf_counter() - start)

    def _keep(self, outcome: Outcome) -> None:
        """Record what was measured of a candidate, for this sweep and the next; of a failure, for this one."""
        candidate, measured = outcome.candidate, outcome.measured
        recipe = canonical_json(candidate.recipe)
        if measured is None:
            self._trials[recipe] = SweepTrial(0, candidate, error=outcome.error)
            return
        if measured.losses:
            self.book.journal.record_arrays(_losses_key(candidate), measured.losses)
        scores = dict(measured.scores)
        measures = {
            "metric": measured.metric,
            "higher_is_better": measured.higher_is_better,
            "has_losses": bool(measured.losses),
        }
        times = {"merge": outcome.merge_seconds, "evaluate": outcome.evaluate_seconds}
        self.book.journal.record(_key(candidate), {"scores": scores, **measures, **times})
        self._trials[recipe] = SweepTrial(
            0,
            candidate,
            scores,
            merge_seconds=outcome.merge_seconds,
            evaluate_seconds=outcome.evaluate_seconds,
        )

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


@contextlib.contextmanager
def open_measurer(book: TrialBook, evaluate: str | Function, options: SweepOptions, on: str = "") -> Iterator[Measurer]:
    """Yield what evaluates the trials of a sweep, as ``evaluate`` says, here or on the cluster ``on``.

    Whatever ends the context ends what is evaluated then. Raises UsageError, NotFoundError, and UnavailableError for a
    cluster that does not answer.
    """
    if on:
        with open_cluster(book, evaluate, options, on) as cluster:
            yield Measurer(book, cluster.jobs, cluster=cluster)
        return
    commands, jobs = CommandRunner(options.timeout), options.jobs or 1
    measure = (
        choose_evaluator(evaluate, book.base_folder, options.metric, commands)
        if isinstance(evaluate, str)
        else measure_with(evaluate, options.metric)
    )
    if jobs == 1:
        yield Measurer(book, jobs, measure)
        return
    pool = ThreadPoolExecutor(jobs)
    try:
        yield Measurer(book, jobs, measure, pool)
    finally:
        commands.end()
        pool.shutdown(wait=False, cancel_futures=True)


def _key(candidate: SweepCandidate) -> dict[str, object]:
    return {"measured": candidate.recipe}


def _losses_key(candidate: SweepCandidate) -> dict[str, object]:
    return {"losses": candidate.recipe}
