"""What is known of a run beside its weights, under the names that its source uses, and how sources are put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from loreg.entities import Metric
from loreg.errors import UsageError
from loreg.parsing import parse_metric, parse_word
from loreg.runs.documents import to_number

#: Arguments of training that are kept, as Trainer, TRL, axolotl, LLaMA-Factory and torchtune name them.
ARGUMENTS = frozenset({
    "learning_rate", "lr", "optimizer.lr", "optimizer.weight_decay", "num_train_epochs", "num_epochs", "epochs",
    "max_steps", "max_steps_per_epoch", "per_device_train_batch_size", "train_batch_size", "micro_batch_size",
    "batch_size", "gradient_accumulation_steps", "total_train_batch_size", "lr_scheduler_type", "lr_scheduler",
    "lr_scheduler_warmup_ratio", "lr_scheduler_warmup_steps", "warmup_ratio", "warmup_steps", "weight_decay", "optim",
    "optimizer", "optimizer._component_", "max_seq_length", "max_length", "sequence_len", "cutoff_len",
    "tokenizer.max_seq_len", "neftune_noise_alpha", "beta", "pref_beta", "loss_type", "pref_loss", "bf16", "fp16",
    "mixed_precision_training", "load_in_4bit", "load_in_8bit", "quantization_bit", "packing", "sample_packing",
    "stage", "template", "rl", "label_smoothing_factor", "max_grad_norm", "completion_only_loss",
})  # fmt: skip
#: Ends of the names of numbers that say how fast the machine was, or how far training is, and not how good it became.
_NO_QUALITY = re.compile(
    r"(^|[_/])(runtime|samples_per_second|steps_per_second|tokens_per_second\w*|model_preparation_time|epoch|step"
    r"|global_step|learning_rate|lr|grad_norm|total_flos|num_tokens|num_input_tokens_seen|timestamp|samples"
    r"|peak_memory_\w+|iteration)$|^_"
)
#: What the library datasets calls the readers of files: no names of what is in the files.
DATASET_BUILDERS = frozenset({
    "arrow", "audiofolder", "csv", "generator", "imagefolder", "json", "pandas", "parquet", "text", "webdataset", "xml",
})  # fmt: skip
_MAX_TEXT = 100  # characters of an argument
_MAX_DATASET = 200


@dataclass(frozen=True)
class RunFacts:
    """What one source says of a run; empty where it says nothing.

    ``arguments`` are those of training and ``versions`` those of frameworks, by the source's names; ``history`` maps a
    step to the numbers that were measured there, ``results`` are the numbers of the finished run. ``card`` is the text
    of a model card that somebody or something wrote for this run, ``source`` where it was taken from, if not a folder.
    ``eval_datasets`` are those that the numbers of evaluations are of; None where the source knows of no others than
    ``datasets``, and none at all where there may be others that it does not name.
    """

    trainer: str = ""
    tasks: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    eval_datasets: tuple[str, ...] | None = None
    seed: str = ""
    base: str = ""
    base_revision: str = ""
    license: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    history: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    results: Mapping[str, float] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    card: str = ""
    source: str = ""


def combine(sources: Iterable[RunFacts]) -> RunFacts:
    """Put together what several sources say; where two say something else of one thing, the first is right."""
    total = RunFacts()
    for source in sources:
        history = dict(total.history)
        for step, numbers in source.history.items():
            history[step] = {**numbers, **history.get(step, {})}
        total = RunFacts(
            trainer=total.trainer or source.trainer,
            tasks=total.tasks or source.tasks,
            datasets=total.datasets or source.datasets,
            eval_datasets=source.eval_datasets if total.eval_datasets is None else total.eval_datasets,
            seed=total.seed or source.seed,
            base=total.base or source.base,
            base_revision=total.base_revision or source.base_revision,
            license=total.license or source.license,
            arguments={**source.arguments, **total.arguments},
            versions={**source.versions, **total.versions},
            history=history,
            results={**source.results, **total.results},
            metrics=total.metrics or source.metrics,
            card=total.card or source.card,
            source=total.source or source.source,
        )
    return total


def select_arguments(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of training in a flat document, as texts by their names; paths are left out."""
    return {name: text for name in document if name in ARGUMENTS and (text := to_text(document[name]))}


def select_metrics(numbers: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers of a flat document that say how good the adapter is, by their names."""
    selected = {}
    for name, value in numbers.items():
        number = to_number(value)
        if number is not None and not isinstance(value, str) and not _NO_QUALITY.search(name):
            selected[name] = number
    return selected


def build_metric(name: str, value: float, dataset: str = "", split: str = "") -> Metric | None:
    """Return the metric, in the direction that its name implies; None for a name that a metric cannot have."""
    where = f"@{dataset}" + (f":{split}" if split else "") if dataset else ""
    try:
        return parse_metric(f"{re.sub(r'[^A-Za-z0-9._/-]+', '_', name)}={value!r}{where}")
    except UsageError:
        return None


def to_task(text: object) -> str:
    """Return a task as a word; empty if it is none."""
    try:
        return parse_word(str(text).strip().replace(" ", "-"), "task") if isinstance(text, str) else ""
    except UsageError:
        return ""


def to_dataset(value: object) -> str:
    """Return the name of a dataset as one word; of a path on the trainer's machine the last part."""
    if not isinstance(value, str):
        return ""
    name = without_folders(value.strip()).replace(":", "-")
    return re.sub(r"[\s@]+", "-", name)[:_MAX_DATASET] if name.isprintable() else ""


def to_text(value: object) -> str:
    """Return a number, truth value or short text as the text of a label; empty for all else, also for a path."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value) if to_number(value) is not None else ""
    if not isinstance(value, str) or value in ("None", "") or len(value) > _MAX_TEXT or not value.isprintable():
        return ""
    return "" if without_folders(value) != value else value


def without_folders(text: str) -> str:
    """Return the last part of what reads like a path on one machine, and everything else as it is."""
    windows = PureWindowsPath(text)
    if windows.drive or "\\" in text:
        return windows.name
    is_path = text.startswith(("/", "~", "./", "../", "file:")) or text.count("/") > 1
    return PurePosixPath(text).name if is_path and ("://" not in text or text.startswith("file:")) else text
