"""Compare adapters before they are merged: how alike they are, exactly from the factors but for the sampled signs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from loreg.algebra import counter_rng
from loreg.algebra.canonical import canonicalize
from loreg.algebra.factors import Factors, stack
from loreg.algebra.frames import frame_stack
from loreg.entities import AdapterSimilarity, Progress, no_progress
from loreg.errors import MergeError
from loreg.merging.compatibility import require_mergeable
from loreg.merging.device import explain_out_of_memory
from loreg.merging.inputs import MergeInput
from loreg.merging.sources import OpenSource, open_sources
from loreg.merging.work_items import plan_work

_SAMPLE = 4096  # entries of each module whose signs are compared
_NEAR_DUPLICATE = 0.99  # cosine above which two deltas differ by noise
_ZERO = 1e-12  # of the largest singular value: what is not larger is rounding


def compare(
    inputs: Sequence[MergeInput], *, device: str = "cpu", progress: Progress = no_progress
) -> list[AdapterSimilarity]:
    """Compare each pair of adapters over the modules that both have, in the order of ``combinations``.

    Raises MergeError for adapters that cannot be merged, whose shapes differ, or that have no module in common.
    """
    require_mergeable(inputs)
    sums: dict[tuple[int, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with open_sources(inputs, 0) as sources, explain_out_of_memory(torch.device(device)):
        items = plan_work(sources, torch.device(device))
        for done, item in enumerate(items, 1):
            for module in item.modules:
                factors = {t: sources[t].factors(module, torch.device(device)) for t in item.positions}
                for i, j in combinations(item.positions, 2):
                    _add(sums[i, j], factors[i], factors[j], counter_rng.derive_key(module))
            progress("comparing", done, len(items))
        return [_similarity(sources, i, j, sums[i, j]) for i, j in combinations(range(len(inputs)), 2)]


def compare_modules(
    a: MergeInput, b: MergeInput, *, progress: Progress = no_progress
) -> dict[str, tuple[float | None, float, float]]:
    """Return the cosine of the two deltas and their Frobenius norms, for each module that both have in one shape.

    The cosine is None where a delta is zero. Raises MergeError for adapters that cannot be merged.
    """
    require_mergeable([a, b])
    cpu = torch.device("cpu")
    numbers: dict[str, tuple[float | None, float, float]] = {}
    with open_sources([a, b], 0) as (x, y):
        shared = [module for module in x.modules if module in y.modules]
        for done, module in enumerate(shared, 1):
            pair = [source.factors(module, cpu) for source in (x, y)]
            if pair[0].shape == pair[1].shape:
                gram = frame_stack(stack(pair)).gram().sum(0)
                norms = math.sqrt(float(gram[0, 0])), math.sqrt(float(gram[1, 1]))
                cosine = float(gram[0, 1]) / (norms[0] * norms[1]) if all(norms) else None
                numbers[module] = None if cosine is None else max(-1.0, min(1.0, cosine)), *norms
            progress("comparing", done, len(shared))
    return numbers


def inner_products(inputs: Sequence[MergeInput], *, device: str = "cpu", progress: Progress = no_progress) -> Tensor:
    """Return ``⟨Δᵢ, Δⱼ⟩`` (T, T) of whole adapters, summed over modules; a delta that is missing is zero.

    Raises MergeError for adapters that cannot be merged.
    """
    require_mergeable(inputs)
    products = torch.zeros(len(inputs), len(inputs), dtype=torch.float64)
    with open_sources(inputs, 0) as sources, explain_out_of_memory(torch.device(device)):
        items = plan_work(sources, torch.device(device))
        for done, item in enumerate(items, 1):
            places = torch.tensor(item.positions)
            for module in item.modules:
                factors = [sources[t].factors(module, torch.device(device)) for t in item.positions]
                products[places.unsqueeze(-1), places] += frame_stack(stack(factors)).gram().sum(0).cpu()
            progress("comparing", done, len(items))
    return products


def largest_difference(before: MergeInput, after: MergeInput) -> float:
    """Return ``max ‖Δ − Δ'‖ / ‖Δ‖`` over the modules of two adapters; infinity if their modules differ."""
    if before.structure.modules.keys() != after.structure.modules.keys():
        return math.inf
    cpu, largest = torch.device("cpu"), 0.0
    with open_sources([before, after], 0) as (x, y):
        for module in x.modules:
            pair = frame_stack(stack([x.factors(module, cpu), y.factors(module, cpu)]))
            difference = pair.weighted_sum(torch.tensor([1.0, -1.0], dtype=torch.float64)).square().sum()
            size = pair.gram()[:, 0, 0].sum()
            largest = max(largest, float((difference / size.clamp_min(1e-300)).sqrt()) if float(difference) else 0.0)
    return largest


def _add(sums: dict[str, float], x: Factors, y: Factors, key: int) -> None:
    pair = frame_stack(stack([x, y]))
    # inner products
    gram = pair.gram().sum(0)
    sums["modules"] += 1
    sums["inner"] += float(gram[0, 1])
    sums["x"] += float(gram[0, 0])
    sums["y"] += float(gram[1, 1])
    # overlaps of the spaces that the singular vectors span
    p, q = (canonicalize(factors) for factors in pair.sources())
    for side, u, v in (("left", p.u, q.u), ("right", p.v, q.v)):
        directions = [_spanned(u, p.s), _spanned(v, q.s)]
        sums[side] += float((directions[0].mT @ directions[1]).square().sum())
    sums["directions"] += sum(min(int(a), int(b)) for a, b in zip(_rank(p.s), _rank(q.s), strict=True))
    # signs of entries
    products = _sample(x, key) * _sample(y, key)
    sums["conflicts"] += float((products < 0).sum())
    sums["signs"] += float((products != 0).sum())


def _rank(s: Tensor) -> Tensor:
    return (s > s[..., :1] * _ZERO).sum(-1)


def _spanned(u: Tensor, s: Tensor) -> Tensor:
    return u * (s > s[..., :1] * _ZERO).to(u).unsqueeze(-2)


def _sample(factors: Factors, key: int) -> Tensor:
    """Return entries of each delta at random places, which are the same for every adapter."""
    generator = torch.Generator().manual_seed(key >> 1)
    row, column = (torch.randint(size, (_SAMPLE,), generator=generator).to(factors.b.device) for size in factors.shape)
    return (factors.b[:, row] * factors.a.mT[:, column]).sum(-1)


def _similarity(sources: Sequence[OpenSource], i: int, j: int, sums: dict[str, float]) -> AdapterSimilarity:
    a, b = sources[i].input, sources[j].input
    if not sums["modules"]:
        raise MergeError(f"{a.label} and {b.label} have no module in common", hint="loreg show tells their modules")
    norms = math.sqrt(sums["x"]), math.sqrt(sums["y"])
    cosine = sums["inner"] / (norms[0] * norms[1]) if all(norms) else 0.0
    return AdapterSimilarity(
        a=a.label,
        b=b.label,
        modules=int(sums["modules"]),
        cosine=max(-1.0, min(1.0, cosine)),
        left_overlap=sums["left"] / sums["directions"] if sums["directions"] else 0.0,
        right_overlap=sums["right"] / sums["directions"] if sums["directions"] else 0.0,
        sign_conflict=sums["conflicts"] / sums["signs"] if sums["signs"] else 0.0,
        norm_ratio=norms[1] / norms[0] if norms[0] else None,
        near_duplicate=cosine > _NEAR_DUPLICATE,
    )
