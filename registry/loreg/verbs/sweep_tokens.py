"""What sweeps have in common that see the loss of each token: enough of them, the budget, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from loreg.entities import SweepCandidate, SweepComparison, SweepOptions, SweepResult, SweepTrial
from loreg.errors import UsageError
from loreg.sweeping.token_search import SHARES, Texts, TokenAnswer, TokenSearch, least_budget
from loreg.verbs.sweep_answer import answer_of
from loreg.verbs.sweep_metrics import SweepMetrics, scores_by_task
from loreg.verbs.sweep_trials import TrialBook

_FEW, _ENOUGH = 500, 2000  # tokens of a task


def refuse_few_tokens(tasks: Sequence[str], texts: Texts) -> list[str]:
    """Return notes on tasks with few tokens to choose by. Raises UsageError for one with too few."""
    notes = []
    tokens = np.bincount(texts.tasks, texts.tokens, minlength=len(tasks))
    for task, count in zip(tasks, tokens, strict=True):
        if count < _FEW:
            raise UsageError(
                f"the task {task!r} has {count:.0f} tokens to choose by, half of what there are: expected {_FEW} or "
                "more, for with fewer chance decides",
                hint=f"evaluate on more texts of {task}",
            )
        if count < _ENOUGH:
            notes.append(f"{task} has {count:.0f} tokens to choose by: below {_ENOUGH:,} chance weighs in")
    return notes


def refuse_small_budget(
    book: TrialBook,
    options: SweepOptions,
    spent: int,
    shares: Sequence[float] = SHARES,
    confirmation_cost: float = 1.0,
) -> None:
    """Raise UsageError for a budget that does not do once ``spent`` evaluations are gone."""
    least = least_budget(len(book.opened), shares, confirmation_cost) + spent
    if options.budget < least:
        raise UsageError(
            f"a budget of {options.budget} does not do for {len(book.opened)} adapters: expected {least} or more",
            hint=f"--budget {max(20, least)}",
        )


def search_tokens(
    book: TrialBook, search: TokenSearch, tasks: Sequence[str], metrics: SweepMetrics, *, spent: int, notes: list[str]
) -> SweepResult:
    """Run the search, record what it tried, and return its answer; ``spent`` evaluations were gone before."""
    answer = search.run()
    trials = _record(book, search, answer, tasks, metrics)
    by_candidate = {trial.candidate: trial.number for trial in trials}
    return answer_of(
        book,
        tasks,
        metrics,
        trials[by_candidate[answer.best]],
        (*notes, *answer.notes),
        baselines=tuple(_baseline(book, search, tasks, candidate) for candidate in answer.baselines),
        comparisons=tuple(SweepComparison(by_candidate[c], gap) for c, gap in answer.differences.items()),
        weights_sd=tuple(map(float, answer.spread.weights_sd)),
        regret=answer.spread.regret,
        evaluations=answer.spent + spent,
    )


def _baseline(book: TrialBook, search: TokenSearch, tasks: Sequence[str], candidate: SweepCandidate) -> SweepTrial:
    """Return what the texts of confirmation say of the base, or of a source alone, which is called by its name."""
    alone = [source.label for source, weight in zip(book.opened, candidate.weights, strict=True) if weight]
    named = replace(candidate, what=f"{alone[0]} alone" if alone else candidate.what)
    confirmed = search.confirmed_on.mean_losses(search.evaluator.confirm(candidate))
    return SweepTrial(-1, named, confirmed=scores_by_task(tasks, list(confirmed)))


def _record(
    book: TrialBook, search: TokenSearch, answer: TokenAnswer, tasks: Sequence[str], metrics: SweepMetrics
) -> list[SweepTrial]:
    """Push what was evaluated, the best one last, so that the newest version is the one to take."""
    for candidate in (*answer.differences, answer.best):
        merged, merge_seconds = book.timed_merge(candidate)
        scores = search.chosen_on.mean_losses(search.evaluator.evaluate(candidate))
        confirmed = search.confirmed_on.mean_losses(search.evaluator.confirm(candidate))
        trial = SweepTrial(
            0,
            candidate,
            scores_by_task(tasks, list(scores)),
            scores_by_task(tasks, list(confirmed)),
            merge_seconds=merge_seconds,
            evaluate_seconds=search.evaluator.seconds(candidate),
        )
        with book.write(merged) as folder:
            book.record(trial, metrics, folder)
    return book.trials
