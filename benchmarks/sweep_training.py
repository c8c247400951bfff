"""Train one adapter, the same way for both bases, and write it whole."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from sweep_splits import Splits, digest


class Training(NamedTuple):
    """How an adapter is trained; alpha is twice the rank, AdamW is without weight decay."""

    rank: int
    modules: tuple[str, ...]
    seed: int
    steps: int = 30
    #: Rows of a step: texts of 128 tokens, or documents.
    rows: int = 4
    learning_rate: float = 2e-3
    warmup: int = 5


#: Trains on a base, writes the folder, and returns what the held-out documents say ``before`` and ``after``.
Train = Callable[[Path, Splits, Training, Path], dict[str, float]]


def train_all(
    home: Path, base: Path, splits: dict[str, Splits], trainings: dict[str, Training], train: Train
) -> dict[str, Path]:
    """Train what is not there yet of these texts and settings, one by one, and print what they learn."""
    folders = {}
    for name, training in trainings.items():
        folders[name], report = home / "adapters" / name, home / "trainings" / f"{name}.json"
        recipe = {"train": digest(splits[name].train), **training._asdict(), "modules": [*training.modules]}
        if not _is_trained(folders[name], report, recipe):
            shutil.rmtree(folders[name], ignore_errors=True)
            begin = time.perf_counter()
            gain = train(base, splits[name], training, folders[name])
            seconds = time.perf_counter() - begin
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(json.dumps({"training": recipe, **gain, "seconds": seconds}, indent=1))
            print(f"trained {name:11} {gain['before']:.3f} → {gain['after']:.3f}   {seconds:4.0f} s", flush=True)
    return folders


def _is_trained(folder: Path, report: Path, recipe: dict[str, object]) -> bool:
    return folder.is_dir() and report.is_file() and json.loads(report.read_text())["training"] == recipe


def train_model(model: PeftModel, loss: Callable[[torch.Generator], torch.Tensor], training: Training) -> None:
    """Take the steps: AdamW, warmed up linearly, then falling along half a cosine; ``loss`` draws the rows."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, training))
    generator = torch.Generator().manual_seed(training.seed)
    for _ in range(training.steps):
        optimizer.zero_grad()
        loss(generator).backward()
        optimizer.step()
        schedule.step()


def save_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """Write an ordinary PEFT folder, whole or not at all: a run may be cut off."""
    model.peft_config["default"].base_model_name_or_path = base_name
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, save_embedding_layers=False)
    (unfinished / "README.md").unlink(missing_ok=True)
    unfinished.rename(folder)


def _share_of_rate(step: int, training: Training) -> float:
    return min(1.0, (step + 1) / training.warmup) * 0.5 * (1 + math.cos(math.pi * step / training.steps))
