"""Read what torchtune keeps of a run: its configuration, and the numbers that it logs to disk.

Source: torchtune 0.6.1, ``training/metric_logging.py`` (save_config, DiskLogger) and ``training/checkpointing``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from loreg.runs.documents import read_text, read_yaml, to_number
from loreg.runs.facts import DATASET_BUILDERS, RunFacts, select_arguments, select_metrics, to_dataset, to_text

TORCHTUNE_CONFIG = "torchtune_config.yaml"
_WEIGHTS = "adapter_model.pt"  # which torchtune writes beside the weights in PEFT's form
_EPOCH = re.compile(r"epoch_(\d+)")
_LINE = re.compile(r"Step (\d+) \| (.*)")
_MAX_LOGS = 16


def read_torchtune(run: Path) -> Iterator[RunFacts]:
    """Yield what torchtune says of the run in the folder; nothing where it is none of torchtune."""
    if document := read_yaml(run / TORCHTUNE_CONFIG):
        yield from_torchtune(document)
        yield RunFacts(history=_read_log(run))


def from_torchtune(document: Mapping[str, Any]) -> RunFacts:
    """Return what a configuration of torchtune says; nested names are joined by dots."""
    flat = dict(document)
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": of_inner for inner, of_inner in value.items()}
    datasets = document.get("dataset")
    names = [_dataset(entry) for entry in (datasets if isinstance(datasets, list) else [datasets])]
    seed = document.get("seed")
    return RunFacts(
        trainer="torchtune",
        datasets=tuple(dict.fromkeys(filter(None, names))),
        seed=to_text(seed) if to_number(seed) is not None else "",
        arguments=select_arguments(flat),
    )


def has_card_of_base(state: Path) -> bool:
    """Return whether the card in the folder of a state is that of the base: torchtune copies the base's files there."""
    return (state / _WEIGHTS).is_file() or (
        bool(_EPOCH.fullmatch(state.name)) and (state.parent / TORCHTUNE_CONFIG).is_file()
    )


def count_epochs(label: str) -> int | None:
    """Return after how many epochs a state was saved; None where its name is none of torchtune's, which begin at 0."""
    match = _EPOCH.fullmatch(label)
    return int(match[1]) + 1 if match else None


def steps_of_epoch(run: Path) -> int | None:
    """Return how many steps an epoch had, where the log has every step of all epochs that were asked for."""
    document = read_yaml(run / TORCHTUNE_CONFIG)
    epochs, last = document.get("epochs"), max(_read_log(run), default=0)
    if not isinstance(epochs, int) or epochs < 1 or document.get("log_every_n_steps") != 1:
        return None
    is_complete = last > 0 and last % epochs == 0 and (run / f"epoch_{epochs - 1}").is_dir()
    return last // epochs if is_complete else None


def _dataset(entry: object) -> str:
    """Return the name of a dataset: its source, the file that a builder was given, or what its component is called."""
    if not isinstance(entry, dict):
        return ""
    source, files = entry.get("source"), entry.get("data_files")
    if isinstance(source, str) and source in DATASET_BUILDERS and isinstance(files, str):
        return to_dataset(PurePath(files).name)
    component = str(entry.get("_component_") or "").rpartition(".")[2].removesuffix("_dataset")
    return to_dataset(source or component)


def _read_log(run: Path) -> dict[int, dict[str, float]]:
    """Return the numbers of each step in the files that DiskLogger wrote, the newest last."""
    history: dict[int, dict[str, float]] = {}
    for path in sorted([*run.glob("log_*.txt"), *run.glob("logs/log_*.txt")])[:_MAX_LOGS]:
        for line in read_text(path, run).splitlines():
            if match := _LINE.match(line):
                values = (entry.partition(":") for entry in match[2].split())
                numbers = {name: number for name, _, text in values if (number := to_number(text)) is not None}
                history.setdefault(int(match[1]), {}).update(select_metrics(numbers))
    return history
