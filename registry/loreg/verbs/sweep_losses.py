"""A sweep by a program that prints the loss of each token: fewer evaluations, and intervals."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from loreg.entities import SweepOptions, SweepResult
from loreg.errors import UsageError
from loreg.sweeping.loss_model import Array
from loreg.sweeping.losses_evaluator import LossesEvaluator
from loreg.sweeping.score_search import CENTRE
from loreg.sweeping.token_search import TokenSearch
from loreg.verbs.sweep_measure import Measurer
from loreg.verbs.sweep_metrics import SweepMetrics, task_importance
from loreg.verbs.sweep_scores import known_direction
from loreg.verbs.sweep_tokens import refuse_few_tokens, refuse_small_budget, search_tokens
from loreg.verbs.sweep_trials import TrialBook

_SHARES, _CONFIRMATION = (1.0,), 0.0  # a program goes through all texts, and what it prints serves both halves
_REGMEAN = "regmean"  # needs what modules see, which no program prints: it comes in a file


def sweep_losses(measurer: Measurer, first: Mapping[str, Array], options: SweepOptions) -> SweepResult:
    """Choose by every other block of tokens and confirm on the rest; ``first`` are the losses where it begins."""
    book = measurer.book
    tasks = tuple(sorted(first))
    metrics = _loss_metrics(book, options)
    refuse_small_budget(book, options, 0, _SHARES, _CONFIRMATION)
    evaluator = LossesEvaluator(
        measurer.losses,
        lambda c: measurer.trial(c).evaluate_seconds,
        {task: len(first[task]) for task in tasks},
    )
    chosen_on, confirmed_on = evaluator.texts(confirmed=False), evaluator.texts(confirmed=True)
    notes = refuse_few_tokens(tasks, chosen_on, confirmed_on)
    methods = list(options.methods)
    if _REGMEAN in methods and book.calibration is None:
        methods.remove(_REGMEAN)
        notes.append("regmean was not tried: no program prints what modules see, and there is no --calibration FILE")
    search = TokenSearch(
        evaluator,
        len(book.opened),
        chosen_on,
        confirmed_on,
        task_importance(tasks, options.importance),
        options.budget,
        tuple(methods),
        options.seed,
        progress=book.progress,
        prepare=measurer.prepare,
        start=CENTRE,
        shares=_SHARES,
        confirmation_cost=_CONFIRMATION,
    )
    result = search_tokens(book, search, tasks, metrics, spent=0, notes=notes)
    return replace(result, notes=(*measurer.note_recalled(options.seed), *result.notes))


def _loss_metrics(book: TrialBook, options: SweepOptions) -> SweepMetrics:
    """Return how losses are called. Raises UsageError for the name of a metric of which more is better."""
    name = options.metric or "nll"
    if known_direction(book, name, options.higher_is_better):
        raise UsageError(f"the program prints losses, and of {name} more is better", hint="--metric nll")
    return SweepMetrics(name, higher_is_better=False)
