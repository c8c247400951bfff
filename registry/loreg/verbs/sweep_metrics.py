"""The numbers of a sweep by task: how they are called, how they are recorded, and how much each task counts."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loreg.entities import Metric
from loreg.errors import UsageError
from loreg.sweeping.loss_model import Array

_MAX_WORD = 200  # characters of a task's name


@dataclass(frozen=True)
class SweepMetrics:
    """How a sweep calls its numbers."""

    name: str
    higher_is_better: bool

    def of_split(self, scores: Mapping[str, float], split: str) -> list[Metric]:
        """Return the number of each task as it is recorded."""
        words = _dataset_words(scores)
        return [Metric(self.name, value, words[task], split, self.higher_is_better) for task, value in scores.items()]


def _dataset_words(tasks: Iterable[str]) -> dict[str, str]:
    """Return the name of each task as the word that a metric's dataset is; different tasks have different words."""
    words: dict[str, str] = {}
    for task in tasks:
        word = re.sub(r"[^\w.\-/]+", "-", task)[:_MAX_WORD] or "task"
        copies = (f"{word}-{number}" for number in itertools.count(2))
        while word in words.values():
            word = next(copies)
        words[task] = word
    return words


def scores_by_task(tasks: Sequence[str], values: Sequence[float]) -> Mapping[str, float]:
    """Return the numbers by the names of the tasks."""
    return {task: float(value) for task, value in zip(tasks, values, strict=True)}


def task_importance(tasks: Sequence[str], weights: Mapping[str, float]) -> Array:
    """Return how much each task counts, (T), together 1. Raises UsageError for a task that there is not."""
    if unknown := sorted(set(weights) - set(tasks)):
        raise UsageError(
            f"there is no task {unknown[0]!r}; there are {', '.join(tasks)}",
            hint=f"--importance {shlex.quote(tasks[0])}=2",
        )
    values = np.array([weights.get(task, 1.0) for task in tasks])
    if not values.max() > 0:
        raise UsageError("no task counts", hint=f"--importance {shlex.quote(tasks[0])}=1")
    shares = values / values.max()  # the sum of two large numbers is infinite
    return np.asarray(shares / shares.sum())
