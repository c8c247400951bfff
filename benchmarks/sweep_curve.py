"""The texts of a setting as ``loreg sweep`` asks for them, so that what its own search finds is held against others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sweep_mixture import Evaluator, Mixture, Outputs, text_losses
from sweep_pool import Array

from loreg.entities import SweepCandidate
from loreg.sweeping.curvature import curve_of_logits, curve_of_losses, sum_by_document
from loreg.sweeping.loss_model import DocumentLosses
from loreg.sweeping.token_search import STEP, Texts, steps_from


@dataclass
class SweepEvaluator:
    """Weighted sums of adapters, evaluated with their logits, or with nothing but the loss of each token."""

    evaluator: Evaluator
    mixture: Mixture
    has_logits: bool

    def curve(self, candidates: Sequence[SweepCandidate], origin: Sequence[float], share: float) -> DocumentLosses:
        """Evaluate dev texts where ``candidates`` are mixed by ``origin``, and a step along each."""
        mixed = np.array([candidate.weights for candidate in candidates])
        points = [np.array(point) @ mixed for point in steps_from(origin)]
        tasks: list[int] = []
        tokens: list[Array] = []
        curves: list[list[Array]] = []
        for number, task in enumerate(self.evaluator.tasks):
            labels, texts, logits = None, None, []
            for point in points:
                whole = self._outputs(point, task)
                labels, texts = whole.labels, whole.texts.numpy()
                logits.append(whole.logits)
            if self.has_logits:
                curve = curve_of_logits(logits[0], logits[1:], labels, STEP)
            else:
                first, *stepped = [torch.nn.functional.cross_entropy(z, labels, reduction="none") for z in logits]
                curve = curve_of_losses(first, stepped, STEP)
            counts = np.bincount(texts)
            tasks += [number] * len(counts)
            tokens.append(counts.astype(float))
            curves.append([sum_by_document(values, texts, len(counts)) for values in curve])
        sums = map(np.concatenate, zip(*curves, strict=True))
        return DocumentLosses(np.array(origin), np.array(tasks), np.concatenate(tokens), *sums)

    def evaluate(self, candidate: SweepCandidate) -> Array:
        """The summed loss of each dev text."""
        return self._losses(candidate, "dev")

    def confirm(self, candidate: SweepCandidate) -> Array:
        """The summed loss of each test text."""
        return self._losses(candidate, "test")

    def texts(self, split: str) -> Texts:
        """The task of each text of a split, and its tokens."""
        by_task = text_losses(self.evaluator, split).values()
        tasks = np.concatenate([np.full(len(sums), task) for task, (sums, _) in enumerate(by_task)])
        return Texts(tasks, np.concatenate([counts.numpy() for _, counts in by_task]))

    def rank_errors(self, candidate: SweepCandidate) -> None:
        """None: no rank is cut here."""

    def seconds(self, candidate: SweepCandidate) -> float:
        """No time is taken."""
        return 0.0

    def _losses(self, candidate: SweepCandidate, split: str) -> Array:
        self.mixture.weights = [*candidate.strengths]
        return np.concatenate([sums.numpy() for sums, _ in text_losses(self.evaluator, split).values()])

    def _outputs(self, point: Array, task: str) -> Outputs:
        self.mixture.weights = point.tolist()
        batches = [*self.evaluator.outputs("dev", task)]
        return Outputs(*(torch.cat(values) for values in zip(*batches, strict=True)))
