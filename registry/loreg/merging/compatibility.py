"""Refuse adapters that cannot be merged, naming the adapter, the field or module, and the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loreg.adapters.config import why_not_mergeable
from loreg.adapters.dtypes import FLOATS
from loreg.adapters.module_shape import ModuleKind, ModuleShape
from loreg.adapters.structure import AdapterStructure
from loreg.base_names import is_hub_name
from loreg.errors import MergeError, UsageError
from loreg.merging.inputs import MergeInput


def require_mergeable(inputs: Sequence[MergeInput]) -> None:
    """Raise MergeError for the first adapter, field or module that stands in the way."""
    for source in inputs:
        _refuse_configuration(source)
        for module in source.structure.modules.values():
            if module.shape is None:
                raise MergeError(
                    f"{source.label} cannot be merged: {module.why_unreadable}",
                    hint="leave that module out of the adapter",
                )
            for name in module.shape.tensor_names:
                tensor = module.tensors[name]
                if tensor.dtype not in FLOATS:
                    raise MergeError(
                        f"{source.label} cannot be merged: {tensor.name} is {tensor.dtype}, "
                        f"expected one of {', '.join(FLOATS)}",
                        hint="convert its factors to one of these first",
                    )
            if "magnitude" in module.tensors and module.shape.kind not in (ModuleKind.LINEAR, ModuleKind.EMBEDDING):
                raise MergeError(
                    f"{source.label} cannot be merged: module {module.name} has a DoRA magnitude on a "
                    f"{module.shape.kind}, expected a linear layer or an embedding",
                    hint="leave that module out of the adapter",
                )
    structures, labels = [source.structure for source in inputs], [source.label for source in inputs]
    _refuse_different_shapes(structures, labels)


def _refuse_configuration(source: MergeInput) -> None:
    config = source.structure.config
    if reason := why_not_mergeable(config):
        raise MergeError(
            f"{source.label} cannot be merged: {reason}", hint="merge plain LoRA adapters, or train it without"
        )
    if config.use_dora and source.base is None:
        raise MergeError(
            f"{source.label} cannot be merged: use_dora is true: its delta needs the base",
            hint="--base DIR names the folder of the model it was trained on",
        )
    if config.changes_the_base and source.initial is None:
        raise MergeError(
            f"{source.label} cannot be merged: init_lora_weights is {config.raw['init_lora_weights']!r}: "
            "it changed the base, the delta needs the initial adapter",
            hint="--initial DIR names the adapter that was saved before training",
        )
    if source.initial is not None:
        _refuse_another_initial(source, source.initial)


def _refuse_another_initial(source: MergeInput, initial: AdapterStructure) -> None:
    if not source.structure.config.changes_the_base:
        raise UsageError(f"{source.label} has no initial adapter: its training started from the base itself")
    for module in source.structure.modules.values():
        before = initial.modules.get(module.name)
        both = module.shape and before and before.shape
        if not both or (module.shape.out, module.shape.in_) != (before.shape.out, before.shape.in_):  # type: ignore[union-attr]
            raise MergeError(
                f"the initial adapter {initial.weights.parent.name} does not fit {source.label} at {module.name}",
                hint="--initial DIR names the adapter that was saved before this one was trained",
            )


def biases_need_linear(label: str, method: str) -> MergeError:
    """Return the error for a source with the biases of ``lora_bias`` and a method other than linear."""
    return MergeError(
        f"{label} cannot be merged by {method}: lora_bias is true, and only linear says what a merged bias is",
        hint="--method linear",
    )


def merge_config_fields(structures: Sequence[AdapterStructure], extras: int | None) -> Mapping[str, object]:
    """Return the configuration fields of the result that do not follow from its factors.

    What all sources agree on stays; what belongs to whole tensors comes from the source ``extras``.
    """
    full = structures[extras].config.raw if extras is not None else {}
    raws = [structure.config.raw for structure in structures]
    agreed = {name: _common([raw.get(name) for raw in raws]) for name in ("task_type", "base_model_name_or_path")}
    base = agreed["base_model_name_or_path"]
    return {
        "base_model_name_or_path": base if base and is_hub_name(base) else None,
        "task_type": full.get("task_type") or agreed["task_type"],
        # PEFT keeps that of the module that it made last, and heeds each module's own class when it loads.
        "fan_in_fan_out": any(raw.get("fan_in_fan_out") for raw in raws),
        "bias": full.get("bias", "none"),
        "modules_to_save": full.get("modules_to_save"),
        "trainable_token_indices": full.get("trainable_token_indices"),
        # Of factors each half of a tied pair is written; whole tensors PEFT looks for under both names only with this.
        "ensure_weight_tying": bool(full.get("modules_to_save") and full.get("ensure_weight_tying")),
    }


def _refuse_different_shapes(structures: Sequence[AdapterStructure], labels: Sequence[str]) -> None:
    seen: dict[str, tuple[ModuleShape, str]] = {}
    for structure, label in zip(structures, labels, strict=True):
        for module in structure.modules.values():
            if module.shape is None:
                continue
            shape = replace(module.shape, rank=0)
            first_shape, first_label = seen.setdefault(module.name, (shape, label))
            if first_shape != shape:
                raise MergeError(
                    f"different bases: module {module.name} is {_text(first_shape)} in {first_label} and "
                    f"{_text(shape)} in {label}",
                    hint="merge adapters of the same base",
                )


def _text(shape: ModuleShape) -> str:
    matrices = f"{shape.matrices} × " if shape.matrices > 1 else ""
    return f"{matrices}({shape.out}, {shape.in_})" + ("" if shape.kind == ModuleKind.LINEAR else f" {shape.kind}")


def _common(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None
