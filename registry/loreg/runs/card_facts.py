"""Read what a model card says of a run: its YAML, and the lists that Trainer, TRL and axolotl write below it.

Sources: transformers 5.23 ``modelcard.py`` (TrainingSummary), TRL 1.16 ``trl/templates/lm_model_card.md``, axolotl 0.19
``train.py`` (setup_model_card), unsloth ``save.py`` (MODEL_CARD), LLaMA-Factory ``trainer_utils.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from loreg.adapters.card import card_license, parse_card_fields
from loreg.entities import Metric
from loreg.runs.configs import from_axolotl
from loreg.runs.documents import to_number
from loreg.runs.facts import (
    DATASET_BUILDERS,
    RunFacts,
    build_metric,
    combine,
    select_arguments,
    to_dataset,
    to_task,
    to_text,
)
from loreg.strict_yaml import parse_yaml

#: In what PEFT writes beside every adapter, and a person is to fill in.
_BLANK = "[More Information Needed]"
_BLANKS_OF_A_FORM = 8
_AXOLOTL = re.compile(r"See axolotl config</summary>\s+axolotl version: `(?P<version>[^`]+)`\s+```yaml\n")
# No two parts of a pattern match the same spaces: a card of spaces alone would take minutes.
_LIST_ITEM = re.compile(r"^- (?P<name>[\w ]+?): *(?P<value>\S.*)$", re.M)
_VERSION = re.compile(r"^- (?P<name>[A-Za-z][\w ]*?):? (?P<version>\d[\w.+-]*) *$", re.M)
#: The sentence in which Trainer names the data; LLaMA-Factory names its own nowhere else in a card.
_TRAINED_ON = re.compile(
    r"^This model (?:is a fine-tuned version of \[[^\]\n]*\]\([^)\n]*\)|was trained from scratch) on the (.+)"
    r" datasets?\.$",
    re.M,
)
#: What the lists call the frameworks, and what their own configurations call their versions.
_FRAMEWORKS = {"pytorch": "torch", "peft": "peft", "trl": "trl", "transformers": "transformers"}
_TRAINERS = {"llama-factory": "LLaMA-Factory", "unsloth": "unsloth", "axolotl": "axolotl"}


def is_blank_form(card: str) -> bool:
    """Return whether a card is the form that PEFT writes beside every adapter, with nothing filled in."""
    return card.count(_BLANK) >= _BLANKS_OF_A_FORM


def read_card_facts(card: str) -> RunFacts:
    """Return what the card says."""
    fields = parse_card_fields(card)
    config = _AXOLOTL.search(card)
    facts = _from_fields(fields, card)
    of_config = from_axolotl(parse_yaml(card[config.end() :].partition("\n```")[0])) if config else RunFacts()
    versions = {"axolotl_version": config["version"]} if config else {}
    trainer = _trainer(fields, card)
    # LLaMA-Factory's card has the datasets of the training alone, whatever was evaluated on.
    eval_datasets = () if trainer == "LLaMA-Factory" else None
    of_card = RunFacts(trainer=trainer, versions=versions, eval_datasets=eval_datasets)
    return combine([of_card, facts, of_config])


def _from_fields(fields: Mapping[str, object], card: str) -> RunFacts:
    parameters = card.partition("hyperparameters were used during training:")[2].partition("\n###")[0]
    arguments = {match["name"].strip(): match["value"].strip() for match in _LIST_ITEM.finditer(parameters)}
    results = list(_results(fields.get("model-index")))
    tasks = [fields.get("pipeline_tag"), *(result.get("task", {}).get("type") for result in results)]
    datasets = fields.get("datasets")
    of_results = [result.get("dataset", {}).get("type") for result in results]
    base = fields.get("base_model")
    return RunFacts(
        tasks=tuple(dict.fromkeys(filter(None, map(to_task, tasks)))),
        datasets=_names([*(datasets if isinstance(datasets, list) else [datasets]), *of_results])
        or _names(_datasets_of_sentence(card)),
        seed=to_text(to_number(arguments.get("seed")) and arguments["seed"]),
        base=base if isinstance(base, str) else "",
        license=card_license(card),
        arguments=select_arguments({name: value for name, value in arguments.items() if name != "seed"}),
        versions=dict(_versions(card.partition("### Framework versions")[2].partition("\n#")[0])),
        metrics=tuple(metric for result in results for metric in _metrics(result)),
        card="" if is_blank_form(card) else card,
    )


def _datasets_of_sentence(card: str) -> list[Any]:
    """Return the datasets in Trainer's sentence on a run: ``on the a, the b and the c datasets.``"""
    match = _TRAINED_ON.search(card)
    names = re.split(r", the | and the ", match[1]) if match else []
    return [name for name in names if name != "None"]


def _trainer(fields: Mapping[str, object], card: str) -> str:
    """Return what wrote the card, as it calls itself; empty if it does not say."""
    tags = fields.get("tags")
    tags = [str(tag).lower() for tag in tags] if isinstance(tags, list) else []
    named = next((name for tag, name in _TRAINERS.items() if tag in tags), "")
    if named or "Built with Axolotl" in card:
        return named or "axolotl"
    if method := re.search(r"This model was trained with ([A-Za-z]+)[,.]", card) if "trl" in tags else None:
        return f"TRL {method[1]}"
    return "transformers Trainer" if "generated_from_trainer" in tags else ""


def _versions(text: str) -> Iterator[tuple[str, str]]:
    for match in _VERSION.finditer(text):
        name = match["name"].lower().replace(" ", "-")
        yield f"{_FRAMEWORKS.get(name, name)}_version", match["version"]


def _results(index: object) -> Iterator[dict[str, Any]]:
    """Yield the results of a card's ``model-index``, each with a ``task`` and ``dataset`` that are mappings."""
    for model in index if isinstance(index, list) else ():
        results = model.get("results") if isinstance(model, dict) else None
        for result in results if isinstance(results, list) else ():
            if isinstance(result, dict):
                parts = {name: result.get(name) for name in ("task", "dataset")}
                yield {**result, **{name: part if isinstance(part, dict) else {} for name, part in parts.items()}}


def _metrics(result: Mapping[str, Any]) -> Iterator[Metric]:
    dataset, split = to_dataset(result["dataset"].get("type")), to_dataset(result["dataset"].get("split"))
    metrics = result.get("metrics")
    for metric in metrics if isinstance(metrics, list) else ():
        value = to_number(metric.get("value")) if isinstance(metric, dict) else None
        if value is not None and (
            built := build_metric(str(metric.get("type") or metric.get("name")), value, dataset, split)
        ):
            yield built


def _names(values: list[Any]) -> tuple[str, ...]:
    names = filter(None, map(to_dataset, values))
    return tuple(dict.fromkeys(name for name in names if name not in DATASET_BUILDERS))
