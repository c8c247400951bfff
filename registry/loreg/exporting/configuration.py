"""Transforms of the configuration alone: no delta moves by them, and every tensor stays as it is.

Each takes what :class:`loreg.exporting.transforms.Transform` says, and returns the adapter and what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loreg.adapters.keys import PREFIX
from loreg.bases import names
from loreg.bases.tensor_digest import TensorDigest
from loreg.checking.full_tensors import find_fields_without_tensors, find_unnamed_modules, full_modules
from loreg.exporting.editable import EditableAdapter

TensorDigests = Mapping[str, TensorDigest]
#: The values of a profile for its conditions; which type one has, the condition says.
ConditionValues = Mapping[str, Any]
_EMPTY_VALUES: Mapping[str, object] = {"bias": "none", "lora_bias": False, "modules_to_save": None}
_LIST_FIELDS = ("modules_to_save",)


def write_target_modules(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """List the module types in ``target_modules`` where it is left out or a pattern that the server does not take.

    Other fields that the server needs are written too.
    """
    missing = [name for name in values.get("lacks_a_field", ()) if name not in editable.document]
    accepted = values.get("targets_are_a_pattern")
    targets = editable.document.get("target_modules")
    if not missing and (accepted is None or not isinstance(targets, str) or targets in accepted):
        return editable, ""
    if missing and "target_modules" not in missing:
        return editable, f"{', '.join(missing)} written into adapter_config.json"
    return set_targets_to_types(editable), f"target_modules lists {', '.join(editable.types)}"


def write_patterns_in_full(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Name modules in full in ``rank_pattern`` and ``alpha_pattern``: every release of PEFT reads these alike.

    :func:`loreg.exporting.config_document.set_ranks_and_scales` writes them; here is only decided and told.
    """
    patterns = [name for name in ("rank_pattern", "alpha_pattern") if editable.document.get(name)]
    keys = {key for name in patterns for key in editable.document[name]} - editable.modules.keys()
    return editable, f"{' and '.join(patterns)} name modules in full" if keys else ""


def match_fields_to_tensors(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Make ``bias``, ``lora_bias`` and ``modules_to_save`` name what is in the file, and nothing else."""
    document, changes = dict(editable.document), []
    if (accepted := values.get("names_what_is_not_there")) is not None:
        ends = {end for module in editable.modules.values() for end in module.other_tensors}
        has_lora_bias = any(end.endswith(".bias") for end in ends)
        unfounded = find_fields_without_tensors(document, editable.full_tensors, has_lora_bias, accepted)
        for field, absent in unfounded.items():
            present = [name for name in document[field] if name not in absent] if field in _LIST_FIELDS else None
            document[field] = present or _EMPTY_VALUES[field]
            changes.append(f"{field} is {document[field]!r}: nothing of {absent!r} is in the file")
    if unnamed := find_unnamed_modules(document, editable.full_tensors, values.get("has_whole_modules_unnamed", ())):
        added = [name.rpartition(".")[2] for name in unnamed]
        document["modules_to_save"] = [*(document.get("modules_to_save") or ()), *added]
        changes.append(f"modules_to_save names {', '.join(added)}")
    return (replace(editable, document=document), "; ".join(changes)) if changes else (editable, "")


def expand_exclude_modules(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """List the modules in full in ``target_modules`` where the server knows no ``exclude_modules``.

    Else it would select a module that was left out, and look for its bias under another name.
    """
    if not editable.document.get("exclude_modules") or "exclude_modules" in values["has_field_outside"]:
        return editable, ""
    document = {name: value for name, value in editable.document.items() if name != "exclude_modules"}
    document["target_modules"] = _list_modules(editable)
    return replace(editable, document=document), "target_modules lists every module, for exclude_modules is not known"


def _list_modules(editable: EditableAdapter) -> list[str]:
    return sorted(name for name, module in editable.modules.items() if not module.shape.parameter)


def expand_weight_tying(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Name both halves of a tied pair, each as what it is, where the server knows no ``ensure_weight_tying``.

    With that field PEFT finds the second half by itself; the file has both. Nothing is changed where the file lacks the
    bias of a head: it was not trained, and without the field PEFT wants it.
    """
    whole = full_modules(editable.full_tensors)
    biases = [f"{name}.bias" for name in whole if names.canonical_name(f"{name}.bias") in (tensor_digests or ())]
    if any(PREFIX + bias not in editable.full_tensors for bias in biases):
        return editable, ""
    if not editable.document.get("ensure_weight_tying") or "ensure_weight_tying" in values["has_field_outside"]:
        return editable, ""
    document = {name: value for name, value in editable.document.items() if name != "ensure_weight_tying"}
    document["target_modules"] = _list_modules(editable)
    saved = [str(name) for name in document.get("modules_to_save") or ()]
    added = [name for name in whole if not any(f".{other}." in f".{name}." for other in saved)]
    document["modules_to_save"] = [*saved, *added] or None
    return replace(editable, document=document), "what ensure_weight_tying ties is named, module by module"


def set_targets_to_types(editable: EditableAdapter) -> EditableAdapter:
    """Return the adapter with the types of its modules in ``target_modules``."""
    return replace(editable, document={**editable.document, "target_modules": editable.types})
