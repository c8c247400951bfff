"""The document of ``adapter_config.json`` for an export: ranks and scales as they are now, and no field too many."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from loreg.adapters.base_path import contains_local_path
from loreg.adapters.parameters import pattern_name
from loreg.base_names import is_hub_name
from loreg.exporting.editable import EditableAdapter, most_common

#: Fields that every release of PEFT reads, and needs to make the same adapter of the files.
_REQUIRED_FIELDS = (
    "peft_type", "task_type", "base_model_name_or_path", "inference_mode", "r", "lora_alpha", "target_modules", "bias",
    "fan_in_fan_out",
)  # fmt: skip
#: Without these, where they are set, the tensors would mean something else or not be loaded.
_MEANINGFUL_FIELDS = frozenset({
    "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save", "target_parameters", "lora_bias",
    "trainable_token_indices", "ensure_weight_tying", "layer_replication", "alora_invocation_tokens", "use_qalora",
    "use_bdlora", "arrow_config", "monteclora_config",
})  # fmt: skip
_DEFAULTS: Mapping[str, object] = {
    "init_lora_weights": True, "megatron_core": "megatron.core", "qalora_group_size": 16, "bias": "none",
}  # fmt: skip


def set_ranks_and_scales(editable: EditableAdapter) -> dict[str, object]:
    """Return the document with r, lora_alpha and patterns from which PEFT makes the adapter's ranks and scales."""
    document = dict(editable.document)
    rslora = bool(document.get("use_rslora"))
    keys = {name: pattern_name(name, module.shape) for name, module in editable.modules.items()}
    ranks = {keys[name]: module.shape.rank for name, module in editable.modules.items()}
    alphas = {
        keys[name]: module.scale * (math.sqrt(module.shape.rank) if rslora else module.shape.rank)
        for name, module in editable.modules.items()
    }
    r, alpha = int(most_common(ranks.values())), most_common(alphas.values())
    # The longest names first: a pattern also matches as the end of a name, and the first that matches wins.
    ordered = sorted(ranks, key=lambda name: (-len(name), name))
    return {
        **document,
        "r": r,
        "lora_alpha": round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha,
        "rank_pattern": {name: ranks[name] for name in ordered if ranks[name] != r},
        "alpha_pattern": {n: alphas[n] for n in ordered if not math.isclose(alphas[n], alpha, rel_tol=1e-12)},
    }


def prune_fields(document: Mapping[str, object], reads: Collection[str] | None) -> dict[str, object]:
    """Return the document without fields at their default, and without those that the server does not read.

    Fields that the meaning of the tensors depends on stay. ``reads`` None: only fields at their default are left out.
    """
    if reads is None:
        return {
            name: value for name, value in document.items() if name in _REQUIRED_FIELDS or not _is_default(name, value)
        }
    fields = {name for name in document if name in reads or name in _MEANINGFUL_FIELDS}
    if _is_plain(document.get("init_lora_weights")):
        fields.discard("init_lora_weights")
    else:
        fields.add("init_lora_weights")
    return {
        name: value
        for name, value in document.items()
        if name in _REQUIRED_FIELDS or (name in fields and not _is_default(name, value))
    }


def remove_paths(document: Mapping[str, object]) -> dict[str, object]:
    """Return the document without values that only one machine knows: the path of the base, and any other."""
    base_hint = document.get("base_model_name_or_path")
    without_base = {"base_model_name_or_path": None} if base_hint and not is_hub_name(str(base_hint)) else {}
    return {**{name: value for name, value in document.items() if not contains_local_path(value)}, **without_base}


def _is_plain(init: object) -> bool:
    """Tell whether the saved factors are plain LoRA, however they were initialised."""
    return init in (None, True, False, "true", "false", "gaussian", "orthogonal", "eva", "mica")


def _is_default(name: str, value: object) -> bool:
    return not value or value == _DEFAULTS.get(name)
