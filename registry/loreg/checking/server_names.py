"""What a base calls the modules of an adapter: servers that compare names exactly do not find them under another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loreg.bases import names
from loreg.checking.base_fit import find_under_other_prefix

_WRAPPERS = ("language_model.", "model.language_model.")
#: First parts of a model that is a language model and nothing else: of any other base the names are a wrapper's.
_LANGUAGE_MODEL_PARTS = {"model", "lm_head", "score", "classifier"}


def map_to_base_names(modules: Iterable[str], tensor_digests: Mapping[str, object]) -> dict[str, str | None]:
    """Map each module to its name in a base with these ``tensor_digests`` (by canonical name); to None if it has none.

    A server neither adds a prefix nor takes one away. Not so in a base with towers beside its language model: releases
    of transformers call that one differently, and servers know it. The head of a base that ties it is known by its own
    name, and a base that was saved without the prefix of the class with a head is served by that class.
    """
    weights = {f"{name.rpartition('.')[0]}.weight": None for name in tensor_digests} | dict.fromkeys(tensor_digests)
    has_no_towers = {name.partition(".")[0] for name in tensor_digests} <= _LANGUAGE_MODEL_PARTS
    return {module: _name_in_base(module, weights, has_no_towers) for module in modules}


def _name_in_base(module: str, weights: Mapping[str, object], has_no_towers: bool) -> str | None:
    weight = names.canonical_name(f"{module}.weight")
    name = weight.removesuffix(".weight")
    as_served = name if module.startswith(_WRAPPERS) and has_no_towers else module
    if weight in weights or name in weights or _has_single_experts(name, weights):
        return as_served
    if names.is_head(weight) and not any(names.is_head(other) for other in weights):
        return as_served if names.find_embedding(weights) else None
    if base_name := find_under_other_prefix(weight, weights) or find_under_other_prefix(name, weights):
        lacks_first_part = base_name == weight.partition(".")[2] and names.has_tensor_named(weight, weights)
        return as_served if lacks_first_part else base_name.removesuffix(".weight")
    return None


def _has_single_experts(name: str, weights: Mapping[str, object]) -> bool:
    """Tell whether the base keeps apart, as ``experts.0.up_proj``, what the adapter has as ``experts.gate_up_proj``."""
    before, experts, _ = name.partition(".experts.")
    return bool(experts) and any(weight.startswith(f"{before}.experts.") for weight in weights)
