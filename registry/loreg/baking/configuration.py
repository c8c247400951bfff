"""What changes in ``config.json`` when tensors are replaced or added: classes, labels, the size of the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from loreg.adapters.header import Tensor
from loreg.baking.factors import Source
from loreg.bases import names
from loreg.bases.model import Model

_CLASS_FOR = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
}


def config_of_heads(
    model: Model, sources: Sequence[Source], added: Mapping[str, Any], replaced: Mapping[str, Tensor]
) -> tuple[dict[str, Any], list[str]]:
    """Changed fields, and what to tell a person: the class that was trained, its labels, its vocabulary."""
    changed: dict[str, Any] = {}
    notes: list[str] = []
    if not model.config:
        return changed, notes
    heads = [tensor for name, tensor in replaced.items() if not names.is_head(name) and not names.is_embedding(name)]
    task = next((source.layout.config.task_type for source in sources if source.layout.config.task_type), "")
    if added and heads and task in _CLASS_FOR and (architecture := _architecture(model, sources, task)):
        changed["architectures"] = [architecture]
        notes.append(f"the model is a {architecture} now")
    if task in ("SEQ_CLS", "TOKEN_CLS") and (labels := _labels(heads)) and labels != _labels_in(model.config):
        changed["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
        changed["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    rows = {tensor.shape[0] for name, tensor in replaced.items() if names.is_embedding(name) and len(tensor.shape) == 2}
    if len(rows) == 1 and (size := rows.pop()) != model.config.get("vocab_size", size):
        changed["vocab_size"] = size
        notes.append(f"the vocabulary has {size} tokens now: take the adapter's tokenizer")
    return changed, notes


def _architecture(model: Model, sources: Sequence[Source], task: str) -> str:
    """The class of the trained model: what PEFT wrote down, or the base's with another head."""
    for source in sources:
        mapping = source.layout.config.raw.get("auto_mapping")
        if isinstance(mapping, dict) and isinstance(mapping.get("base_model_class"), str):
            return str(mapping["base_model_class"])
    family = re.match(r"(.+?)(?:Model|LMHeadModel|For[A-Z]\w*)$", next(iter(model.architectures), ""))
    return family[1] + _CLASS_FOR[task] if family else ""


def _labels(heads: Sequence[Tensor]) -> int:
    """How many labels the last layer of a classifier tells apart: the fewest outputs of its matrices."""
    return min((tensor.shape[0] for tensor in heads if len(tensor.shape) == 2), default=0)


def _labels_in(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else 2
