"""Transforms of an adapter for a server that would refuse it as it is, or get it wrong, in the order of their use.

Each takes what :class:`Transform` says, and returns the adapter and what was changed, in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from loreg.adapters.keys import PREFIX
from loreg.adapters.module_shape import ModuleKind, ModuleShape
from loreg.bases import names
from loreg.checking.conditions import kernel_rank
from loreg.checking.missing_modules import missing_in_layers, missing_partners, split_layer
from loreg.checking.server_names import map_to_base_names
from loreg.errors import CheckFailedError
from loreg.exporting.configuration import (
    ConditionValues,
    TensorDigests,
    expand_exclude_modules,
    expand_weight_tying,
    match_fields_to_tensors,
    set_targets_to_types,
    write_patterns_in_full,
    write_target_modules,
)
from loreg.exporting.editable import EditableAdapter, EditableModule, most_common


@dataclass(frozen=True)
class Transform:
    """One change of an adapter, by which the ``conditions`` of a profile hold no longer.

    ``apply`` takes the adapter, the profile's value for each of the conditions that the profile has, and the tensors of
    the base by canonical name, None if the base is not known. It returns the adapter and what was changed, in words:
    empty if nothing had to be.
    """

    conditions: tuple[str, ...]
    apply: Callable[[EditableAdapter, ConditionValues, TensorDigests | None], tuple[EditableAdapter, str]]


def rename_modules(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Give modules the names that the base has for them. Raises CheckFailedError if two would get the same."""
    if tensor_digests is None:
        return editable, ""
    base_names = map_to_base_names(editable.modules, tensor_digests)
    new_names = {name: base_name for name, base_name in base_names.items() if base_name not in (None, name)}
    if not new_names:
        return editable, ""
    modules: dict[str, EditableModule] = {}
    for old, module in editable.modules.items():
        name = new_names.get(old) or old
        if name in modules:
            raise CheckFailedError(
                f"{modules[name].origin} and {old} are one module of the base, {name}",
                hint="save the adapter again: only one of the two was trained",
            )
        modules[name] = module
    full_tensors = {_rename_full_tensor(key, tensor_digests): tensor for key, tensor in editable.full_tensors.items()}
    old, new = next(iter(new_names.items()))
    renamed = set_targets_to_types(EditableAdapter(modules, full_tensors, editable.document))
    return renamed, f"{len(new_names)} modules renamed as in the base, e.g. {old} → {new}"


def _rename_full_tensor(key: str, tensor_digests: TensorDigests) -> str:
    owner, _, last = key.removeprefix(PREFIX).rpartition(".")
    base_name = map_to_base_names([owner], tensor_digests)[owner]
    return f"{PREFIX}{base_name or owner}.{last}"


def add_missing_modules(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Add the modules that the server expects beside others, with zero factors.

    Raises CheckFailedError where their shapes are not known.
    """
    modules = dict(editable.modules)
    added: list[str] = []
    if (pair := values.get("has_one_without_the_other")) is not None:
        added += missing_partners(modules, *pair)
        modules |= {name: _zero_module(editable, name, tensor_digests) for name in added}
    if "type_is_missing_in_a_layer" in values:
        missing = missing_in_layers(modules, tensor_digests)
        modules |= {name: _zero_module(replace(editable, modules=modules), name, tensor_digests) for name in missing}
        added += missing
    if not added:
        return editable, ""
    filled = set_targets_to_types(replace(editable, modules=dict(sorted(modules.items()))))
    return filled, f"{len(added)} modules added with zero factors, e.g. {added[0]}"


def _zero_module(editable: EditableAdapter, name: str, tensor_digests: TensorDigests | None) -> EditableModule:
    shape = _infer_matrix_shape(editable, name, tensor_digests)
    if shape is None:
        raise CheckFailedError(
            f"zero factors for {name} cannot be added: its shape is not known",
            hint="--base names the model that it was trained on",
        )
    out, in_ = shape
    rank = int(most_common(module.shape.rank for module in editable.modules.values()))
    scale = most_common(module.scale for module in editable.modules.values())
    dtype = next(iter(editable.modules.values())).dtypes[1]
    return EditableModule(ModuleShape(ModuleKind.LINEAR, rank, out, in_), (dtype, dtype), scale, (), {}, origin="")


def _infer_matrix_shape(
    editable: EditableAdapter, name: str, tensor_digests: TensorDigests | None
) -> tuple[int, int] | None:
    """Return (out, in) of the module in the base, else of the same module in other layers; k and v have one shape."""
    entry = (tensor_digests or {}).get(names.canonical_name(f"{name}.weight"))
    if entry is not None and len(entry["shape"]) == 2:
        out, in_ = entry["shape"]
        return (in_, out) if editable.document.get("fan_in_fan_out") else (out, in_)
    twin = name.removesuffix("v_proj") + "k_proj" if name.endswith("v_proj") else name
    without_layer = [split_layer(like)[::2] for like in (name, twin)]  # what is before and after the layer's number
    shapes = {
        (module.shape.out, module.shape.in_)
        for other, module in editable.modules.items()
        if module.shape.kind == ModuleKind.LINEAR and split_layer(other)[::2] in without_layer
    }
    return shapes.pop() if len(shapes) == 1 else None


def truncate_ranks(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Replace modules over the rank limit by their best approximation at the limit (Eckart & Young 1936).

    Where only the configuration is over it, the ranks of the tensors are written there.
    """
    max_rank = min(values.values())
    over = [n for n, m in editable.modules.items() if m.shape.rank > max_rank and not m.other_tensors]
    if over:
        modules = {**editable.modules, **{name: _truncate_module(editable.modules[name], max_rank) for name in over}}
        return replace(editable, modules=modules), f"{len(over)} modules cut down to rank {max_rank}"
    configured_ranks = (editable.document.get("r", 0), *(editable.document.get("rank_pattern") or {}).values())
    if max(configured_ranks) > max_rank:
        return editable, "r and rank_pattern are those of the tensors"
    return editable, ""


def _truncate_module(module: EditableModule, max_rank: int) -> EditableModule:
    rank = min(max_rank, module.shape.out, module.shape.in_)
    return replace(module, shape=replace(module.shape, rank=rank), truncated_to=rank if module.blocks else 0)


def pad_to_one_rank(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Pad every module with zeros to one rank: the highest, or the one to which the kernels would pad it."""
    ranks = [module.shape.rank for module in editable.modules.values()]
    rank = max(ranks)
    if "rank_is_padded" in values and len(editable.types) > 1:
        rank = kernel_rank(rank, values["rank_is_padded"])
    if set(ranks) == {rank}:
        return editable, ""
    modules = {
        name: replace(module, shape=replace(module.shape, rank=rank)) for name, module in editable.modules.items()
    }
    padded = sum(before != rank for before in ranks)
    return replace(editable, modules=modules), f"{padded} modules padded with zeros to rank {rank}"


def scale_to_one_alpha(
    editable: EditableAdapter, values: ConditionValues, tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Set one ``lora_alpha`` for all, and multiply B where a module's scale is another than that alpha makes.

    The alpha is the one that most modules have already, so that their numbers stay as they are; where the server wants
    a whole number and it is none, the rank. rsLoRA stays where the server knows it.
    """
    rslora = bool(editable.document.get("use_rslora")) and "scale_is_rslora" not in values
    divisors = {n: math.sqrt(m.shape.rank) if rslora else m.shape.rank for n, m in editable.modules.items()}
    alphas = [module.scale * divisors[name] for name, module in editable.modules.items()]
    alpha = most_common(list(filter(None, alphas)) or alphas)  # no B can make up for an alpha of 0
    if math.isclose(alpha, round(alpha), rel_tol=1e-12):
        alpha = round(alpha)
    elif "alpha_is_no_integer" in values:
        alpha = max(module.shape.rank for module in editable.modules.values())
    modules, scaled = {}, 0
    for name, module in editable.modules.items():
        scale, b_multiplier = alpha / divisors[name], 1.0
        if not math.isclose(module.scale, scale, rel_tol=1e-12):
            b_multiplier, scaled = module.scale / scale, scaled + 1
        modules[name] = replace(module, scale=scale, b_multiplier=b_multiplier)
    document = {**editable.document, "lora_alpha": alpha, "alpha_pattern": {}, "use_rslora": rslora}
    if not scaled and _has_same_scale(editable.document, document):
        return editable, ""
    rest = f"; B of {scaled} modules has the rest of its scale" if scaled else ""
    return EditableAdapter(modules, editable.full_tensors, document), f"lora_alpha is {alpha:g} for all{rest}"


def _has_same_scale(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    alphas = before.get("lora_alpha"), after["lora_alpha"]
    return (
        bool(before.get("use_rslora")) == after["use_rslora"]
        and not before.get("alpha_pattern")
        and (type(alphas[0]), alphas[0]) == (type(alphas[1]), alphas[1])
    )


def cast(editable: EditableAdapter, dtype: str) -> EditableAdapter:
    """Store every floating-point tensor in ``dtype``."""
    modules = {name: replace(module, dtypes=(dtype, dtype)) for name, module in editable.modules.items()}
    return replace(editable, modules=modules, dtype=dtype)


#: In this order: names first, because shapes are looked up by name; scales last, because they go with the ranks.
TRANSFORMS = (
    Transform(("names_are_not_the_bases", "names_have_another_prefix", "names_have_a_prefix_more"), rename_modules),
    Transform(("has_one_without_the_other", "type_is_missing_in_a_layer"), add_missing_modules),
    Transform(("rank_over", "configured_rank_over", "r_over"), truncate_ranks),
    Transform(
        ("ranks_differ", "ranks_differ_within_a_type", "scales_are_not_global", "rank_is_padded"), pad_to_one_rank
    ),
    Transform(
        ("scale_is_rslora", "scales_are_not_global", "has_alpha_pattern", "alpha_is_no_integer"), scale_to_one_alpha
    ),
    Transform(("targets_are_a_pattern", "lacks_a_field"), write_target_modules),
    Transform(("patterns_mean_another_rank", "patterns_mean_another_alpha"), write_patterns_in_full),
    Transform(("names_what_is_not_there", "has_whole_modules_unnamed"), match_fields_to_tensors),
    Transform(("has_field_outside",), expand_exclude_modules),
    Transform(("has_field_outside",), expand_weight_tying),
)
