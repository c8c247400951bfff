"""A sweep on texts: the base is loaded once, adapters are swapped in it, and the loss of each token is looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from loreg.algebra.factors import Factors
from loreg.entities import SweepCandidate, SweepComparison, SweepOptions, SweepResult, SweepTrial
from loreg.errors import UsageError
from loreg.merging.device import choose_device
from loreg.merging.execute import MergedAdapter
from loreg.merging.source_factors import read_source_factors
from loreg.sweeping.evaluation_data import EvaluationData
from loreg.sweeping.in_place import InPlaceModel
from loreg.sweeping.in_place_evaluator import InPlaceEvaluator
from loreg.sweeping.pareto import pareto_front
from loreg.sweeping.token_search import Texts, TokenAnswer, TokenSearch
from loreg.verbs.sweep_trials import SweepMetrics, TrialBook, promote_command, scores_by_task, task_importance
from loreg.workspace.resolve_sources import merge_inputs

_METRIC = SweepMetrics("nll", higher_is_better=False)  # nats a token
_FEW, _ENOUGH = 500, 2000  # tokens of a task
_REGMEAN = "regmean"


def sweep_texts(book: TrialBook, data: EvaluationData, options: SweepOptions) -> SweepResult:
    """Choose on one half of the texts, confirm on the other, and record what was tried."""
    importance = task_importance(data.tasks, options.importance)
    factors = read_source_factors(merge_inputs(book.opened, (), book.base))
    model = InPlaceModel(Path(book.base or "").expanduser(), choose_device(book.device))
    evaluator = InPlaceEvaluator(
        model,
        lambda candidate: _factors_of(book, candidate, factors),
        model.tokenize(data.chosen_on),
        model.tokenize(data.confirmed_on),
        book.journal,
        book.progress,
    )
    chosen_on = Texts(evaluator.chosen_on.tasks, evaluator.chosen_on.tokens())
    confirmed_on = Texts(evaluator.confirmed_on.tasks, evaluator.confirmed_on.tokens())
    notes = _judge_sizes(data, chosen_on)
    methods = list(options.methods)
    if _REGMEAN in methods:
        if len(data.tasks) == len(book.opened):
            book.calibration = book.journal.folder / "moments.safetensors"
            evaluator.collect_moments(factors, _positions(book, data.tasks, notes), book.calibration)
        else:
            methods.remove(_REGMEAN)
            notes.append(f"regmean was not tried: {len(data.tasks)} tasks for {len(book.opened)} adapters")
    search = TokenSearch(
        evaluator,
        len(book.opened),
        chosen_on,
        confirmed_on,
        importance,
        options.budget - (1 if book.calibration else 0),
        tuple(methods),
        options.seed,
    )
    if search.budget < search.least_budget:
        least = search.least_budget + (1 if book.calibration else 0)
        raise UsageError(
            f"a budget of {options.budget} does not do for {len(book.opened)} adapters: expected {least} or more",
            hint=f"--budget {max(20, least)}",
        )
    answer = search.run()
    trials = _record(book, evaluator, answer, data, chosen_on, confirmed_on)
    by_candidate = {trial.candidate: trial.number for trial in trials}
    losses = np.array([list(trial.confirmed.values()) for trial in trials])
    return SweepResult(
        id=book.identity,
        sources=tuple(source.label for source in book.opened),
        tasks=data.tasks,
        metric=_METRIC.name,
        higher_is_better=_METRIC.higher_is_better,
        trials=tuple(trials),
        best=by_candidate[answer.best],
        front=tuple(pareto_front(losses)),
        comparisons=tuple(SweepComparison(by_candidate[c], gap) for c, gap in answer.differences.items()),
        weights_sd=tuple(map(float, answer.spread.weights_sd)),
        regret=answer.spread.regret,
        evaluations=answer.spent + (1 if book.calibration else 0),
        promote=promote_command(trials[by_candidate[answer.best]]),
        notes=(*notes, *answer.notes),
    )


def _factors_of(
    book: TrialBook, candidate: SweepCandidate, sources: Sequence[Mapping[str, Factors]]
) -> Mapping[str, Factors]:
    """Return the factors of a merged candidate; those of one source as they are where it alone counts."""
    alone = [i for i, weight in enumerate(candidate.weights) if weight]
    if candidate.method == "linear" and len(alone) == 1 and candidate.strengths[alone[0]] == 1:
        return sources[alone[0]]
    return merged_factors(book.merge(candidate))


def merged_factors(merged: MergedAdapter) -> dict[str, Factors]:
    """Return ``b (out, r)`` and ``a (r, in)`` of each merged module."""
    modules = merged.adapter.modules
    return {name: Factors(module.factors.b[0], module.factors.a[0]) for name, module in modules.items()}


def _judge_sizes(data: EvaluationData, texts: Texts) -> list[str]:
    """Return notes on the texts. Raises UsageError for a task with too few tokens to choose anything by."""
    notes = []
    tokens = np.bincount(texts.tasks, texts.tokens, minlength=len(data.tasks))
    for task, count in zip(data.tasks, tokens, strict=True):
        if count < _FEW:
            raise UsageError(
                f"the task {task!r} has {count:.0f} tokens to choose by, half of its texts: expected {_FEW} or more, "
                "for with fewer chance decides",
                hint=f"--data with more texts of {task}",
            )
        if count < _ENOUGH:
            notes.append(f"{task} has {count:.0f} tokens to choose by: below {_ENOUGH:,} chance weighs in")
    if data.duplicates:
        notes.append(f"{data.duplicates} texts were there twice and count once")
    return notes


def _positions(book: TrialBook, tasks: Sequence[str], notes: list[str]) -> list[int]:
    """Return for each source the position of the task whose text it was trained for: by name, else in order."""
    names = [[source.label.rpartition("/")[2].partition(":")[0].partition("@")[0]] for source in book.opened]
    by_name = [[tasks.index(name) for name in of_source if name in tasks] for of_source in names]
    if all(by_name) and len({places[0] for places in by_name}) == len(tasks):
        return [places[0] for places in by_name]
    pairs = ", ".join(f"{source.label} for {task}" for source, task in zip(book.opened, tasks, strict=True))
    notes.append(f"regmean took the adapters and tasks in their order: {pairs}")
    return list(range(len(tasks)))


def _record(
    book: TrialBook,
    evaluator: InPlaceEvaluator,
    answer: TokenAnswer,
    data: EvaluationData,
    chosen_on: Texts,
    confirmed_on: Texts,
) -> list[SweepTrial]:
    """Push what was evaluated, the best one last, so that the newest version is the one to take."""
    for candidate in (*answer.differences, answer.best):
        merged, merge_seconds = book.timed_merge(candidate)
        start = time.perf_counter()
        scores = chosen_on.mean_losses(evaluator.evaluate(candidate))
        evaluate_seconds = time.perf_counter() - start
        confirmed = confirmed_on.mean_losses(evaluator.confirm(candidate))
        trial = SweepTrial(
            0,
            candidate,
            scores_by_task(data.tasks, list(scores)),
            scores_by_task(data.tasks, list(confirmed)),
            merge_seconds=merge_seconds,
            evaluate_seconds=evaluate_seconds,
        )
        with book.write(merged) as folder:
            book.record(trial, _METRIC, folder)
    return book.trials
