"""Evaluate candidates with a program that prints the loss of each token: how they bend follows from differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from loreg.entities import SweepCandidate
from loreg.errors import EvaluationError
from loreg.sweeping.curvature import curve_of_losses, sum_by_document
from loreg.sweeping.loss_model import Array, DocumentLosses
from loreg.sweeping.token_search import STEP, Texts, curve_points

_BLOCK = 64  # tokens that are drawn together, as a document is

#: Returns the loss of each token of each task with a candidate. Raises EvaluationError.
MeasureLosses = Callable[[SweepCandidate], Mapping[str, Array]]


@dataclass(frozen=True)
class LossesEvaluator:
    """A program whose tokens are dealt to both halves in blocks of 64: one evaluation serves choice and confirmation.

    ``counts`` has the number of tokens of each task, in their order; a program that prints others has failed.
    """

    measure: MeasureLosses
    seconds: Callable[[SweepCandidate], float]
    counts: Mapping[str, int]

    def curve(self, candidates: Sequence[SweepCandidate], origin: Sequence[float], share: float) -> DocumentLosses:
        """Return how the losses bend with the weights of ``candidates``: the sources alone, or one merged candidate."""
        losses, *stepped = [torch.from_numpy(self._losses(point)) for point in curve_points(candidates, origin)]
        curved = curve_of_losses(losses, stepped, STEP)
        blocks, texts = self._blocks(confirmed=False)
        kept = blocks >= 0
        sums = (sum_by_document(values[torch.from_numpy(kept)], blocks[kept], len(texts.tasks)) for values in curved)
        return DocumentLosses(np.array(origin), texts.tasks, texts.tokens, *sums)

    def evaluate(self, candidate: SweepCandidate) -> Array:
        """Return the summed loss of each block that is chosen by, (D)."""
        return self._sums(candidate, confirmed=False)

    def confirm(self, candidate: SweepCandidate) -> Array:
        """Return the summed loss of each block of confirmation, (D'), out of the same evaluation."""
        return self._sums(candidate, confirmed=True)

    def rank_errors(self, candidate: SweepCandidate) -> None:
        """Return None: a program does not say what the modules see."""

    def texts(self, *, confirmed: bool) -> Texts:
        """Return the blocks of one half."""
        return self._blocks(confirmed)[1]

    def _sums(self, candidate: SweepCandidate, *, confirmed: bool) -> Array:
        blocks, texts = self._blocks(confirmed)
        kept = blocks >= 0
        return sum_by_document(torch.from_numpy(self._losses(candidate)[kept]), blocks[kept], len(texts.tasks))

    def _losses(self, candidate: SweepCandidate) -> Array:
        """Return the losses of all tokens, task after task. Raises EvaluationError for those of other texts."""
        losses = self.measure(candidate)
        if {task: len(values) for task, values in losses.items()} != dict(self.counts):
            raise EvaluationError(
                "the evaluation printed losses of other tasks, or of another number of tokens, than the first time",
                hint="let it go through the same texts each time",
            )
        return np.concatenate([losses[task] for task in self.counts])

    def _blocks(self, confirmed: bool) -> tuple[npt.NDArray[np.int64], Texts]:
        """Return the block of each token, −1 in the other half, and the blocks of this one."""
        blocks: list[npt.NDArray[np.int64]] = []
        tasks: list[int] = []
        tokens: list[int] = []
        for task, count in enumerate(self.counts.values()):
            numbers = np.arange(count) // _BLOCK
            own = numbers % 2 == int(confirmed)
            blocks.append(np.where(own, len(tasks) + numbers // 2, -1))
            sizes = np.bincount(numbers[own] // 2)
            tasks += [task] * len(sizes)
            tokens += sizes.tolist()
        return np.concatenate(blocks), Texts(np.array(tasks, dtype=np.int64), np.array(tokens, dtype=np.float64))
