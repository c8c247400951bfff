"""Recipe → adapter and certificate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loreg.adapters.full_tensors import choose_full_tensors, refuse_factors_of_full_modules
from loreg.adapters.keys import full_tensor_key, plain_full_name
from loreg.adapters.tensors import AdapterToWrite, ModuleToWrite, OpenAdapter, pad_rank
from loreg.entities import Progress, no_progress
from loreg.errors import MergeError, UsageError
from loreg.merging import certificate
from loreg.merging.calibration import read_moments
from loreg.merging.compatibility import require_mergeable, result_fields
from loreg.merging.engine import MergedModule, MergeEngine
from loreg.merging.method import Method
from loreg.merging.methods import find_method
from loreg.merging.ranks import RankRule
from loreg.merging.recipe import Recipe
from loreg.merging.sources import MergeInput, OpenSource, conversion_notes, open_sources


@dataclass(frozen=True)
class MergedAdapter:
    """The result: an adapter to write, its certificate as JSON, and the recipe with every choice filled in.

    ``sigmas`` has the known singular values of each merged delta, largest first; ``notes`` are for the person.
    """

    adapter: AdapterToWrite
    certificate: dict[str, Any]
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
    inputs. ``calibration`` is a file of second moments (``merging.calibration``) for re-ranking a single source.
    Raises MergeError, naming what stands in the way, and UsageError for a recipe that cannot be.
    """
    structures, labels = [given.structure for given in inputs], [given.label for given in inputs]
    require_mergeable(inputs)
    method = find_method(recipe.method)
    recipe = _completed(recipe, method, inputs)
    with open_sources(inputs, recipe.rank.most or 0) as sources:
        adapters = [source.adapter for source in sources]
        extras = choose_full_tensors(
            [structure.full_tensors_and_token_rows for structure in structures],
            labels,
            _have_same_full_tensors(adapters),
            recipe.extras,
        )
        whole = {}
        if extras is not None:
            refuse_factors_of_full_modules(structures, labels, extras)
            names = {name for source in sources for name in source.modules}
            taken = adapters[extras]
            whole = {
                full_tensor_key(plain_full_name(name), names): taken.full_tensor(name)
                for name in taken.structure.full_tensors_and_token_rows
            }
        moments = _moments(calibration, sources) if calibration else None
        run = MergeEngine(sources, recipe, method, torch.device(device), moments, progress)
        done = sorted(run.run(), key=lambda module: module.name)
        notes = conversion_notes(sources)
    if recipe.rank.uniform:
        done = _at_one_rank(done)
    biased = {}
    if any(module.module.bias is not None for module in done):
        done, biased = _with_biases(done), {"lora_bias": True}
    modules = {module.name: module.module for module in done}
    return MergedAdapter(
        adapter=AdapterToWrite(modules, whole, {**result_fields(structures, extras), **biased}),
        certificate=certificate.to_json([module.certified for module in done], labels),
        recipe=replace(recipe, extras=extras),
        sigmas={module.name: module.certified.sigmas for module in done},
        notes=tuple(notes),
    )


def _completed(recipe: Recipe, method: Method, inputs: Sequence[MergeInput]) -> Recipe:
    """The recipe with the method's defaults filled in. Raises UsageError for what the method cannot do."""
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
    for given in inputs:
        if method.name != "linear" and any("bias" in module.tensors for module in given.structure.modules.values()):
            raise MergeError(
                f"{given.label} cannot be merged by {method.name}: lora_bias is true, and only linear says what a "
                "merged bias is",
                hint="--method linear",
            )
    if method.full_rank and recipe.rank.most is None:
        if recipe.rank.kind != "lossless":
            raise UsageError(
                f"the method {method.name} makes a delta of full rank: its result can only be of a fixed rank",
                hint="merge with --rank N, then loreg rerank",
            )
        every = [module.rank for given in inputs for module in given.structure.modules.values()]
        recipe = replace(recipe, rank=RankRule("fixed", max(every)))
    return replace(recipe, parameters=method.values(recipe.parameters))


def _moments(path: Path, sources: Sequence[OpenSource]) -> dict[str, Tensor]:
    if len(sources) != 1 or sources[0].initial or any(form.kind != "linear" for form in sources[0].modules.values()):
        raise UsageError(
            "calibration data fit one adapter of plain linear LoRA modules", hint="loreg rerank REF --calibration FILE"
        )
    if any("magnitude" in module.tensors for module in sources[0].adapter.structure.modules.values()):
        raise UsageError("calibration data do not fit a DoRA adapter", hint="loreg rerank it without, then again")
    return read_moments(path, {name: sources[0].rank(name) for name in sources[0].modules})


def _at_one_rank(done: Sequence[MergedModule]) -> list[MergedModule]:
    rank = max(module.module.factors.rank for module in done)
    return [
        replace(module, module=replace(module.module, factors=pad_rank(module.module.factors, rank))) for module in done
    ]


def _with_biases(done: Sequence[MergedModule]) -> list[MergedModule]:
    """PEFT looks for a bias at every module of an adapter that has any: zeros where no source had one."""

    def biased(written: ModuleToWrite) -> ModuleToWrite:
        b = written.factors.b
        return written if written.bias is not None else replace(written, bias=b.new_zeros(b.shape[-2]))

    return [replace(module, module=biased(module.module)) for module in done]


def _have_same_full_tensors(adapters: Sequence[OpenAdapter]) -> bool:
    """Whether all adapters that have whole tensors have the same ones, to the bit."""

    def names(adapter: OpenAdapter) -> dict[str, str]:
        return {plain_full_name(name): name for name in adapter.structure.full_tensors_and_token_rows}

    having = [adapter for adapter in adapters if adapter.structure.full_tensors_and_token_rows]
    return all(
        [tokens.indices for tokens in first.structure.token_rows.values()]
        == [tokens.indices for tokens in other.structure.token_rows.values()]
        and names(first).keys() == names(other).keys()
        and all(
            _equal(first.full_tensor(name), other.full_tensor(names(other)[plain]))
            for plain, name in names(first).items()
        )
        for first, other in itertools.pairwise(having)
    )


def _equal(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
