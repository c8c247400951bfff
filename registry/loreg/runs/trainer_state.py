"""Read ``trainer_state.json`` of transformers' Trainer: what was measured at which step, and which was the best.

Source: transformers 5.23, ``transformers/trainer_callback.py``, TrainerState; TRL, axolotl, unsloth and LLaMA-Factory
write the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from loreg.runs.documents import read_json, to_number
from loreg.runs.facts import select_arguments, select_metrics

STATE_NAME = "trainer_state.json"


@dataclass(frozen=True)
class TrainerState:
    """How far a run was: ``history`` maps a step to the numbers measured there, ``epochs`` to its epoch.

    ``final`` are the numbers that were measured last at the last step: of the model that the run ended with.
    ``best`` is the name of the folder of the best checkpoint, empty if the run chose none; ``best_metric`` its value.
    """

    step: int
    epoch: float | None
    best: str
    best_metric: float | None
    history: Mapping[int, Mapping[str, float]]
    epochs: Mapping[int, float]
    final: Mapping[str, float] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


def read_trainer_state(folder: Path, run: Path) -> TrainerState | None:
    """Read the file in ``folder`` of the ``run``; None where there is none, or none with a step in it."""
    document = read_json(folder / STATE_NAME, run)
    step = document.get("global_step")
    if type(step) is not int:
        return None
    history, epochs, final = _read_history(document.get("log_history"), step)
    best_step = document.get("best_global_step")
    best = _last_part(document.get("best_model_checkpoint"))
    if not best and type(best_step) is int and document.get("best_metric") is not None:
        best = f"checkpoint-{best_step}"
    arguments = {
        name: document.get(name) for name in ("num_train_epochs", "max_steps", "train_batch_size") if document.get(name)
    }
    return TrainerState(
        step, to_number(document.get("epoch")), best, to_number(document.get("best_metric")), history, epochs,
        final, select_arguments(arguments),
    )  # fmt: skip


def _read_history(
    entries: Any, last_step: int
) -> tuple[dict[int, dict[str, float]], dict[int, float], dict[str, float]]:
    """Return the measured numbers, and the epoch, of each step, and the numbers of the finished run.

    Of two measurements of one thing at one step the first counts for the checkpoint: the second is of the best model,
    which Trainer loads at the end of a run (``load_best_model_at_end``), and so of the finished run.
    """
    history: dict[int, dict[str, float]] = {}
    epochs: dict[int, float] = {}
    final: dict[str, float] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            continue
        step, epoch = entry["step"], to_number(entry.get("epoch"))
        if epoch is not None:
            epochs.setdefault(step, epoch)
        for name, value in select_metrics(entry).items():
            history.setdefault(step, {}).setdefault(name, value)
            if step == last_step:
                final[name] = value
    return history, epochs, final


def _last_part(path: object) -> str:
    if not isinstance(path, str):
        return ""
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
