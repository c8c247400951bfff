"""The options that an adapter can be trained with, each as the fields of PEFT's LoraConfig for one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.facts import Facts

Fields = dict[str, Any]


@dataclass(frozen=True)
class Option:
    """``fields`` answers the fields of LoraConfig, or None where the model has nothing of the kind.

    ``about_tying`` marks what can differ with the tying of head and embedding: it is tried with both. With ``grown``
    the vocabulary is resized before, as for new tokens; ``saves_embeddings`` has PEFT save them beside the factors.
    """

    name: str
    fields: Callable[[Facts], Fields | None]
    about_tying: bool = False
    grown: bool = False
    saves_embeddings: bool = False


def _linear(**more: Any) -> Callable[[Facts], Fields | None]:
    return lambda facts: {"target_modules": list(facts.attention), **more} if facts.attention else None


def _on(*parts: str, attention: bool = False, **more: Any) -> Callable[[Facts], Fields | None]:
    """Factors on the embedding or the head."""

    def fields(facts: Facts) -> Fields | None:
        names = [getattr(facts, part) for part in parts]
        if not all(names):
            return None
        return {"target_modules": [*(facts.attention if attention else ()), *names], **more}

    return fields


def _whole(*parts: str, **more: Any) -> Callable[[Facts], Fields | None]:
    """Factors on attention, and whole copies of the embedding or the head."""

    def fields(facts: Facts) -> Fields | None:
        names = [getattr(facts, part) for part in parts]
        if not all(names) or not facts.attention:
            return None
        return {"target_modules": list(facts.attention), "modules_to_save": names, **more}

    return fields


def _patterns(facts: Facts) -> Fields | None:
    if len(facts.attention) < 1:
        return None
    first, last = facts.attention[0], facts.attention[-1]
    return {
        "target_modules": list(facts.attention),
        "rank_pattern": {first: 5},
        "alpha_pattern": {last: 7},
    }


def _regex(facts: Facts) -> Fields | None:
    return {"target_modules": rf".*\.({'|'.join(facts.attention)})"} if facts.attention else None


def _last_and_head(facts: Facts) -> Fields | None:
    """The last projection of attention is square in most models: no shape says how it is stored."""
    if not facts.attention or not facts.head:
        return None
    return {"target_modules": [facts.attention[-1], facts.head]}


def _last_layer(facts: Facts) -> Fields | None:
    if facts.layers < 2 or not facts.attention:
        return None
    return {"target_modules": list(facts.attention), "layers_to_transform": [facts.layers - 1]}


def _experts(facts: Facts) -> Fields | None:
    if not facts.experts:
        return None
    return {"target_modules": list(facts.attention), "target_parameters": list(facts.experts)}


def _bare_experts(facts: Facts) -> Fields | None:
    """Parameters without their owner, as PEFT itself writes them."""
    if not facts.experts:
        return None
    return {"target_modules": [], "target_parameters": [name.rpartition(".")[2] for name in facts.experts]}


def _gated(facts: Facts) -> Fields | None:
    """The names that people know from older releases, which PEFT rewrites to ``target_parameters``."""
    return {"target_modules": ["gate_proj", "up_proj", "down_proj"]} if facts.experts else None


def _mixtral(facts: Facts) -> Fields | None:
    return {"target_modules": ["w1", "w2", "w3"]} if facts.experts else None


def _convolutions(facts: Facts) -> Fields | None:
    return {"target_modules": list(facts.convolutions)} if facts.convolutions else None


def _grouped(facts: Facts) -> Fields | None:
    """PEFT asks for a rank that the groups divide."""
    if not facts.grouped:
        return None
    return {"target_modules": list(facts.grouped), "r": facts.groups, "lora_alpha": facts.groups}


def _twins(facts: Facts) -> Fields | None:
    return {"target_modules": list(facts.twins)} if facts.twins else None


def _lora_bias(facts: Facts) -> Fields | None:
    return _linear(lora_bias=True)(facts) if facts.biased else None


def _tokens(facts: Facts) -> Fields | None:
    if not facts.embedding:
        return None
    return {"target_modules": list(facts.attention), "trainable_token_indices": [3, 7, 40]}


def _classifier(facts: Facts) -> Fields | None:
    if not facts.classifier:
        return None
    return {"target_modules": list(facts.attention), "modules_to_save": [facts.classifier]}


OPTIONS = (
    Option("attn", _linear(), about_tying=True),
    Option("all-linear", lambda facts: {"target_modules": "all-linear"}),
    Option("regex", _regex),
    Option("dora", _linear(use_dora=True)),
    Option("dora-embed", _on("embedding", use_dora=True)),
    Option("rslora", _linear(use_rslora=True)),
    Option("patterns", _patterns),
    Option("last-layer", _last_layer),
    Option("lora-bias", _lora_bias),
    Option("bias-all", _linear(bias="all")),
    Option("bias-lora-only", _linear(bias="lora_only")),
    Option("conv", _convolutions),
    Option("conv-grouped", _grouped),
    Option("experts", _experts),
    Option("experts-bare", _bare_experts),
    Option("experts-gate-up-down", _gated),
    Option("experts-w1-w2-w3", _mixtral),
    Option("classifier", _classifier),
    Option("embed", _on("embedding"), about_tying=True),
    Option("head", _on("head"), about_tying=True),
    Option("attn+head", _on("head", attention=True), about_tying=True),
    Option("one+head", _last_and_head, about_tying=True),
    Option("embed+head", _on("embedding", "head"), about_tying=True),
    Option("dora-head", _on("head", attention=True, use_dora=True), about_tying=True),
    Option("twins", _twins, about_tying=True),
    Option("mts-embed", _whole("embedding"), about_tying=True),
    Option("mts-head", _whole("head"), about_tying=True),
    Option("mts-both", _whole("embedding", "head"), about_tying=True),
    Option("tie-embed", _on("embedding", attention=True, ensure_weight_tying=True), about_tying=True),
    Option("tie-mts-embed", _whole("embedding", ensure_weight_tying=True), about_tying=True),
    Option("tie-mts-both", _whole("embedding", "head", ensure_weight_tying=True), about_tying=True),
    Option("tokens", _tokens, about_tying=True),
    Option("grown", _whole("embedding", "head"), about_tying=True, grown=True),
    Option("grown-copies", _whole("embedding", "head"), about_tying=True, grown=True, saves_embeddings=True),
    Option("grown-half", _whole("head"), about_tying=True, grown=True, saves_embeddings=True),
    Option("grown-saved", _linear(), about_tying=True, grown=True, saves_embeddings=True),
)

_COMMON: Mapping[str, Any] = {"r": 3, "lora_alpha": 6}


def fields_of(option: Option, facts: Facts) -> Fields | None:
    """Return all fields of LoraConfig that are not at their default, None where the option does not apply."""
    fields = option.fields(facts)
    return None if fields is None or (option.grown and not facts.embedding) else {**_COMMON, **fields}
