"""The order of work: modules of one shape and the same ranks go through the mathematics together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from loreg.adapters.module_shape import ModuleShape
from loreg.merging.sources import OpenSource, widest_dtype

#: Bytes of stacked factors in float64 that one task holds: small enough to stream, large enough to batch.
_BYTES_ON_CPU = 8 * 1024**2
_BYTES_ON_GPU = 512 * 1024**2


@dataclass(frozen=True)
class WorkItem:
    """Modules of one form that the same sources (``positions``) have with the same ranks; results in ``dtype``."""

    modules: tuple[str, ...]
    shape: ModuleShape
    positions: tuple[int, ...]
    ranks: tuple[int, ...]
    dtype: torch.dtype


def plan_work(sources: Sequence[OpenSource], device: torch.device) -> list[WorkItem]:
    """Every module of every source in exactly one task, in an order that depends on nothing but names and shapes."""
    kinds: dict[WorkItem, list[str]] = {}
    for module in sorted({name for source in sources for name in source.modules}):
        positions = tuple(t for t, source in enumerate(sources) if module in source.modules)
        having = [sources[t] for t in positions]
        ranks = tuple(source.rank(module) for source in having)
        dtype = widest_dtype([source.dtype(module) for source in having])
        kinds.setdefault(WorkItem((), _shape(having[0].modules[module]), positions, ranks, dtype), []).append(module)
    most = _BYTES_ON_GPU if device.type == "cuda" else _BYTES_ON_CPU
    tasks = []
    for kind, modules in kinds.items():
        each = 8 * (kind.shape.out + kind.shape.in_) * sum(kind.ranks) * kind.shape.matrices
        step = max(1, most // each)
        for start in range(0, len(modules), step):
            some = tuple(modules[start : start + step])
            tasks.append(WorkItem(some, kind.shape, kind.positions, kind.ranks, kind.dtype))
    return tasks


def _shape(form: ModuleShape) -> ModuleShape:
    """The form without the rank of one source."""
    return replace(form, rank=0, stacked=False)
