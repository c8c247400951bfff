"""Recipe → adapter and certificate."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loreg.adapters.keys import extra_name, plain_extra
from loreg.adapters.layout import Layout
from loreg.adapters.tensors import OpenAdapter, Written, open_adapter
from loreg.algebra.factors import Factors, Spectrum, spectrum, squared_norm, truncate
from loreg.errors import MergeError
from loreg.merging import certificate
from loreg.merging.compatible import (
    choose_extras,
    fields_of_result,
    refuse_factors_of_whole_modules,
    refuse_what_cannot_be_merged,
)
from loreg.merging.methods import METHODS
from loreg.merging.recipe import Recipe
from loreg.records import Progress, no_progress


@dataclass(frozen=True)
class Merged:
    """The result: an adapter to write, its certificate as JSON, and the recipe with every choice filled in."""

    adapter: Written
    certificate: dict[str, Any]
    recipe: Recipe


def execute(layouts: Sequence[Layout], recipe: Recipe, progress: Progress = no_progress) -> Merged:
    """Merge the adapters ``layouts``, the recipe's sources in order.

    The weighted sum of deltas over the union of their modules; a module that only some have still merges. Computed
    in float64, stored in the widest dtype of the inputs. Raises MergeError, naming what stands in the way.
    """
    labels = [source.label for source in recipe.sources]
    refuse_what_cannot_be_merged(layouts, labels)
    with contextlib.ExitStack() as stack:
        adapters = [stack.enter_context(open_adapter(layout)) for layout in layouts]
        extras = choose_extras(layouts, labels, _same_extras(adapters), recipe.extras)
        modules = sorted({name for layout in layouts for name in layout.modules})
        whole = {}
        if extras is not None:
            refuse_factors_of_whole_modules(layouts, labels, extras)
            taken = adapters[extras]
            whole = {extra_name(plain_extra(name), modules): taken.extra(name) for name in taken.layout.extras}
        factors, certificates, energies = {}, [], []
        for done, module in enumerate(modules, 1):
            sources = [a.factors(module) if module in a.layout.modules else None for a in adapters]
            merged = _merge_module(sources, recipe)
            factors[module] = (merged.stored.b, merged.stored.a)
            figures, squares = certificate.measure(module, merged.full, merged.kept, merged.stored, sources)
            certificates.append(figures)
            energies.append(squares)
            progress("merging", done, len(modules))
    together = certificate.total(certificates, energies)
    notes = certificate.warnings(together, labels)
    return Merged(
        adapter=Written(factors, whole, fields_of_result(layouts, extras)),
        certificate=certificate.to_json(together, certificates, notes),
        recipe=Recipe(recipe.sources, recipe.method, recipe.rank, extras),
    )


@dataclass(frozen=True)
class _MergedModule:
    full: Spectrum
    kept: Factors
    stored: Factors


def _merge_module(sources: Sequence[Factors | None], recipe: Recipe) -> _MergedModule:
    present = [(s, source.weight) for s, source in zip(sources, recipe.sources, strict=True) if s is not None]
    parts, weights = [part for part, _ in present], [weight for _, weight in present]
    merged = METHODS[recipe.method](parts, weights)
    _refuse_overflow(merged.b, "the weighted factors", torch.float64)
    full = spectrum(merged, max(abs(weight) * squared_norm(part) ** 0.5 for part, weight in present))
    _refuse_overflow(full.s.square().sum(), "the merged delta", torch.float64)
    rank = max(full.numerical_rank(), 1) if recipe.rank is None else min(recipe.rank, *merged.shape)
    kept = truncate(full, rank)
    dtype = _widest([tensor.dtype for part in parts for tensor in (part.a, part.b)])
    stored = Factors(kept.b.to(dtype), kept.a.to(dtype))
    _refuse_overflow(stored.b, "the merged factors", dtype)
    _refuse_overflow(stored.a, "the merged factors", dtype)
    return _MergedModule(full, kept, stored)


def _refuse_overflow(tensor: Tensor, what: str, dtype: torch.dtype) -> None:
    if not tensor.isfinite().all():
        raise MergeError(f"{what} do not fit into {dtype}", hint="use smaller weights")


def _widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    return functools.reduce(torch.promote_types, dtypes)


def _same_extras(adapters: Sequence[OpenAdapter]) -> bool:
    """Whether all adapters that have whole tensors have the same ones, to the bit."""

    def names(adapter: OpenAdapter) -> dict[str, str]:
        return {plain_extra(name): name for name in adapter.layout.extras}

    having = [adapter for adapter in adapters if adapter.layout.extras]
    return all(
        names(first).keys() == names(other).keys()
        and all(_equal(first.extra(name), other.extra(names(other)[plain])) for plain, name in names(first).items())
        for first, other in itertools.pairwise(having)
    )


def _equal(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
