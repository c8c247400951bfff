"""What of an adapter's configuration is changed for a server: no delta moves by it, and no tensor is another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loreg.adapters.keys import PREFIX
from loreg.bases import names
from loreg.checking.full_tensors import named_in_vain, not_named, whole_modules
from loreg.exporting.editable import EditableAdapter

TensorDigests = Mapping[str, Mapping[str, Any]]
_NOTHING: Mapping[str, Any] = {"bias": "none", "lora_bias": False, "modules_to_save": None}
_LISTS = ("modules_to_save",)


def name_targets(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """``target_modules`` lists the module types, where it is left out or a pattern that the server does not take.

    The other fields that a server needs are written with it.
    """
    missing = [name for name in asked.get("lacks_a_field", ()) if name not in editable.document]
    accepted = asked.get("targets_are_a_pattern")
    targets = editable.document.get("target_modules")
    if not missing and (accepted is None or not isinstance(targets, str) or targets in accepted):
        return editable, ""
    if missing and "target_modules" not in missing:
        return editable, f"{', '.join(missing)} written into adapter_config.json"
    return selecting_types(editable), f"target_modules lists {', '.join(editable.types)}"


def name_modules_in_patterns(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Patterns name modules in full, where there are any: what every release of PEFT reads alike."""
    patterns = [name for name in ("rank_pattern", "alpha_pattern") if editable.document.get(name)]
    named = {key for name in patterns for key in editable.document[name]} - editable.modules.keys()
    return editable, f"{' and '.join(patterns)} name modules in full" if named else ""


def agree_with_the_file(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """``bias``, ``lora_bias`` and ``modules_to_save`` name what is in the file, and nothing else."""
    document, changes = dict(editable.document), []
    if (but := asked.get("names_what_is_not_there")) is not None:
        lora_bias = any(end.endswith(".bias") for module in editable.modules.values() for end in module.others)
        vain = named_in_vain(document, editable.full_tensors, lora_bias, but)
        for field in vain:
            left = [one for one in document["modules_to_save"] if one not in vain[field]] if field in _LISTS else None
            document[field] = left or _NOTHING[field]
            changes.append(f"{field} is {document[field]!r}: nothing of {vain[field]!r} is in the file")
    if unnamed := not_named(document, editable.full_tensors, asked.get("has_whole_modules_unnamed", ())):
        added = [name.rpartition(".")[2] for name in unnamed]
        document["modules_to_save"] = [*(document.get("modules_to_save") or ()), *added]
        changes.append(f"modules_to_save names {', '.join(added)}")
    return (replace(editable, document=document), "; ".join(changes)) if changes else (editable, "")


def name_what_is_not_excluded(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """``target_modules`` lists the modules in full where the server knows no ``exclude_modules``.

    Else it would select a module that was left out, and look for the bias of that under another name.
    """
    if not editable.document.get("exclude_modules") or "exclude_modules" in asked["has_field_outside"]:
        return editable, ""
    document = {name: value for name, value in editable.document.items() if name != "exclude_modules"}
    document["target_modules"] = _in_full(editable)
    return replace(editable, document=document), "target_modules lists every module, for exclude_modules is not known"


def _in_full(editable: EditableAdapter) -> list[str]:
    return sorted(name for name, module in editable.modules.items() if not module.shape.parameter)


def name_what_is_tied(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Both halves of a tied pair are named as what they are, where the server knows no ``ensure_weight_tying``.

    With that field PEFT finds the second half by itself; the file has both. Nothing is changed where it does not have
    the bias of a head: that is not trained, and without the field PEFT wants it.
    """
    wholes = whole_modules(editable.full_tensors)
    biases = [f"{name}.bias" for name in wholes if names.canonical_name(f"{name}.bias") in (tensor_digests or ())]
    if any(PREFIX + bias not in editable.full_tensors for bias in biases):
        return editable, ""
    if not editable.document.get("ensure_weight_tying") or "ensure_weight_tying" in asked["has_field_outside"]:
        return editable, ""
    document = {name: value for name, value in editable.document.items() if name != "ensure_weight_tying"}
    document["target_modules"] = _in_full(editable)
    saved = [str(name) for name in document.get("modules_to_save") or ()]
    added = [name for name in wholes if not any(f".{one}." in f".{name}." for one in saved)]
    document["modules_to_save"] = [*saved, *added] or None
    return replace(editable, document=document), "what ensure_weight_tying ties is named, module by module"


def selecting_types(editable: EditableAdapter) -> EditableAdapter:
    """The same with the types of its modules in ``target_modules``."""
    return replace(editable, document={**editable.document, "target_modules": editable.types})
