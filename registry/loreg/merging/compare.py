"""How alike adapters are, before anything is merged; from the factors, exactly but for the sampled signs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from loreg.algebra import counter_rng
from loreg.algebra.canonical import canonical
from loreg.algebra.factors import Factors, stack
from loreg.algebra.frames import framed
from loreg.entities import AdapterSimilarity, Progress, no_progress
from loreg.errors import MergeError
from loreg.merging.compatibility import require_mergeable
from loreg.merging.device import explain_out_of_memory
from loreg.merging.sources import MergeInput, OpenSource, open_sources
from loreg.merging.work_items import plan_work

_SAMPLES = 4096  # entries of each module whose signs are compared
_SAME = 0.99  # cosine from which two deltas differ by noise
_ZERO = 1e-12


def compare(
    inputs: Sequence[MergeInput], *, device: str = "cpu", progress: Progress = no_progress
) -> list[AdapterSimilarity]:
    """Every pair of adapters, over the modules that both have. Raises MergeError if their shapes differ."""
    require_mergeable(inputs)
    sums: dict[tuple[int, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with open_sources(inputs, 0) as sources, explain_out_of_memory(torch.device(device)):
        tasks = plan_work(sources, torch.device(device))
        for done, task in enumerate(tasks, 1):
            for module in task.modules:
                parts = {t: sources[t].factors(module, torch.device(device)) for t in task.positions}
                for i, j in combinations(task.positions, 2):
                    _add(sums[i, j], parts[i], parts[j], counter_rng.derive_key(module))
            progress("comparing", done, len(tasks))
        return [_likeness(sources, i, j, sums[i, j]) for i, j in combinations(range(len(inputs)), 2)]


def largest_difference(given: MergeInput, other: MergeInput) -> float:
    """``max ‖Δ − Δ'‖ / ‖Δ‖`` over the modules of two adapters; infinite if their modules differ."""
    if given.structure.modules.keys() != other.structure.modules.keys():
        return math.inf
    cpu, worst = torch.device("cpu"), 0.0
    with open_sources([given, other], 0) as (a, b):
        for module in a.modules:
            both = framed(stack([a.factors(module, cpu), b.factors(module, cpu)]))
            apart = both.weighted(torch.tensor([1.0, -1.0], dtype=torch.float64)).square().sum()
            size = both.gram()[:, 0, 0].sum()
            worst = max(worst, float((apart / size.clamp_min(1e-300)).sqrt()) if float(apart) else 0.0)
    return worst


def _add(sums: dict[str, float], x: Factors, y: Factors, key: int) -> None:
    both = framed(stack([x, y]))
    gram = both.gram().sum(0)
    sums["modules"] += 1
    sums["inner"] += float(gram[0, 1])
    sums["x"] += float(gram[0, 0])
    sums["y"] += float(gram[1, 1])
    p, q = (canonical(part) for part in both.sources())
    for side, u, v in (("left", p.u, q.u), ("right", p.v, q.v)):
        directions = [_spanned(u, p.s), _spanned(v, q.s)]
        sums[side] += float((directions[0].mT @ directions[1]).square().sum())
    sums["directions"] += sum(min(int(a), int(b)) for a, b in zip(_rank(p.s), _rank(q.s), strict=True))
    first, second = (_sample(part, key) for part in (x, y))
    sums["conflicts"] += float((first * second < 0).sum())
    sums["signs"] += float((first * second != 0).sum())


def _rank(s: Tensor) -> Tensor:
    return (s > s[..., :1] * _ZERO).sum(-1)


def _spanned(u: Tensor, s: Tensor) -> Tensor:
    return u * (s > s[..., :1] * _ZERO).to(u).unsqueeze(-2)


def _sample(part: Factors, key: int) -> Tensor:
    """Entries of each delta, drawn at random, the same for every adapter."""
    generator = torch.Generator().manual_seed(key >> 1)
    row, column = (torch.randint(size, (_SAMPLES,), generator=generator).to(part.b.device) for size in part.shape)
    return (part.b[:, row] * part.a.mT[:, column]).sum(-1)


def _likeness(sources: Sequence[OpenSource], i: int, j: int, sums: dict[str, float]) -> AdapterSimilarity:
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
        near_duplicate=cosine > _SAME,
    )
