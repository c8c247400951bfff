"""Read the configurations that axolotl, LLaMA-Factory and torchtune keep in the folder of a run.

Sources: axolotl 0.19 ``train.py`` and docs/config-reference; LLaMA-Factory ``webui/runner.py`` (training_args.yaml),
``train/callbacks.py`` (trainer_log.jsonl). Those of torchtune are read by :mod:`loreg.runs.torchtune`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loreg.runs.documents import read_json_lines, read_yaml, to_number
from loreg.runs.facts import RunFacts, select_arguments, to_dataset, to_task, to_text
from loreg.runs.torchtune import TORCHTUNE_CONFIG, read_torchtune

LLAMA_FACTORY_CONFIG = "training_args.yaml"
LLAMA_FACTORY_LOG = "trainer_log.jsonl"
_MAX_CONFIGS = 8  # files of YAML in a folder that are looked into
#: What the stages of LLaMA-Factory are called.
_STAGES = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "rm": "reward modeling", "pt": "pre-training", "ppo": "PPO"}


def read_configs(folder: Path) -> Iterator[RunFacts]:
    """Yield what each configuration in the folder says."""
    yield from read_torchtune(folder)
    if factory := read_yaml(folder / LLAMA_FACTORY_CONFIG):
        yield from_llama_factory(factory)
    log: dict[int, dict[str, float]] = {}
    for entry in read_json_lines(folder / LLAMA_FACTORY_LOG):
        step, loss = entry.get("current_steps"), to_number(entry.get("eval_loss"))
        if isinstance(step, int) and loss is not None:
            log.setdefault(step, {"eval_loss": loss})
    if log:
        yield RunFacts(trainer="LLaMA-Factory", history=log)
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")])[:_MAX_CONFIGS]:
        document = read_yaml(path) if path.name not in (TORCHTUNE_CONFIG, LLAMA_FACTORY_CONFIG) else {}
        if "base_model" in document and ("adapter" in document or "micro_batch_size" in document):
            yield from_axolotl(document)
        elif "model_name_or_path" in document and "finetuning_type" in document:
            yield from_llama_factory(document)


def from_axolotl(document: Mapping[str, Any]) -> RunFacts:
    """Return what a configuration of axolotl says."""
    datasets, tested = _paths(document.get("datasets")), _paths(document.get("test_datasets"))
    return RunFacts(
        trainer="axolotl",
        datasets=datasets,
        eval_datasets=tested or datasets,  # of which it keeps a part back
        seed=_seed(document),
        base=_text(document.get("base_model")),
        base_revision=_text(document.get("revision_of_model")),
        arguments=select_arguments(document),
    )


def from_llama_factory(document: Mapping[str, Any]) -> RunFacts:
    """Return what the arguments of a run of LLaMA-Factory say."""
    datasets, tested = _split_names(document.get("dataset")), _split_names(document.get("eval_dataset"))
    stage = _STAGES.get(str(document.get("stage")), "")
    return RunFacts(
        trainer=f"LLaMA-Factory {stage}".strip(),
        datasets=datasets,
        eval_datasets=tested or datasets,  # of which it keeps a part back
        seed=_seed(document),
        base=_text(document.get("model_name_or_path")),
        base_revision=_revision(document.get("model_revision")),
        arguments=select_arguments(document),
    )


def from_arguments(document: Mapping[str, Any]) -> RunFacts:
    """Return what the arguments of a Trainer's run say, as trackers keep them beside those of the script."""
    datasets = [document.get(name) for name in ("dataset_name", "dataset", "train_dataset")]
    return RunFacts(
        tasks=tuple(filter(None, [to_task(document.get("task_name"))])),
        datasets=_names(datasets),
        seed=_seed(document),
        base=_text(document.get("_name_or_path") or document.get("model_name_or_path")),
        base_revision=_revision(document.get("model_revision")),
        arguments=select_arguments(document),
        versions={"transformers_version": text} if (text := to_text(document.get("transformers_version"))) else {},
    )


def _paths(entries: object) -> tuple[str, ...]:
    """Return the names in a list of datasets as axolotl has it."""
    return _names(
        [entry.get("path") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


def _split_names(value: object) -> tuple[str, ...]:
    """Return the names in a list of datasets as LLaMA-Factory has it, or in a text with commas."""
    return _names(value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [])


def _seed(document: Mapping[str, Any]) -> str:
    return to_text(document.get("seed")) if to_number(document.get("seed")) is not None else ""


def _revision(value: object) -> str:
    """Return a revision of a base, but for the one that everybody has who names none."""
    return "" if value == "main" else to_text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _names(values: list[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(to_dataset, values))))
