"""What a server that compares names exactly calls the modules of an adapter, and which of them it would not find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loreg.bases import names
from loreg.checking.base_fit import find_other_prefix

_WRAPPERS = ("language_model.", "model.language_model.")
#: First parts of a model that is a language model and nothing else: of any other base the names are a wrapper's.
_OF_A_LANGUAGE_MODEL = {"model", "lm_head", "score", "classifier"}


def map_to_base_names(modules: Iterable[str], tensor_digests: Mapping[str, object]) -> dict[str, str | None]:
    """Each module's name in a base with these ``tensor_digests`` (by canonical name), None for one that it has not.

    A server neither adds a prefix nor takes one away. Not so in a base with towers beside its language model: releases
    of transformers call that one differently, and servers know it. The head of a base that ties it is known by its own
    name, and a base that was saved without the prefix of the class with a head is served by that class.
    """
    owners = {f"{leaf.rpartition('.')[0]}.weight": None for leaf in tensor_digests} | dict.fromkeys(tensor_digests)
    alone = {leaf.partition(".")[0] for leaf in tensor_digests} <= _OF_A_LANGUAGE_MODEL
    return {module: _name_in_base(module, owners, alone) for module in modules}


def _name_in_base(module: str, owners: Mapping[str, object], alone: bool) -> str | None:
    wanted = names.canonical_name(f"{module}.weight")
    name = wanted.removesuffix(".weight")
    as_served = name if module.startswith(_WRAPPERS) and alone else module
    if wanted in owners or name in owners or _is_one_by_one(name, owners):
        return as_served
    if names.is_head(wanted) and not any(names.is_head(owner) for owner in owners):
        return as_served if names.embedding_among(owners) else None
    if found := find_other_prefix(wanted, owners) or find_other_prefix(name, owners):
        bare = found == wanted.partition(".")[2] and names.has_tensor_named(wanted, owners)
        return as_served if bare else found.removesuffix(".weight")
    return None


def _is_one_by_one(name: str, owners: Mapping[str, object]) -> bool:
    """Whether the base keeps apart, as ``experts.0.up_proj``, what the adapter has as ``experts.gate_up_proj``."""
    before, experts, _ = name.partition(".experts.")
    return bool(experts) and any(owner.startswith(f"{before}.experts.") for owner in owners)
