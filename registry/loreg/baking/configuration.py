"""Change ``config.json`` where tensors are replaced or added: class, labels, size of the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from loreg.adapters.header import Tensor
from loreg.baking.tensor_updates import BakeSource
from loreg.bases.architecture import class_for
from loreg.bases.model import Model

_HEAD_SUFFIXES = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
    "CAUSAL_LM": "ForCausalLM",
}


def head_config(
    model: Model,
    sources: Sequence[BakeSource],
    added: Mapping[str, object],
    replaced: Mapping[str, Tensor],
    vocabulary_tensors: set[str],
    growth: int,
) -> tuple[dict[str, object], list[str]]:
    """Return the changed fields and notes for the user: the class that was trained, its labels, its vocabulary.

    ``replaced`` are whole tensors by their names in the result, ``vocabulary_tensors`` the names of those with a row
    for each token. These have ``growth`` rows more than in the base; some models have more rows than tokens.
    """
    changed: dict[str, object] = {}
    notes: list[str] = []
    if not model.config:
        return changed, notes
    heads = [tensor for name, tensor in replaced.items() if name not in vocabulary_tensors]
    task = next((source.structure.config.task_type for source in sources if source.structure.config.task_type), "")
    is_new = any(name in replaced and name not in vocabulary_tensors for name in added)
    if is_new and task in _HEAD_SUFFIXES and (architecture := _architecture(model, sources, task)):
        changed["architectures"] = [architecture]
        notes.append(f"the model is a {architecture} now")
    if (
        task in ("SEQ_CLS", "TOKEN_CLS")
        and (labels := _count_labels(heads))
        and labels != _configured_labels(model.config)
    ):
        changed["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
        changed["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    if growth and (old := vocabulary_size(model.config)) is not None:
        size = old + growth
        changed |= _with_vocabulary(model.config, size)
        notes.append(f"the vocabulary has {size} tokens now: take the adapter's tokenizer")
    return changed, notes


def vocabulary_size(config: Mapping[str, object]) -> int | None:
    """Return the number of tokens by a configuration or its ``text_config``; None if neither says it."""
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    return size if isinstance(size, int) else None


def _with_vocabulary(config: Mapping[str, object], size: int) -> dict[str, object]:
    """Return the fields that change with the size of the vocabulary: at the top, and of the language model inside."""
    text = config.get("text_config")
    inner = {"text_config": {**text, "vocab_size": size}} if isinstance(text, dict) and "vocab_size" in text else {}
    return inner | ({"vocab_size": size} if "vocab_size" in config or not inner else {})


def _architecture(model: Model, sources: Sequence[BakeSource], task: str) -> str:
    """Return the class of the trained model: what PEFT recorded, or the base's with another head; empty if unknown."""
    for source in sources:
        mapping = source.structure.config.raw.get("auto_mapping")
        if isinstance(mapping, dict) and isinstance(mapping.get("base_model_class"), str):
            return str(mapping["base_model_class"])
    if of_task := class_for(str(model.config.get("model_type")), task):
        return of_task
    family = re.match(r"(.+?)(?:Model|LMHeadModel|For[A-Z]\w*)$", next(iter(model.architectures), ""))
    return family[1] + _HEAD_SUFFIXES[task] if family else ""


def _count_labels(heads: Sequence[Tensor]) -> int:
    """Return the number of labels of a classifier: the fewest outputs of its matrices."""
    return min((tensor.shape[0] for tensor in heads if len(tensor.shape) == 2), default=0)


def _configured_labels(config: Mapping[str, object]) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else 2
