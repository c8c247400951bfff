"""From which magnitude on the entries of a source are kept: among those of one module, or of all modules together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from loreg.algebra.order_statistics import kth_largest
from loreg.merging.batch import Batches, Thresholds
from loreg.merging.method import Values
from loreg.merging.pruning import PruneRule
from loreg.merging.tiled_delta import TiledDelta, Views, tile_deltas

_SAMPLE = 1 << 14  # entries drawn to bracket an order statistic


@dataclass(frozen=True)
class ThresholdCalibration:
    """A method's ``calibrate``: with ``threshold = global``, each source's entries compete over all of its modules."""

    views: Views
    rule: PruneRule

    def __call__(self, batches: Batches, values: Values) -> Thresholds | None:
        """Return the thresholds of each source by its position; None where entries compete within their module."""
        if values["threshold"] != "global":
            return None
        positions = {position for batch in batches() for position in batch.positions}
        return {
            position: find_thresholds(ModulesOfSource(batches, values, self.views, position), values, self.rule)
            for position in sorted(positions)
        }


@dataclass(frozen=True)
class ModulesOfSource:
    """All modules of one source, with its place t in each; made again at every pass, so that none has to be held."""

    batches: Batches
    values: Values
    views: Views
    position: int

    def __iter__(self) -> Iterator[tuple[TiledDelta, int]]:
        for batch in self.batches():
            if self.position in batch.positions:
                t = batch.positions.index(self.position)
                for module in tile_deltas(batch, self.values, self.views):
                    yield module, t


def find_thresholds(modules: Iterable[tuple[TiledDelta, int]], values: Values, rule: PruneRule) -> tuple[Tensor, ...]:
    """Return the magnitudes that bound the entries of a source that ``rule`` keeps, over ``modules`` together.

    ``modules`` has the source's place t in each; it is iterated several times.
    """
    sizes = [module.shape[0] * module.shape[1] for module, _ in modules]
    total = sum(sizes)
    counts = rule.counts(values, total)
    if not counts:
        return ()
    sample = torch.cat(
        [
            module.sample_magnitudes(t, -(-_SAMPLE * size // total))
            for (module, t), size in zip(modules, sizes, strict=True)
        ]
    )

    def magnitudes() -> Iterable[Tensor]:
        return chain.from_iterable(module.magnitudes(t) for module, t in modules)

    all_or_none = {0: torch.inf, total: 0.0}
    return tuple(
        sample.new_tensor(all_or_none[k]) if k in all_or_none else kth_largest(magnitudes, sample, total, k)
        for k in counts
    )
