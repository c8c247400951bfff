"""A sweep on texts: the base is loaded once, adapters are swapped in it, and the loss of each token is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loreg.algebra.factors import Factors
from loreg.entities import SweepCandidate, SweepOptions, SweepResult
from loreg.merging.device import choose_device
from loreg.merging.source_factors import read_source_factors
from loreg.sweeping.evaluation_data import EvaluationData
from loreg.sweeping.in_place import InPlaceModel
from loreg.sweeping.in_place_evaluator import InPlaceEvaluator
from loreg.sweeping.token_search import Texts, TokenSearch
from loreg.verbs.sweep_metrics import SweepMetrics, task_importance
from loreg.verbs.sweep_tokens import refuse_few_tokens, refuse_small_budget, search_tokens
from loreg.verbs.sweep_trials import TrialBook, factors_of
from loreg.workspace.resolve_sources import merge_inputs

_METRIC = SweepMetrics("nll", higher_is_better=False)  # nats a token
_REGMEAN = "regmean"


def sweep_texts(book: TrialBook, data: EvaluationData, options: SweepOptions) -> SweepResult:
    """Choose on one half of the texts, confirm on the other, and record what was tried."""
    refuse_small_budget(book, options, 0)
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
    notes = refuse_few_tokens(data.tasks, chosen_on, confirmed_on)
    if data.duplicates:
        notes.append(f"{data.duplicates} texts were there twice and count once")
    methods, spent = list(options.methods), 0
    if _REGMEAN in methods and book.calibration is None and len(data.tasks) == len(book.opened):
        refuse_small_budget(book, options, 1)
        book.calibration, spent = evaluator.collect_moments(factors, _positions(book, data.tasks, notes)), 1
    elif _REGMEAN in methods and book.calibration is None:
        methods.remove(_REGMEAN)
        notes.append(f"regmean was not tried: {len(data.tasks)} tasks for {len(book.opened)} adapters")
    search = TokenSearch(
        evaluator,
        len(book.opened),
        chosen_on,
        confirmed_on,
        importance,
        options.budget - spent,
        tuple(methods),
        options.seed,
        progress=book.progress,
    )
    return search_tokens(book, search, data.tasks, _METRIC, spent=spent, notes=notes)


def _factors_of(
    book: TrialBook, candidate: SweepCandidate, sources: Sequence[Mapping[str, Factors]]
) -> Mapping[str, Factors]:
    """Return the factors of a merged candidate: none of the base, those of one source as they are where it is alone."""
    alone = [i for i, weight in enumerate(candidate.weights) if weight]
    if not alone:
        return {}
    if candidate.method == "linear" and len(alone) == 1 and candidate.strengths[alone[0]] == 1:
        return sources[alone[0]]
    return factors_of(book.merge(candidate))


def _positions(book: TrialBook, tasks: Sequence[str], notes: list[str]) -> list[int]:
    """Return for each source the position of the task whose text it was trained for: by name, else in order."""
    names = [source.label.rpartition("/")[2].partition(":")[0].partition("@")[0] for source in book.opened]
    if sorted(names) == sorted(tasks):
        return [tasks.index(name) for name in names]
    pairs = ", ".join(f"{source.label} for {task}" for source, task in zip(book.opened, tasks, strict=True))
    notes.append(f"regmean took the adapters and tasks in their order: {pairs}")
    return list(range(len(tasks)))
