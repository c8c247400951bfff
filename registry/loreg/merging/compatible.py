"""Can these adapters be merged at all? Every answer "no" names the adapter, the field or module, and the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loreg.adapters.config import is_hub_name, why_not_mergeable
from loreg.adapters.forms import Form
from loreg.adapters.layout import Layout, Module
from loreg.errors import MergeError, UsageError
from loreg.merging.sources import DTYPES, Input


def refuse_what_cannot_be_merged(inputs: Sequence[Input]) -> None:
    """Raise MergeError for the first adapter, field or module that stands in the way."""
    for given in inputs:
        _refuse_configuration(given)
        for module in given.layout.modules.values():
            if module.form is None:
                raise _unreadable(given.label, module)
            for part in module.form.parts:
                tensor = module.parts[part]
                if tensor.dtype not in DTYPES:
                    raise MergeError(
                        f"{given.label} cannot be merged: {tensor.name} is {tensor.dtype}, "
                        f"expected one of {', '.join(DTYPES)}",
                        hint="convert its factors to one of these first",
                    )
            if "magnitude" in module.parts and module.form.kind != "linear":
                raise MergeError(
                    f"{given.label} cannot be merged: module {module.name} has a DoRA magnitude on a "
                    f"{module.form.kind}, expected a linear layer",
                    hint="leave that module out of the adapter",
                )
    layouts, labels = [given.layout for given in inputs], [given.label for given in inputs]
    _refuse_mixed_orientation(layouts, labels)
    _refuse_different_shapes(layouts, labels)


def _refuse_configuration(given: Input) -> None:
    config = given.layout.config
    if reason := why_not_mergeable(config):
        raise MergeError(
            f"{given.label} cannot be merged: {reason}", hint="merge plain LoRA adapters, or train it without"
        )
    if config.use_dora and given.base is None:
        raise MergeError(
            f"{given.label} cannot be merged: use_dora is true: its delta needs the base",
            hint="--base DIR names the folder of the model it was trained on",
        )
    if config.changes_the_base and given.initial is None:
        raise MergeError(
            f"{given.label} cannot be merged: init_lora_weights is {config.raw['init_lora_weights']!r}: "
            "it changed the base, the delta needs the initial adapter",
            hint="--initial DIR names the adapter that was saved before training",
        )
    if given.initial is not None:
        _refuse_another_initial(given, given.initial)


def _refuse_another_initial(given: Input, initial: Layout) -> None:
    if not given.layout.config.changes_the_base:
        raise UsageError(f"{given.label} has no initial adapter: its training started from the base itself")
    for module in given.layout.modules.values():
        other = initial.modules.get(module.name)
        fits = module.form and other and other.form
        if not fits or (module.form.out, module.form.in_) != (other.form.out, other.form.in_):  # type: ignore[union-attr]
            raise MergeError(
                f"the initial adapter {initial.weights.parent.name} does not fit {given.label} at {module.name}",
                hint="--initial DIR names the adapter that was saved before this one was trained",
            )


def _unreadable(label: str, module: Module) -> MergeError:
    parts = ", ".join(f"{part} {tensor.shape}" for part, tensor in sorted(module.parts.items()))
    return MergeError(
        f"{label} cannot be merged: module {module.name} has {parts}, expected A (r, in) and B (out, r)",
        hint="leave that module out of the adapter",
    )


def fields_of_result(layouts: Sequence[Layout], extras: int | None) -> Mapping[str, Any]:
    """The configuration fields of the result that do not follow from its factors.

    What all sources agree on stays; what belongs to whole tensors comes from the source that they come from.
    """
    whole = layouts[extras].config.raw if extras is not None else {}
    raws = [layout.config.raw for layout in layouts]
    agreed = {
        name: _common([raw.get(name) for raw in raws])
        for name in ("task_type", "base_model_name_or_path", "fan_in_fan_out")
    }
    base = agreed["base_model_name_or_path"]
    return {
        "base_model_name_or_path": base if base and is_hub_name(base) else None,
        "task_type": whole.get("task_type") or agreed["task_type"],
        "fan_in_fan_out": bool(agreed["fan_in_fan_out"]),
        "bias": whole.get("bias", "none"),
        "modules_to_save": whole.get("modules_to_save"),
        "target_parameters": sorted({name for raw in raws for name in raw.get("target_parameters") or ()}) or None,
    }


def _refuse_mixed_orientation(layouts: Sequence[Layout], labels: Sequence[str]) -> None:
    orientations = {
        bool(layout.config.raw.get("fan_in_fan_out")): label for layout, label in zip(layouts, labels, strict=True)
    }
    if len(orientations) > 1:
        raise MergeError(
            f"different bases: fan_in_fan_out is true for {orientations[True]} and false for {orientations[False]}",
            hint="merge adapters of the same base",
        )


def _refuse_different_shapes(layouts: Sequence[Layout], labels: Sequence[str]) -> None:
    seen: dict[str, tuple[Form, str]] = {}
    for layout, label in zip(layouts, labels, strict=True):
        for module in layout.modules.values():
            if module.form is None:
                continue
            form = replace(module.form, rank=0)
            known, first = seen.setdefault(module.name, (form, label))
            if known != form:
                raise MergeError(
                    f"different bases: module {module.name} is {_text(known)} in {first} and {_text(form)} in {label}",
                    hint="merge adapters of the same base",
                )


def _text(form: Form) -> str:
    matrices = f"{form.matrices} × " if form.matrices > 1 else ""
    return f"{matrices}({form.out}, {form.in_})" + ("" if form.kind == "linear" else f" {form.kind}")


def _common(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None
