"""The answer of a sweep: which trial to take, those that no other beats, and the command that promotes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loreg.entities import SweepResult, SweepTrial
from loreg.sweeping.pareto import pareto_front
from loreg.verbs.sweep_metrics import SweepMetrics
from loreg.verbs.sweep_trials import TrialBook


def answer_of(
    book: TrialBook, tasks: Sequence[str], metrics: SweepMetrics, best: SweepTrial, notes: Sequence[str], **more: Any
) -> SweepResult:
    """Return the answer of a sweep that takes ``best``; the front is by what was confirmed, else by scores.

    ``more`` has what only some sweeps know.
    """
    scored = [trial for trial in book.trials if not trial.error]
    sign = -1.0 if metrics.higher_is_better else 1.0
    losses = [[sign * (trial.confirmed or trial.scores)[task] for task in tasks] for trial in scored]
    return SweepResult(
        id=book.identity,
        sources=tuple(source.label for source in book.opened),
        tasks=tuple(tasks),
        metric=metrics.name,
        higher_is_better=metrics.higher_is_better,
        trials=tuple(book.trials),
        best=best.number,
        front=tuple(scored[i].number for i in pareto_front(np.array(losses))),
        promote=_promote_command(best),
        notes=(*notes, *book.notes),
        **more,
    )


def _promote_command(trial: SweepTrial) -> str:
    """Return the command that makes a trial what is served; empty if it is no version."""
    return f"loreg tag {trial.version} prod" if trial.version else ""
