"""What can be done to an adapter for a server that minds it as it is. Each says what it changed, or nothing.

``asked`` has the conditions of the profile that a transform mends, each with the profile's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loreg.adapters.keys import PREFIX
from loreg.adapters.module_shape import ModuleShape
from loreg.bases import names
from loreg.checking.conditions import kernel_rank
from loreg.checking.missing_modules import missing_in_layers, missing_partners, split_layer
from loreg.checking.server_names import map_to_base_names
from loreg.errors import CheckFailedError
from loreg.exporting.configuration import (
    agree_with_the_file,
    name_modules_in_patterns,
    name_targets,
    name_what_is_not_excluded,
    name_what_is_tied,
    selecting_types,
)
from loreg.exporting.editable import EditableAdapter, EditableModule, most_common

TensorDigests = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Transform:
    """``change`` mends each of the ``conditions``."""

    conditions: tuple[str, ...]
    change: Callable[[EditableAdapter, Mapping[str, Any], TensorDigests | None], tuple[EditableAdapter, str]]


def rename(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Modules that the base has under another name get that one. Raises CheckFailedError if two would get the same."""
    if tensor_digests is None:
        return editable, ""
    new = {
        name: found
        for name, found in map_to_base_names(editable.modules, tensor_digests).items()
        if found not in (None, name)
    }
    if not new:
        return editable, ""
    modules: dict[str, EditableModule] = {}
    for old, module in editable.modules.items():
        name = new.get(old) or old
        if name in modules:
            raise CheckFailedError(
                f"{modules[name].origin} and {old} are one module of the base, {name}",
                hint="save the adapter again: only one of the two was trained",
            )
        modules[name] = module
    extras = {_renamed(key, tensor_digests): tensor for key, tensor in editable.full_tensors.items()}
    old, now = next(iter(new.items()))
    changed = selecting_types(EditableAdapter(modules, extras, editable.document))
    return changed, f"{len(new)} modules renamed as in the base, e.g. {old} → {now}"


def _renamed(extra: str, tensor_digests: TensorDigests) -> str:
    owner, _, last = extra.removeprefix(PREFIX).rpartition(".")
    found = map_to_base_names([owner], tensor_digests)[owner]
    return f"{PREFIX}{found or owner}.{last}"


def fill(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Modules that the server expects beside others are added with zero factors.

    Raises CheckFailedError where their shapes are not known.
    """
    modules = dict(editable.modules)
    added: list[str] = []
    if (pair := asked.get("has_one_without_the_other")) is not None:
        added += missing_partners(modules, *pair)
        modules |= {name: _zero(editable, name, tensor_digests) for name in added}
    if "type_is_missing_in_a_layer" in asked:
        more = missing_in_layers(modules, tensor_digests)
        modules |= {name: _zero(replace(editable, modules=modules), name, tensor_digests) for name in more}
        added += more
    if not added:
        return editable, ""
    changed = selecting_types(replace(editable, modules=dict(sorted(modules.items()))))
    return changed, f"{len(added)} modules added with zero factors, e.g. {added[0]}"


def _zero(editable: EditableAdapter, name: str, tensor_digests: TensorDigests | None) -> EditableModule:
    like = next(iter(editable.modules.values()))
    shape = _shape(editable, name, tensor_digests)
    if shape is None:
        raise CheckFailedError(
            f"zero factors for {name} cannot be added: its shape is not known",
            hint="--base names the model that it was trained on",
        )
    out, in_ = shape
    rank = int(most_common(module.shape.rank for module in editable.modules.values()))
    scale = most_common(module.scale for module in editable.modules.values())
    dtype = like.dtypes[1]
    return EditableModule(ModuleShape("linear", rank, out, in_), (dtype, dtype), scale, (), {}, origin="")


def _shape(editable: EditableAdapter, name: str, tensor_digests: TensorDigests | None) -> tuple[int, int] | None:
    """(out, in) of the base's module; without a base that of the same module in another layer; k and v are alike."""
    leaf = (tensor_digests or {}).get(names.canonical_name(f"{name}.weight"))
    if leaf is not None and len(leaf["shape"]) == 2:
        out, in_ = leaf["shape"]
        return (in_, out) if editable.document.get("fan_in_fan_out") else (out, in_)
    twin = name.removesuffix("v_proj") + "k_proj" if name.endswith("v_proj") else name
    alike = {
        (module.shape.out, module.shape.in_)
        for other, module in editable.modules.items()
        if module.shape.kind == "linear" and split_layer(other)[::2] in (split_layer(name)[::2], split_layer(twin)[::2])
    }
    return alike.pop() if len(alike) == 1 else None


def truncate(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Modules over the rank limit become their best approximation at the limit (Eckart & Young 1936).

    Where only the configuration is over it, the ranks of the tensors are written there.
    """
    most = min(asked.values())
    over = [n for n, m in editable.modules.items() if m.shape.rank > most and not m.others]
    if over:
        cut = {name: _cut(editable.modules[name], most) for name in over}
        return replace(editable, modules={**editable.modules, **cut}), f"{len(over)} modules cut down to rank {most}"
    if max(editable.document.get("r", 0), *(editable.document.get("rank_pattern") or {"": 0}).values()) > most:
        return editable, "r and rank_pattern are those of the tensors"
    return editable, ""


def _cut(module: EditableModule, most: int) -> EditableModule:
    rank = min(most, module.shape.out, module.shape.in_)
    return replace(module, shape=replace(module.shape, rank=rank), truncated_to=rank if module.blocks else 0)


def one_rank(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """Zeros bring every module to one rank: the highest, or the one to which the kernels would pad it."""
    ranks = [module.shape.rank for module in editable.modules.values()]
    rank = max(ranks)
    if "rank_is_padded" in asked and len(editable.types) > 1:
        rank = kernel_rank(rank, asked["rank_is_padded"])
    if set(ranks) == {rank}:
        return editable, ""
    modules = {
        name: replace(module, shape=replace(module.shape, rank=rank)) for name, module in editable.modules.items()
    }
    padded = sum(before != rank for before in ranks)
    return replace(editable, modules=modules), f"{padded} modules padded with zeros to rank {rank}"


def one_alpha(
    editable: EditableAdapter, asked: Mapping[str, Any], tensor_digests: TensorDigests | None
) -> tuple[EditableAdapter, str]:
    """One ``lora_alpha`` for all: B is multiplied where a module's scale is another than that alpha makes.

    The alpha that most modules have already is taken, so that their numbers stay as they are; where the server wants
    a whole number and it is none, the rank. rsLoRA stays where the server knows it.
    """
    rslora = bool(editable.document.get("use_rslora")) and "scale_is_rslora" not in asked
    divisors = {n: math.sqrt(m.shape.rank) if rslora else m.shape.rank for n, m in editable.modules.items()}
    alphas = [module.scale * divisors[name] for name, module in editable.modules.items()]
    alpha = most_common(list(filter(None, alphas)) or alphas)  # no B can make up for an alpha of 0
    if math.isclose(alpha, round(alpha), rel_tol=1e-12):
        alpha = round(alpha)
    elif "alpha_is_no_integer" in asked:
        alpha = max(module.shape.rank for module in editable.modules.values())
    modules, scaled = {}, 0
    for name, module in editable.modules.items():
        scale, times = alpha / divisors[name], 1.0
        if not math.isclose(module.scale, scale, rel_tol=1e-12):
            times, scaled = module.scale / scale, scaled + 1
        modules[name] = replace(module, scale=scale, times=times)
    document = {**editable.document, "lora_alpha": alpha, "alpha_pattern": {}, "use_rslora": rslora}
    if not scaled and _same(editable.document, document):
        return editable, ""
    told = f"lora_alpha is {alpha:g} for all" + (f"; B of {scaled} modules has the rest of its scale" if scaled else "")
    return EditableAdapter(modules, editable.full_tensors, document), told


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    alphas = before.get("lora_alpha"), after["lora_alpha"]
    return (
        bool(before.get("use_rslora")) == after["use_rslora"]
        and not before.get("alpha_pattern")
        and (type(alphas[0]), alphas[0]) == (type(alphas[1]), alphas[1])
    )


def cast(editable: EditableAdapter, dtype: str) -> EditableAdapter:
    """Every floating-point tensor in ``dtype``."""
    modules = {name: replace(module, dtypes=(dtype, dtype)) for name, module in editable.modules.items()}
    return replace(editable, modules=modules, dtype=dtype)


#: In this order: names first, because shapes are looked up by name; scales last, because they go with the ranks.
TRANSFORMS = (
    Transform(("names_are_not_the_bases", "names_have_another_prefix", "names_have_a_prefix_more"), rename),
    Transform(("has_one_without_the_other", "type_is_missing_in_a_layer"), fill),
    Transform(("rank_over", "configured_rank_over", "r_over"), truncate),
    Transform(("ranks_differ", "ranks_differ_within_a_type", "scales_are_not_global", "rank_is_padded"), one_rank),
    Transform(("scale_is_rslora", "scales_are_not_global", "has_alpha_pattern", "alpha_is_no_integer"), one_alpha),
    Transform(("targets_are_a_pattern", "lacks_a_field"), name_targets),
    Transform(("patterns_mean_another_rank", "patterns_mean_another_alpha"), name_modules_in_patterns),
    Transform(("names_what_is_not_there", "has_whole_modules_unnamed"), agree_with_the_file),
    Transform(("has_field_outside",), name_what_is_not_excluded),
    Transform(("has_field_outside",), name_what_is_tied),
)
