"""What a sweep knows after T + 1 evaluations, by its own code: how the loss of each text bends with the weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sweep_mixture import Evaluator, Mixture, Outputs
from sweep_pool import Array

from loreg.sweeping.curvature import curve_of_logits, curve_of_losses, sum_by_document
from loreg.sweeping.loss_model import DocumentLosses
from loreg.sweeping.token_search import STEP, steps_from


class Curves(NamedTuple):
    """The same T + 1 evaluations on dev texts, with their logits, and with nothing but the loss of each token."""

    by_logits: DocumentLosses
    by_losses: DocumentLosses


def evaluate_curves(evaluator: Evaluator, mixture: Mixture, origin: Array) -> Curves:
    """Evaluate at ``origin`` (T,) and a step along each weight."""
    points = steps_from(origin.tolist())
    parts: tuple[list[list[Array]], ...] = ([], [])
    tasks: list[int] = []
    tokens: list[Array] = []
    for task_number, task in enumerate(evaluator.tasks):
        evaluated = [_whole(evaluator, mixture, point, task) for point in points]
        count = int(evaluated[0].texts.max()) + 1
        tasks += [task_number] * count
        tokens.append(np.bincount(evaluated[0].texts).astype(float))
        logits = [output.logits for output in evaluated]
        labels = evaluated[0].labels
        losses = [torch.nn.functional.cross_entropy(z, labels, reduction="none").double() for z in logits]
        curves = curve_of_logits(logits[0], logits[1:], labels, STEP), curve_of_losses(losses[0], losses[1:], STEP)
        for part, curve in zip(parts, curves, strict=True):
            part.append([sum_by_document(values, evaluated[0].texts.numpy(), count) for values in curve])
    return Curves(
        *(
            DocumentLosses(
                origin, np.array(tasks), np.concatenate(tokens), *map(np.concatenate, zip(*part, strict=True))
            )
            for part in parts
        )
    )


def _whole(evaluator: Evaluator, mixture: Mixture, point: tuple[float, ...], task: str) -> Outputs:
    mixture.weights = [*point]
    batches = [*evaluator.outputs("dev", task)]
    return Outputs(*(torch.cat(values) for values in zip(*batches, strict=True)))
