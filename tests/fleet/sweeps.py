"""Sweeps whose trials run elsewhere: adapters and a program to evaluate them by, and what two sweeps have in common."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from factories import train
from loreg.entities import SweepCandidate, SweepResult
from loreg.registry import Registry

#: Prints an accuracy that is a quadratic of the weights, and appends these to the file ``runs`` of its folder.
SCORE = """
import json, sys
recipe = json.load(open(sys.argv[1] + "/loreg_merge.json"))["recipe"]
weights = [source["weight"] for source in recipe["sources"]]
with open("runs", "a") as file:
    file.write(json.dumps(weights) + "\\n")
print(0.9 - sum((weight - best) ** 2 for weight, best in zip(weights, (0.45, 0.3))))
"""


def fill(folder: Path, count: int = 2) -> list[Path]:
    """Write the program ``score.py`` and adapters; return these."""
    (folder / "score.py").write_text(SCORE)
    return [train(folder / f"source{i}", i) for i in range(count)]


def losses_of(folder: Path) -> dict[str, dict[str, list[float]]]:
    """The losses of a softmax whose logits are linear in the weights; which words there are, is drawn."""
    recipe = json.loads((folder / "loreg_merge.json").read_bytes())["recipe"]
    weights = [recipe["lambda"] * source["weight"] for source in recipe["sources"]]
    generator = np.random.default_rng(4)
    logits = np.tensordot(weights, generator.normal(size=(len(weights), 3000, 6)) * 1.5, 1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return {"losses": {"all": (-log_p[np.arange(3000), generator.integers(6, size=3000)]).tolist()}}


def runs(folder: Path) -> list[str]:
    """Return the weights that the program was asked about in a folder, one a line."""
    path = folder / "runs"
    return path.read_text().splitlines() if path.exists() else []


def what_was_tried(registry: Registry, result: SweepResult) -> list[tuple[SweepCandidate, object, str, str]]:
    """Return of each trial what may not depend on where it ran: recipe, scores, error, and the version's digest."""
    return [
        (
            trial.candidate,
            (trial.scores, trial.confirmed),
            trial.error,
            registry.show(trial.version).version.digest if trial.version else "",
        )
        for trial in result.trials
    ]
