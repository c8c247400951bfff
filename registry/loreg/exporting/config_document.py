"""``adapter_config.json`` of an exported adapter: ranks and scales as they are now, and no field too many."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from loreg.adapters.base_path import holds_a_path
from loreg.adapters.config import is_hub_name
from loreg.adapters.parameters import pattern_name
from loreg.exporting.editable import EditableAdapter, most_common

#: What every release of PEFT has read, and needs to make the same adapter of the files.
_ALWAYS = (
    "peft_type", "task_type", "base_model_name_or_path", "inference_mode", "r", "lora_alpha", "target_modules", "bias",
    "fan_in_fan_out",
)  # fmt: skip
#: Without these, where they are set, the tensors would mean something else or not be loaded.
_MEANT = frozenset({
    "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save", "target_parameters", "lora_bias",
    "trainable_token_indices", "ensure_weight_tying", "layer_replication", "alora_invocation_tokens", "use_qalora",
    "use_bdlora", "arrow_config", "monteclora_config",
})  # fmt: skip
_DEFAULTS: Mapping[str, Any] = {
    "init_lora_weights": True, "megatron_core": "megatron.core", "qalora_group_size": 16, "bias": "none",
}  # fmt: skip


def with_ranks_and_scales(editable: EditableAdapter) -> dict[str, Any]:
    """The document with r, lora_alpha and both patterns such that PEFT arrives at the ranks and scales held."""
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


def stripped(document: Mapping[str, Any], reads: Collection[str] | None) -> dict[str, Any]:
    """The document without fields at their default, and without those that the server does not read.

    What the tensors mean depends on stays. ``reads`` None: nothing but null and empty fields is left out.
    """
    if reads is None:
        return {name: value for name, value in document.items() if name in _ALWAYS or not _is_default(name, value)}
    kept = {name for name in document if name in reads or name in _MEANT}
    kept -= {"init_lora_weights"}
    if not _is_plain(document.get("init_lora_weights")):
        kept.add("init_lora_weights")
    return {
        name: value
        for name, value in document.items()
        if name in _ALWAYS or (name in kept and not _is_default(name, value))
    }


def without_paths(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without values that only one machine knows: the base's path, and any other."""
    hint = document.get("base_model_name_or_path")
    hidden = {"base_model_name_or_path": None} if hint and not is_hub_name(str(hint)) else {}
    return {**{name: value for name, value in document.items() if not holds_a_path(value)}, **hidden}


def _is_plain(init: Any) -> bool:
    """Whether the saved factors are plain LoRA, however they were initialised."""
    return init in (None, True, False, "true", "false", "gaussian", "orthogonal", "eva", "mica")


def _is_default(name: str, value: Any) -> bool:
    return not value or value == _DEFAULTS.get(name)
