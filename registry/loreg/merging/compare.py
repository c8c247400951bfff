"""Compare adapters before they are merged: how alike they are, exactly from the factors but for the sampled signs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from loreg.algebra.canonical import canonicalize
from loreg.algebra.factors import Factors, stack
from loreg.algebra.frames import FramedStack, frame_stack
from loreg.entities import AdapterSimilarity, Progress, no_progress
from loreg.errors import MergeError
from loreg.merging.compatibility import require_mergeable
from loreg.merging.device import explain_out_of_memory
from loreg.merging.inputs import MergeInput
from loreg.merging.pair_sums import ROUNDING, PairSums, make_similarity, sample_entries
from loreg.merging.sources import OpenSource, open_sources
from loreg.merging.work_items import plan_work


def compare(
    inputs: Sequence[MergeInput], *, device: str = "cpu", progress: Progress = no_progress
) -> list[AdapterSimilarity]:
    """Compare each pair of adapters over the modules that both have, in the order of ``combinations``.

    Raises MergeError for adapters that cannot be merged, whose shapes differ, or that have no module in common.
    """
    require_mergeable(inputs)
    sums: dict[tuple[int, int], PairSums] = defaultdict(PairSums)
    labels = [source.label for source in inputs]
    with open_sources(inputs, 0) as sources, explain_out_of_memory(torch.device(device)):
        items = plan_work(sources, torch.device(device))
        for done, item in enumerate(items, 1):
            for module in item.modules:
                factors = {t: sources[t].factors(module, torch.device(device)) for t in item.positions}
                for i, j in combinations(item.positions, 2):
                    _add(sums[i, j], factors[i], factors[j], module, (sources[i], sources[j]))
            progress("comparing", done, len(items))
        return [make_similarity(labels[i], labels[j], sums[i, j]) for i, j in combinations(range(len(inputs)), 2)]


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
                gram = _add_up(frame_stack(stack(pair)), module, (x, y))
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
                owners = [sources[t] for t in item.positions]
                products[places.unsqueeze(-1), places] += _add_up(frame_stack(stack(factors)), module, owners).cpu()
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


def _add_up(framed: FramedStack, module: str, sources: Sequence[OpenSource]) -> Tensor:
    """Return the inner products (T, T) of a module's deltas. Raises MergeError if they are not finite."""
    gram = framed.gram().sum(0)
    if not gram.isfinite().all():
        for source in sources:
            source.refuse_non_finite(module)
        raise MergeError(
            f"{' and '.join(source.input.label for source in sources)} cannot be compared: the deltas of {module} have "
            "numbers that float64 cannot square",
            hint="train again with a lower learning rate, or take an earlier checkpoint",
        )
    return gram


def _add(sums: PairSums, x: Factors, y: Factors, module: str, sources: Sequence[OpenSource]) -> None:
    pair = frame_stack(stack([x, y]))
    # inner products
    gram = _add_up(pair, module, sources)
    sums.modules += 1
    sums.inner += float(gram[0, 1])
    sums.x += float(gram[0, 0])
    sums.y += float(gram[1, 1])
    # overlaps of the spaces that the singular vectors span
    p, q = (canonicalize(factors) for factors in pair.sources())
    sums.left += _overlap(p.u, p.s, q.u, q.s)
    sums.right += _overlap(p.v, p.s, q.v, q.s)
    sums.directions += sum(min(int(a), int(b)) for a, b in zip(_rank(p.s), _rank(q.s), strict=True))
    # signs of entries
    products = _sample(x, module) * _sample(y, module)
    sums.conflicts += int((products < 0).sum())
    sums.signs += int((products != 0).sum())


def _overlap(u: Tensor, s: Tensor, v: Tensor, t: Tensor) -> float:
    return float((_spanned(u, s).mT @ _spanned(v, t)).square().sum())


def _rank(s: Tensor) -> Tensor:
    return (s > s[..., :1] * ROUNDING).sum(-1)


def _spanned(u: Tensor, s: Tensor) -> Tensor:
    return u * (s > s[..., :1] * ROUNDING).to(u).unsqueeze(-2)


def _sample(factors: Factors, module: str) -> Tensor:
    """Return entries of each delta at random places, which are the same for every adapter."""
    row, column = (torch.from_numpy(places).to(factors.b.device) for places in sample_entries(module, *factors.shape))
    return (factors.b[:, row] * factors.a.mT[:, column]).sum(-1)
