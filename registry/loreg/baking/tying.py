"""Output heads that are the token embedding once more, and what becomes of that when one of the two changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loreg.bases import names
from loreg.bases.model import Model

_WITH_A_HEAD = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForMaskedLM")


class Tying:
    """Whether the base's head is tied to its embedding: ``embedding`` and ``head`` are names in its files, or the name
    that an untied head will have; ``stored`` is whether the files have a head.

    ``spoken_of`` are the tensors that adapters name: one that names a head was trained on a model that has one.
    """

    def __init__(self, model: Model, raw: Mapping[str, str], spoken_of: Iterable[str]) -> None:
        embedding = names.embedding_among(raw)
        head = names.head_among(raw)
        said = _said(model.config)
        has_head = any(name.endswith(_WITH_A_HEAD) for name in model.architectures) or any(map(_is_head, spoken_of))
        self.stored = head is not None
        self.tied = embedding is not None and has_head and (said is True or (said is None and not self.stored))
        self.embedding = raw[embedding] if embedding else ""
        wrapper, _, _ = self.embedding.partition("model.embed_tokens")
        self.head = raw[head] if head else f"{wrapper if wrapper == 'language_model.' else ''}lm_head.weight"

    def place(self, wanted: str, found: str) -> str:
        """The tensor of the result that an adapter means by ``wanted``, where the base has ``found`` for it."""
        return self.head if self.tied and _is_head(wanted) else found

    def lacks(self, wanted: str) -> bool:
        """Whether ``wanted`` is a head that the base does not have, not even as its embedding."""
        return _is_head(wanted) and not self.stored and not self.tied

    def untied(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of ``config.json`` that say that the two are no longer one."""
        changed: dict[str, Any] = {"tie_word_embeddings": False}
        text = config.get("text_config")
        if isinstance(text, dict) and "tie_word_embeddings" in text:
            changed["text_config"] = {**text, "tie_word_embeddings": False}
        return changed

    def is_touched(self, changed: Iterable[str]) -> bool:
        """Whether one of the two is among the tensors that change."""
        return self.tied and not {self.embedding, self.head}.isdisjoint(changed)


def _is_head(name: str) -> bool:
    return names.is_head(names.canonical(name))


def _said(config: Mapping[str, Any]) -> bool | None:
    text = config.get("text_config")
    for document in (config, text if isinstance(text, dict) else {}):
        if isinstance(document.get("tie_word_embeddings"), bool):
            return bool(document["tie_word_embeddings"])
    return None
