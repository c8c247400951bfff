"""A sweep by a program that prints the loss of each token: fewer evaluations, and intervals."""

from __future__ import annotations

from collections.abc import Mapping

from loreg.entities import SweepOptions, SweepResult
from loreg.sweeping.loss_model import Array
from loreg.sweeping.losses_evaluator import LossesEvaluator
from loreg.sweeping.score_search import CENTRE
from loreg.sweeping.token_search import TokenSearch
from loreg.verbs.sweep_measure import Measurer
from loreg.verbs.sweep_metrics import SweepMetrics, task_importance
from loreg.verbs.sweep_tokens import refuse_few_tokens, refuse_small_budget, search_tokens

_SHARES, _CONFIRMATION = (1.0,), 0.0  # a program goes through all texts, and what it prints serves both halves
_REGMEAN = "regmean"  # needs what modules see, which no program prints: it comes in a file


def sweep_losses(measurer: Measurer, first: Mapping[str, Array], options: SweepOptions) -> SweepResult:
    """Choose by every other block of tokens and confirm on the rest; ``first`` are the losses where it begins."""
    book = measurer.book
    tasks = tuple(sorted(first))
    refuse_small_budget(book, options, 0, _SHARES, _CONFIRMATION)
    evaluator = LossesEvaluator(
        measurer.losses,
        lambda c: measurer.trial(c).evaluate_seconds,
        {task: len(first[task]) for task in tasks},
    )
    chosen_on, confirmed_on = evaluator.texts(confirmed=False), evaluator.texts(confirmed=True)
    notes = refuse_few_tokens(tasks, chosen_on)
    search = TokenSearch(
        evaluator,
        len(book.opened),
        chosen_on,
        confirmed_on,
        task_importance(tasks, options.importance),
        options.budget,
        tuple(method for method in options.methods if method != _REGMEAN or book.calibration is not None),
        options.seed,
        start=CENTRE,
        shares=_SHARES,
        confirmation_cost=_CONFIRMATION,
    )
    return search_tokens(book, search, tasks, SweepMetrics(options.metric or "nll", False), spent=0, notes=notes)
