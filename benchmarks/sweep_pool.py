"""Weights that were evaluated for real, a few of each kind that searches ask for: on dev documents, and on test ones.

What is evaluated is kept in ``.sweep``, a line for each, so that a run that was ended goes on.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray
from sweep_mixture import SPLITS, Evaluator, Mixture, load_evaluator, read_deltas, task_losses
from sweep_setting import HOME, Setting

Array = NDArray[np.float64]
EQUAL_STRENGTHS = (0.15, 0.25, 0.35, 0.5, 0.7, 1.0)
#: Draws from the near and the wide box.
NEAR, WIDE = 90, 40
#: The wide box; searches that ask for more are moved to its edge.
LOW, HIGH = -0.1, 1.1
#: What is read of each task's dev and test documents: rows of 128 tokens, or examples.
COUNTS = {"smollm2": 2, "minilm": 24}


class Pool:
    """Weights (n, T) with their losses (n, 2, tasks) on dev and test texts, in nats a token or an example."""

    def __init__(self, name: str, setting: Setting) -> None:
        self._name, self._setting = name, setting
        self._file = HOME / name / f"evaluations-{_digest(name, setting)}.jsonl"
        self._mixture: tuple[Evaluator, Mixture] | None = None
        lines = self._file.read_text().splitlines() if self._file.is_file() else []
        self._known = {tuple(line.pop("weights")): line for line in map(json.loads, lines)}
        self.weights = recipes(len(setting.adapters))
        self.losses = np.array([self.evaluate(weights) for weights in self.weights])

    def evaluate(self, weights: Array) -> Array:
        """Return the losses (2, tasks) of weights (T,), evaluated unless they were before."""
        key = tuple(weights.round(4).tolist())
        if key not in self._known:
            evaluator, mixture = self._open()
            mixture.weights = [*key]
            self._known[key] = {split: task_losses(evaluator, split) for split in SPLITS}
            with self._file.open("a") as stream:
                stream.write(json.dumps({"weights": key, **self._known[key]}) + "\n")
        return np.array([[*self._known[key][split].values()] for split in SPLITS])

    def _open(self) -> tuple[Evaluator, Mixture]:
        if self._mixture is None:
            count = COUNTS[self._name]
            evaluator = load_evaluator(self._setting, dev=count, test=count)
            deltas = [read_deltas(folder) for folder in self._setting.adapters.values()]
            self._mixture = evaluator, Mixture(evaluator.model, deltas)
        return self._mixture


def recipes(count: int, seed: int = 11) -> Array:
    """Weights to evaluate: none, each adapter alone, equal strengths, and draws from a near and a wide box.

    The near box is [0, 0.7], of more than five adapters [0, 4/T]: the more there are, the less of each is best.
    """
    generator = np.random.default_rng(seed)
    equal = np.array(EQUAL_STRENGTHS)[:, None] * np.ones(count)
    wide_draws = generator.uniform(LOW, HIGH, (WIDE, count))
    near_draws = generator.uniform(0, min(0.7, 4 / count), (NEAR, count))
    return np.vstack([np.zeros((1, count)), np.eye(count), equal, near_draws, wide_draws]).round(4)


def _digest(name: str, setting: Setting) -> str:
    """Tell these very adapters and so much data from others."""
    digest = hashlib.sha256(str(COUNTS[name]).encode())
    for folder in setting.adapters.values():
        digest.update((folder / "adapter_model.safetensors").read_bytes())
    return digest.hexdigest()[:12]
