"""What sweeps have in common that see the loss of each token: enough of them, the budget, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from loreg.entities import SweepCandidate, SweepComparison, SweepOptions, SweepResult, SweepTrial
from loreg.errors import UsageError
from loreg.sweeping.token_search import SHARES, Texts, TokenAnswer, TokenSearch, least_budget
from loreg.verbs.sweep_answer import answer_of
from loreg.verbs.sweep_metrics import SweepMetrics, scores_by_task
from loreg.verbs.sweep_trials import TrialBook

_FEW, _ENOUGH = 500, 2000  # tokens of a task
_MANY = 8  # texts of a task in each half: of fewer, drawn again, an interval is too narrow


def refuse_few_tokens(tasks: Sequence[str], chosen_on: Texts, confirmed_on: Texts) -> list[str]:
    """Return notes on tasks with few tokens or texts. Raises UsageError for one with too few."""
    few_texts, few_tokens = [], []
    for number, task in enumerate(tasks):
        for texts, purpose, least in ((chosen_on, "choose by", _FEW), (confirmed_on, "confirm on", _FEW // 2)):
            own = texts.tokens[texts.tasks == number]
            tokens, count = own.sum(), len(own)
            if tokens < least:
                raise UsageError(
                    f"the task {task!r} has {tokens:.0f} tokens to {purpose}, half of what there are: expected {least} "
                    "or more, for with fewer chance decides",
                    hint=f"evaluate on more texts of {task}",
                )
            if count < 2:
                raise UsageError(
                    f"the task {task!r} has one text to {purpose}: expected two or more, for how texts differ says how "
                    "sure a choice is",
                    hint="split long texts where a new topic begins, an empty line between them",
                )
            if count < _MANY:
                few_texts.append(f"{task} has {count} texts to {purpose}")
            if tokens < _ENOUGH and texts is chosen_on:
                few_tokens.append(f"{task} has {tokens:.0f}")
    notes = []
    if few_texts:
        notes.append(f"{', '.join(few_texts)}: below {_MANY} intervals are too narrow")
    if few_tokens:
        notes.append(f"of tokens to choose by, {', '.join(few_tokens)}: below {_ENOUGH:,} chance weighs in")
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
    baselines = [_baseline(book, search, tasks, candidate) for candidate in answer.baselines]
    return answer_of(
        book,
        tasks,
        metrics,
        trials[by_candidate[answer.best]],
        (*notes, *answer.notes, *_doubts(baselines, answer, metrics)),
        baselines=tuple(baselines),
        comparisons=tuple(SweepComparison(by_candidate[c], gap) for c, gap in answer.differences.items()),
        weights_sd=tuple(map(float, answer.spread.weights_sd)),
        regret=answer.spread.regret,
        evaluations=answer.spent + spent,
    )


def _doubts(baselines: Sequence[SweepTrial], answer: TokenAnswer, metrics: SweepMetrics) -> list[str]:
    """Return notes on what there was before, where what is taken is no better."""
    notes = []
    for trial, gap in zip(baselines, answer.baselines.values(), strict=True):
        if gap.low <= 0:
            relation = "is better than" if gap.high < 0 else "cannot be told from"
            interval = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] {metrics.name}"
            notes.append(f"{trial.candidate.what} {relation} what is taken: {interval}")
    return notes


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
