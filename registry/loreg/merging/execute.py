"""Execute a recipe: from open adapters to the merged adapter and its certificate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from loreg.adapters.full_tensors import choose_full_tensors, refuse_factors_of_full_modules
from loreg.adapters.keys import full_tensor_key, strip_base_layer
from loreg.adapters.module_shape import ModuleKind
from loreg.adapters.tensors import AdapterToWrite, ModuleToWrite, OpenAdapter, pad_rank
from loreg.entities import Progress, RankRuleKind, no_progress
from loreg.errors import UsageError
from loreg.merging import certificate
from loreg.merging.calibration import read_moments
from loreg.merging.compatibility import biases_need_linear, merge_config_fields, require_mergeable
from loreg.merging.documents import CertificateDocument
from loreg.merging.engine import MergedModule, MergeEngine
from loreg.merging.inputs import MergeInput
from loreg.merging.method import Method
from loreg.merging.methods import find_method
from loreg.merging.ranks import RankRule
from loreg.merging.recipe import Recipe
from loreg.merging.sources import OpenSource, describe_conversions, open_sources
from loreg.merging.stored_moments import read_cross_moments
from loreg.merging.strength import describe_strength


@dataclass(frozen=True)
class MergedAdapter:
    """The result of a merge: an adapter to write, its certificate as JSON, and the recipe with every choice filled in.

    ``sigmas`` has the known singular values of each merged delta, largest first; ``notes`` are for the user.
    """

    adapter: AdapterToWrite
    certificate: CertificateDocument
    recipe: Recipe
    sigmas: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]


def execute_recipe(
    inputs: Sequence[MergeInput],
    recipe: Recipe,
    *,
    device: str = "cpu",
    calibration: Path | None = None,
    progress: Progress = no_progress,
) -> MergedAdapter:
    """Merge ``inputs``, the recipe's sources in order, over the union of their modules.

    A module that only some have still merges. Computed in float64 on ``device``, stored in the widest dtype of the
    inputs. ``calibration`` is a file of second moments (``merging.calibration``) for re-ranking a single source, or of
    cross moments (``merging.cross_moments``) for a method that merges by them.
    Raises MergeError, naming what stands in the way, and UsageError for a recipe that is not possible.
    """
    structures, labels = [source.structure for source in inputs], [source.label for source in inputs]
    require_mergeable(inputs)
    method = find_method(recipe.method)
    recipe = _fill_in_defaults(recipe, method, inputs)
    _refuse_what_weighs_by_data(recipe, method, calibration)
    with open_sources(inputs, recipe.rank.max_rank or 0) as sources:
        adapters = [source.adapter for source in sources]
        extras = choose_full_tensors(
            [structure.full_tensors_and_token_rows for structure in structures],
            labels,
            _have_same_full_tensors(adapters),
            recipe.extras,
        )
        full_tensors = {}
        if extras is not None:
            refuse_factors_of_full_modules(structures, labels, extras)
            names = {name for source in sources for name in source.modules}
            owner = adapters[extras]
            full_tensors = {
                full_tensor_key(strip_base_layer(name), names): owner.full_tensor(name)
                for name in owner.structure.full_tensors_and_token_rows
            }
        cross = read_cross_moments(calibration, sources) if calibration and method.needs_moments else None
        moments = _read_moments(calibration, sources, method) if calibration and not method.needs_moments else None
        engine = MergeEngine(sources, recipe, method, torch.device(device), moments, progress, cross)
        merged = sorted(engine.run(), key=lambda module: module.name)
        notes = describe_conversions(sources)
    if recipe.rank.uniform:
        merged = _pad_to_one_rank(merged)
    bias_field = {}
    if any(module.module.bias is not None for module in merged):
        merged, bias_field = _add_zero_biases(merged), {"lora_bias": True}
    modules = {module.name: module.module for module in merged}
    return MergedAdapter(
        adapter=AdapterToWrite(modules, full_tensors, {**merge_config_fields(structures, extras), **bias_field}),
        certificate=certificate.to_json([module.certified for module in merged], labels),
        recipe=replace(recipe, extras=extras),
        sigmas={module.name: module.certified.sigmas for module in merged},
        notes=(*notes, *describe_strength(method.adds_up, recipe.scale, [module.certified for module in merged])),
    )


def _fill_in_defaults(recipe: Recipe, method: Method, inputs: Sequence[MergeInput]) -> Recipe:
    """Fill in the method's defaults. Raises UsageError or MergeError for what the method cannot do."""
    count = len(inputs)
    if count < method.min_sources or (method.max_sources is not None and count > method.max_sources):
        expected = (
            f"exactly {method.min_sources}"
            if method.max_sources == method.min_sources
            else f"{method.min_sources} or more"
        )
        raise UsageError(
            f"the method {method.name} merges {expected} adapters, not {count}", hint=f"loreg methods {method.name}"
        )
    for source in inputs:
        if method.name != "linear" and any("bias" in module.tensors for module in source.structure.modules.values()):
            raise biases_need_linear(source.label, method.name)
    if method.full_rank and recipe.rank.max_rank is None:
        if recipe.rank.kind != RankRuleKind.LOSSLESS:
            raise UsageError(
                f"the method {method.name} makes a delta of full rank: its result can only be of a fixed rank",
                hint="merge with --rank N, then loreg rerank",
            )
        ranks = [module.rank for source in inputs for module in source.structure.modules.values()]
        recipe = replace(recipe, rank=RankRule(RankRuleKind.FIXED, max(ranks)))
    return replace(recipe, parameters=method.values(recipe.parameters))


def _refuse_what_weighs_by_data(recipe: Recipe, method: Method, calibration: Path | None) -> None:
    """Raise UsageError for negative weights where they are importances, and for moments that are needed and missing."""
    if method.needs_moments and calibration is None:
        raise UsageError(
            f"the method {method.name} merges by what the adapters see of text, and no moments are given",
            hint="--calibration FILE, from loreg.collect_calibration(model, adapter=[…])",
        )
    weights = [source.weight for source in recipe.sources] + [w for row in recipe.weights_for.values() for w in row]
    if method.relative_weights and min(weights) < 0:
        raise UsageError(
            f"a weight is {min(weights):g}: the weights of {method.name} are relative importances, expected 0 or more",
            hint="--method linear takes a task away",
        )


def _read_moments(path: Path, sources: Sequence[OpenSource], method: Method) -> dict[str, Tensor]:
    if (
        method.name != "linear"
        or len(sources) != 1
        or sources[0].initial
        or any(shape.kind != ModuleKind.LINEAR for shape in sources[0].modules.values())
    ):
        raise UsageError(
            "calibration data fit one adapter of plain linear LoRA modules, or a merge by regmean",
            hint="--method regmean, or loreg rerank REF --calibration FILE",
        )
    if any("magnitude" in module.tensors for module in sources[0].adapter.structure.modules.values()):
        raise UsageError("calibration data do not fit a DoRA adapter", hint="loreg rerank it without, then again")
    return read_moments(path, {name: sources[0].rank(name) for name in sources[0].modules})


def _pad_to_one_rank(merged: Sequence[MergedModule]) -> list[MergedModule]:
    rank = max(module.module.factors.rank for module in merged)
    return [
        replace(module, module=replace(module.module, factors=pad_rank(module.module.factors, rank)))
        for module in merged
    ]


def _add_zero_biases(merged: Sequence[MergedModule]) -> list[MergedModule]:
    """Give each module without a bias one of zeros: PEFT looks for one everywhere in an adapter that has any."""

    def with_bias(module: ModuleToWrite) -> ModuleToWrite:
        b = module.factors.b
        return module if module.bias is not None else replace(module, bias=b.new_zeros(b.shape[-2]))

    return [replace(module, module=with_bias(module.module)) for module in merged]


def _have_same_full_tensors(adapters: Sequence[OpenAdapter]) -> bool:
    """Return whether all adapters that have whole tensors have the same ones, to the bit."""

    def names(adapter: OpenAdapter) -> dict[str, str]:
        return {strip_base_layer(name): name for name in adapter.structure.full_tensors_and_token_rows}

    with_tensors = [adapter for adapter in adapters if adapter.structure.full_tensors_and_token_rows]
    return all(
        [tokens.indices for tokens in first.structure.token_rows.values()]
        == [tokens.indices for tokens in second.structure.token_rows.values()]
        and names(first).keys() == names(second).keys()
        and all(
            _equal(first.full_tensor(name), second.full_tensor(names(second)[plain]))
            for plain, name in names(first).items()
        )
        for first, second in itertools.pairwise(with_tensors)
    )


def _equal(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
