"""A sweep by scores: a program or a function says of each merged adapter how good it is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from loreg.entities import SweepCandidate, SweepOptions, SweepResult, SweepTrial
from loreg.errors import EvaluationError
from loreg.metric_names import usual_metric
from loreg.parsing import parse_metric
from loreg.sweeping.loss_model import Array
from loreg.sweeping.score_search import ScoreSearch
from loreg.verbs.sweep_answer import answer_of
from loreg.verbs.sweep_measure import Measurer
from loreg.verbs.sweep_metrics import SweepMetrics, task_importance
from loreg.verbs.sweep_trials import TrialBook
from loreg.workspace.metric_directions import declared_directions

_METRIC = "score"
_FIRST_FAILURES = 3  # trials: if these fail, all do


def sweep_scores(measurer: Measurer, options: SweepOptions) -> SweepResult:
    """Evaluate what the search asks for, several side by side; a trial that fails is told and the search goes on."""
    book, metrics = measurer.book, SweepMetrics(options.metric or _METRIC, True)
    history: list[tuple[Array, Array | None]] = []
    tasks: tuple[str, ...] = ()
    importance = np.ones(1)
    while points := ScoreSearch(len(book.opened), options.budget, importance, options.seed).next_points(
        history, measurer.jobs
    ):
        measured = measurer.trials([at_weights(point) for point in points])
        for point, trial in zip(points, measured, strict=True):
            if not trial.error and not tasks:
                tasks = tuple(sorted(trial.scores))
                importance = task_importance(tasks, options.importance)
                metrics = sweep_metrics(book, options, *measurer.metric(trial.candidate))
            checked = _refuse_other_tasks(trial, tasks)
            history.append((point, None if checked.error else _losses(checked, metrics)))
            _record(book, checked, metrics)
            book.progress("evaluating", len(history), options.budget)
            if len(history) == min(_FIRST_FAILURES, options.budget):
                _refuse_only_failures(book)
    notes = []
    if options.methods != SweepOptions().methods:
        notes.append("no method was tried: scores say enough of weights alone, the loss of each token of both")
    if book.calibration is not None:
        notes.append("--calibration was not used: methods are tried where the loss of each token is known")
    notes += measurer.note_recalled(options.seed)
    return _result(book, tasks, importance, metrics, notes)


def at_weights(point: Sequence[float] | Array) -> SweepCandidate:
    """Return the weighted sum with these weights, to four digits."""
    weights = tuple(round(float(weight), 4) for weight in point)
    what = "one strength for all" if len(set(weights)) == 1 else "a weight for each"
    return SweepCandidate(what, weights)


def sweep_metrics(book: TrialBook, options: SweepOptions, measured: str, measured_higher: bool | None) -> SweepMetrics:
    """Return how the numbers are called, and which way is better: as asked for, declared, measured, or by the name.

    Raises UsageError for a name that no metric has.
    """
    name = measured or options.metric or _METRIC
    higher = known_direction(book, name, options.higher_is_better, measured_higher)
    return SweepMetrics(name, higher is not False)


def known_direction(book: TrialBook, name: str, asked: bool | None, measured: bool | None = None) -> bool | None:
    """Return whether more is better of a metric: as asked for, as declared, as the evaluation says, or by the name.

    None where nothing says it. Raises UsageError for a name that no metric has.
    """
    parse_metric(f"{name}=0")
    if asked is not None:
        return asked
    higher = declared_directions(book.context.backend).get(name, measured)
    if higher is None and (usual := usual_metric(name)) is not None:
        higher = usual.higher_is_better
    return higher


def _refuse_other_tasks(trial: SweepTrial, tasks: Sequence[str]) -> SweepTrial:
    """Return the trial, as a failed one if it was scored on other tasks than those before it."""
    if trial.error or set(trial.scores) == set(tasks):
        return trial
    return SweepTrial(0, trial.candidate, error=f"scored {', '.join(trial.scores)}, the others {', '.join(tasks)}")


def _losses(trial: SweepTrial, metrics: SweepMetrics) -> Array:
    sign = -1.0 if metrics.higher_is_better else 1.0
    return sign * np.array([trial.scores[task] for task in sorted(trial.scores)])


def _record(book: TrialBook, trial: SweepTrial, metrics: SweepMetrics) -> None:
    if trial.error or book.name is None:
        book.record(trial, metrics, None)
        return
    with book.write(book.merge(trial.candidate)) as folder:
        book.record(trial, metrics, folder)


def _refuse_only_failures(book: TrialBook) -> None:
    """Raise EvaluationError if no trial has a score: what fails each time would cost the whole budget."""
    if all(trial.error for trial in book.trials):
        weights = ",".join(f"{weight:g}" for weight in book.trials[-1].candidate.weights)
        base = ("--base", book.base) if book.base else ()
        merge = shlex.join(("loreg", "merge", *book.sources, "--weights", weights, *base, "--to", "merged"))
        raise EvaluationError(
            f"no trial could be evaluated: {book.trials[-1].error}", hint=f"evaluate one by hand: {merge}"
        )


def _result(
    book: TrialBook, tasks: Sequence[str], importance: Array, metrics: SweepMetrics, notes: Sequence[str]
) -> SweepResult:
    scored = [trial for trial in book.trials if not trial.error]
    losses = np.array([_losses(trial, metrics) for trial in scored])
    best = scored[int((losses @ importance).argmin())]
    failed = [trial for trial in book.trials if trial.error]
    failures = (f"trial {trial.number} failed: {trial.error}" for trial in failed)
    ties = [trial.number for trial in scored if trial != best and trial.scores == best.scores]
    equals = [_note_ties(best, ties)] if ties else []
    doubt = "an evaluation gave one number a task: how sure the choice is, only other data can say"
    return answer_of(
        book, tasks, metrics, best, (*notes, *failures, *equals, doubt), evaluations=float(len(book.trials))
    )


def _note_ties(best: SweepTrial, ties: Sequence[int]) -> str:
    numbers = ", ".join(map(str, ties))
    return f"trial {best.number} scores exactly as {numbers}: the evaluation does not tell them apart, more data may"
