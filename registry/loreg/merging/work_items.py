"""Plan a merge: modules of one shape and the same ranks are one work item and computed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from loreg.adapters.module_shape import ModuleShape
from loreg.merging.sources import OpenSource, widest_dtype

#: Bytes of stacked factors in float64 that one work item holds: small enough to stream, large enough to batch.
_BYTES_ON_CPU = 8 * 1024**2
_BYTES_ON_GPU = 512 * 1024**2


@dataclass(frozen=True)
class WorkItem:
    """Modules of one shape that the same sources (``positions``) have with the same ranks; results in ``dtype``."""

    modules: tuple[str, ...]
    shape: ModuleShape
    positions: tuple[int, ...]
    ranks: tuple[int, ...]
    dtype: torch.dtype


def plan_work(sources: Sequence[OpenSource], device: torch.device) -> list[WorkItem]:
    """Put every module of every source into exactly one work item, in an order of names and shapes alone."""
    modules_by_kind: dict[WorkItem, list[str]] = {}
    for module in sorted({name for source in sources for name in source.modules}):
        positions = tuple(t for t, source in enumerate(sources) if module in source.modules)
        owners = [sources[t] for t in positions]
        shape = replace(owners[0].modules[module], rank=0, stacked=False)  # without what is of one source
        ranks = tuple(source.rank(module) for source in owners)
        dtype = widest_dtype([source.dtype(module) for source in owners])
        modules_by_kind.setdefault(WorkItem((), shape, positions, ranks, dtype), []).append(module)
    max_bytes = _BYTES_ON_GPU if device.type == "cuda" else _BYTES_ON_CPU
    items = []
    for kind, modules in modules_by_kind.items():
        bytes_of_module = 8 * (kind.shape.out + kind.shape.in_) * sum(kind.ranks) * kind.shape.matrices
        step = max(1, max_bytes // bytes_of_module)
        for start in range(0, len(modules), step):
            items.append(replace(kind, modules=tuple(modules[start : start + step])))
    return items
