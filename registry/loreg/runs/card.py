"""Write a model card for an adapter that has none, from what its run left.

Format: https://huggingface.co/docs/hub/model-cards, its YAML with a ``model-index`` as Trainer writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loreg.adapters.config import LoraConfig
from loreg.adapters.structure import AdapterStructure
from loreg.base_names import is_hub_name
from loreg.entities import Metric, VersionMetadata
from loreg.runs.source import RunAdapter, SavedState

#: What the Hub calls the tasks of PEFT's ``task_type``.
_PIPELINES = {
    "CAUSAL_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
_UNKNOWN = "unknown"


def write_card(
    adapter: RunAdapter, state: SavedState, name: str, structure: AdapterStructure, metadata: VersionMetadata
) -> str:
    """Return the card of the state as a version of the adapter ``name``: YAML for programs, and the same for people.

    It has no date and no path, so that the same state has the same card on every machine.
    """
    import yaml  # here, for most commands need none of it

    metrics = [metric for metric in metadata.metrics if isinstance(metric, Metric)]
    fields = dict(_fields(state, name, structure.config, metrics))
    front_matter = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    text = "\n".join(_body(adapter, state, name, structure, metadata, metrics))
    return f"---\n{front_matter}---\n\n{text}\n"


def _fields(
    state: SavedState, name: str, config: LoraConfig, metrics: Sequence[Metric]
) -> Iterator[tuple[str, object]]:
    facts = state.facts
    if base := next((base for base in (config.base_hint, facts.base) if base and is_hub_name(base)), ""):
        yield "base_model", base
    yield "library_name", "peft"
    if facts.license:
        yield "license", facts.license
    pipeline = _pipeline(state, config)
    if pipeline != _UNKNOWN:
        yield "pipeline_tag", pipeline
    if facts.datasets:
        yield "datasets", list(facts.datasets)
    yield "tags", ["lora", *([f"base_model:adapter:{base}"] if base else [])]
    if metrics:
        yield "model-index", [{"name": name, "results": list(_results(metrics, pipeline))}]


def _results(metrics: Sequence[Metric], pipeline: str) -> Iterator[dict[str, object]]:
    """Yield a result for each dataset; the Hub wants a task and a dataset for every number."""
    for dataset, split in dict.fromkeys((metric.dataset, metric.split) for metric in metrics):
        measured = [metric for metric in metrics if (metric.dataset, metric.split) == (dataset, split)]
        yield {
            "task": {"type": pipeline},
            "dataset": {
                "name": dataset or _UNKNOWN,
                "type": dataset or _UNKNOWN,
                **({"split": split} if split else {}),
            },
            "metrics": [{"name": metric.name, "type": metric.name, "value": metric.value} for metric in measured],
        }


def _pipeline(state: SavedState, config: LoraConfig) -> str:
    of_card = [task for task in state.facts.tasks if task in _PIPELINES.values()]
    return next(iter(of_card), _PIPELINES.get(config.task_type, _UNKNOWN))


def _body(
    adapter: RunAdapter,
    state: SavedState,
    name: str,
    structure: AdapterStructure,
    metadata: VersionMetadata,
    metrics: Sequence[Metric],
) -> Iterator[str]:
    facts, config = state.facts, structure.config
    ranks = sorted({module.rank for module in structure.modules.values()})
    rank = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    kinds = ", ".join(f"`{kind}`" for kind in sorted({module.type for module in structure.modules.values()}))
    trainer = f", trained with {facts.trainer}" if facts.trainer else ""
    yield f"# {name}"
    yield ""
    yield f"A LoRA adapter of rank {rank} and alpha {config.lora_alpha:g} on {kinds}{trainer}."
    yield f"It is the {metadata.message}."
    yield ""
    yield "This card was written by loreg from the files of the run; nobody has completed it yet."
    if metrics:
        yield from _table(
            "Measured", ("Metric", "Value", "Dataset"), ((m.name, f"{m.value:g}", m.dataset) for m in metrics)
        )
    arguments = {**facts.arguments, **({"seed": facts.seed} if facts.seed else {})}
    if arguments:
        yield from _table("Training", ("Argument", "Value"), sorted(arguments.items()))
    if facts.versions:
        yield from _table("Framework versions", ("Framework", "Version"), sorted(facts.versions.items()))


def _table(
    title: str, columns: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]
) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |"
