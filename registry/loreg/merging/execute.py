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
from loreg.merging.compatible import fields_of_result, refuse_what_cannot_be_merged
from loreg.merging.method import Method
from loreg.merging.methods import find_method
from loreg.merging.ranks import RankRule
from loreg.merging.recipe import Recipe
from loreg.merging.run import Done, Run
from loreg.merging.sources import Input, Source, conversions, open_sources


@dataclass(frozen=True)
class Merged:
    """The result: an adapter to write, its certificate as JSON, and the recipe with every choice filled in.

    ``sigmas`` has the known singular values of each merged delta, largest first; ``notes`` are for the person.
    """

    adapter: AdapterToWrite
    certificate: dict[str, Any]
    recipe: Recipe
    sigmas: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]


def execute(
    inputs: Sequence[Input],
    recipe: Recipe,
    *,
    device: str = "cpu",
    calibration: Path | None = None,
    progress: Progress = no_progress,
) -> Merged:
    """Merge ``inputs``, the recipe's sources in order, over the union of their modules.

    A module that only some have still merges. Computed in float64 on ``device``, stored in the widest dtype of the
    inputs. ``calibration`` is a file of second moments (``merging.calibration``) for re-ranking a single source.
    Raises MergeError, naming what stands in the way, and UsageError for a recipe that cannot be.
    """
    layouts, labels = [given.layout for given in inputs], [given.label for given in inputs]
    refuse_what_cannot_be_merged(inputs)
    method = find_method(recipe.method)
    recipe = _completed(recipe, method, inputs)
    with open_sources(inputs, recipe.rank.most or 0) as sources:
        adapters = [source.adapter for source in sources]
        extras = choose_full_tensors(
            [layout.full_tensors_and_token_rows for layout in layouts], labels, _same_extras(adapters), recipe.extras
        )
        whole = {}
        if extras is not None:
            refuse_factors_of_full_modules(layouts, labels, extras)
            names = {name for source in sources for name in source.modules}
            taken = adapters[extras]
            whole = {
                full_tensor_key(plain_full_name(name), names): taken.full_tensor(name)
                for name in taken.structure.full_tensors_and_token_rows
            }
        moments = _moments(calibration, sources) if calibration else None
        run = Run(sources, recipe, method, torch.device(device), moments, progress)
        done = sorted(run.all(), key=lambda module: module.name)
        notes = conversions(sources)
    if recipe.rank.uniform:
        done = _at_one_rank(done)
    biased = {}
    if any(module.written.bias is not None for module in done):
        done, biased = _with_biases(done), {"lora_bias": True}
    modules = {module.name: module.written for module in done}
    return Merged(
        adapter=AdapterToWrite(modules, whole, {**fields_of_result(layouts, extras), **biased}),
        certificate=certificate.to_json([module.measured for module in done], labels),
        recipe=replace(recipe, extras=extras),
        sigmas={module.name: module.measured.sigmas for module in done},
        notes=tuple(notes),
    )


def _completed(recipe: Recipe, method: Method, inputs: Sequence[Input]) -> Recipe:
    """The recipe with the method's defaults filled in. Raises UsageError for what the method cannot do."""
    count = len(inputs)
    if count < method.needs or (method.most is not None and count > method.most):
        expected = f"exactly {method.needs}" if method.most == method.needs else f"{method.needs} or more"
        raise UsageError(
            f"the method {method.name} merges {expected} adapters, not {count}", hint=f"loreg methods {method.name}"
        )
    for given in inputs:
        if method.name != "linear" and any("bias" in module.tensors for module in given.layout.modules.values()):
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
        every = [module.rank for given in inputs for module in given.layout.modules.values()]
        recipe = replace(recipe, rank=RankRule("fixed", max(every)))
    return replace(recipe, parameters=method.values(recipe.parameters))


def _moments(path: Path, sources: Sequence[Source]) -> dict[str, Tensor]:
    if len(sources) != 1 or sources[0].initial or any(form.kind != "linear" for form in sources[0].modules.values()):
        raise UsageError(
            "calibration data fit one adapter of plain linear LoRA modules", hint="loreg rerank REF --calibration FILE"
        )
    if any("magnitude" in module.tensors for module in sources[0].adapter.structure.modules.values()):
        raise UsageError("calibration data do not fit a DoRA adapter", hint="loreg rerank it without, then again")
    return read_moments(path, {name: sources[0].rank(name) for name in sources[0].modules})


def _at_one_rank(done: Sequence[Done]) -> list[Done]:
    rank = max(module.written.factors.rank for module in done)
    return [
        replace(module, written=replace(module.written, factors=pad_rank(module.written.factors, rank)))
        for module in done
    ]


def _with_biases(done: Sequence[Done]) -> list[Done]:
    """PEFT looks for a bias at every module of an adapter that has any: zeros where no source had one."""

    def biased(written: ModuleToWrite) -> ModuleToWrite:
        b = written.factors.b
        return written if written.bias is not None else replace(written, bias=b.new_zeros(b.shape[-2]))

    return [replace(module, written=biased(module.written)) for module in done]


def _same_extras(adapters: Sequence[OpenAdapter]) -> bool:
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
