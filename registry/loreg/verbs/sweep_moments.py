"""A sweep without any evaluation: recipes are ranked by how far their outputs are from each adapter's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from loreg.entities import SweepCandidate, SweepOptions, SweepResult, SweepTrial
from loreg.errors import LoregError, UsageError
from loreg.merging.output_error import OutputProducts
from loreg.sweeping.loss_model import Array, model_of_output_errors
from loreg.sweeping.token_search import EQUAL, FREE, STRENGTH
from loreg.verbs.sweep_answer import answer_of
from loreg.verbs.sweep_metrics import SweepMetrics, scores_by_task, task_importance
from loreg.verbs.sweep_trials import TrialBook, factors_of
from loreg.workspace.resolve_sources import merge_inputs

_METRIC = SweepMetrics("output_error", higher_is_better=False)  # in means of the adapters' own output energies
_NOTE = (
    "nothing was evaluated: output errors say which recipe to try first, not how good it is; --data and --base, or "
    "--eval, measure it"
)


def sweep_moments(book: TrialBook, options: SweepOptions) -> SweepResult:
    """Push the equal mixture, one strength, a weight for each and each method at its strength, by output error."""
    assert book.calibration is not None  # noqa: S101
    outputs = OutputProducts(merge_inputs(book.opened, (), book.base), book.calibration)
    tasks, k = tuple(source.label for source in book.opened), len(book.opened)
    products = outputs.products().numpy()
    _refuse_what_no_error_tells_apart(products, tasks)
    importance = task_importance(tasks, options.importance)
    notes = [_NOTE]
    # by weights
    model = model_of_output_errors(products, np.eye(k))
    strength, free = model.common_strength(importance), model.minimize(importance)
    candidates = [
        SweepCandidate(what, tuple(round(float(weight), 4) for weight in weights))
        for what, weights in ((EQUAL, np.full(k, 1 / k)), (STRENGTH, strength), (FREE, free))
    ]
    errors = [model.predict(np.array(candidate.weights)) for candidate in candidates]
    # by methods
    for method in options.methods:
        candidate = SweepCandidate(method, (1.0,) * k, method)
        try:
            crossed = outputs.products([factors_of(book.merge(candidate))]).numpy()
        except LoregError as error:
            notes.append(f"{method} was not tried: {error.message}")
            continue
        by_strength = model_of_output_errors(crossed, np.eye(k + 1)[k:])
        scale = round(float(by_strength.common_strength(importance)[0]), 4)
        candidates.append(replace(candidate, scale=scale))
        errors.append(by_strength.predict(np.array([scale])))
    # record, the best one last
    order = sorted(range(len(candidates)), key=lambda i: -float(importance @ errors[i]))
    for i in order:
        merged, seconds = book.timed_merge(candidates[i])
        with book.write(merged) as folder:
            trial = SweepTrial(0, candidates[i], scores_by_task(tasks, list(errors[i])), merge_seconds=seconds)
            book.record(trial, _METRIC, folder)
    return answer_of(book, tasks, _METRIC, book.trials[-1], notes)


def _refuse_what_no_error_tells_apart(products: Array, tasks: Sequence[str]) -> None:
    """Raise UsageError for an adapter that is there twice, and for one that puts out nothing on its own text."""
    twice = [task for position, task in enumerate(tasks) if task in tasks[:position]]
    if twice:
        raise UsageError(f"{twice[0]} is there twice: its output error would count twice", hint="name it once")
    for position, task in enumerate(tasks):
        if not products[position, position, position] > 0:
            raise UsageError(
                f"{task} puts out nothing on its own text: no error is large or small beside that",
                hint="leave it out, and collect moments without it",
            )
