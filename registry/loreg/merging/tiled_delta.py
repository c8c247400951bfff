"""Dense deltas, block by block: each block is made from the factors, used and forgotten, so that none is held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loreg.algebra import counter_rng
from loreg.algebra.factors import Factors
from loreg.merging.batch import Batch
from loreg.merging.method import Values
from loreg.merging.pruning import Block, PruneRule


@dataclass(frozen=True)
class Tiling:
    """How much is made at once: blocks of ``block_entries`` entries of all sources together, ``block_rows`` high where
    the columns are cut too. A merged matrix of more than ``max_held_bytes`` is made again, row by row, at every pass.
    """

    block_entries: int
    block_rows: int
    max_held_bytes: int


_ON_CPU = Tiling(1 << 19, 256, 1 << 28)  # 4 MiB, near what caches hold
_ON_GPU = Tiling(1 << 25, 2048, 1 << 30)  # 256 MiB: longer work than it takes to start it


@dataclass(frozen=True)
class DeltaView:
    """The deltas of one module in the coordinates that a method works in: source t has ``parts[t].b @ parts[t].a``.

    ``left (m, rows)`` and ``right (m', columns)`` take the merged entries back into the frames of the batch; None
    where the entries are those of the delta itself.
    """

    parts: Sequence[Factors]
    left: Tensor | None = None
    right: Tensor | None = None


#: Makes the view of each module in a batch.
Views = Callable[[Batch, Values], list[DeltaView]]


def dense_view(batch: Batch, values: Values) -> list[DeltaView]:
    """View each module as its dense deltas (out, in)."""
    sources = batch.stack.sources()
    return [DeltaView([Factors(part.b[i], part.a[i]) for part in sources]) for i in range(len(batch.modules))]


@dataclass(frozen=True)
class TiledDelta:
    """The deltas of one module under a view, and what decides which entries of each are kept.

    Of source t, ``keys[t]`` seeds the random draws, and ``thresholds[t]`` bounds the magnitudes that are kept.
    """

    view: DeltaView
    keys: tuple[int, ...]
    values: Values
    thresholds: Sequence[tuple[Tensor, ...]] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the view."""
        return self.view.parts[0].shape

    @property
    def tiling(self) -> Tiling:
        """How much is made at once on the device where the factors are."""
        return _ON_GPU if self.view.parts[0].b.is_cuda else _ON_CPU

    def blocks(self, sources: int, whole_rows: bool = False) -> Iterator[tuple[slice, slice]]:
        """Yield rows and columns of blocks of ``sources`` deltas at once: all columns of some rows, then the next."""
        (rows, columns), tiling = self.shape, self.tiling
        height = max(1, tiling.block_entries // (sources * columns)) if whole_rows else tiling.block_rows
        width = columns if whole_rows else max(1, tiling.block_entries // (sources * height))
        for top in range(0, rows, height):
            for left in range(0, columns, width):
                yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))

    def entries(self, t: int, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """Return the entries of source t in a block."""
        part = self.view.parts[t]
        return torch.mm(part.b[rows], part.a[:, columns], out=out)

    def magnitudes(self, t: int) -> Iterator[Tensor]:
        """Yield the magnitudes of all entries of source t, block by block."""
        for rows, columns in self.blocks(1):
            yield self.entries(t, rows, columns).abs_()

    def sample_magnitudes(self, t: int, count: int) -> Tensor:
        """Return the magnitudes (count) of entries of source t, drawn at random, without making the delta."""
        part = self.view.parts[t]
        generator = torch.Generator().manual_seed(self.keys[t] >> 1)
        row, column = (torch.randint(size, (count,), generator=generator).to(part.b.device) for size in part.shape)
        return (part.b[row] * part.a.T.contiguous()[column]).sum(-1).abs()

    def pruned_blocks(self, rule: PruneRule) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield rows, columns and pruned entries (T, rows, columns) of each block, for the caller to change."""
        count = len(self.view.parts)
        for rows, columns in self.blocks(count, rule.whole_rows):
            shape = (count, rows.stop - rows.start, columns.stop - columns.start)
            entries = self.view.parts[0].b.new_empty(shape)
            for t in range(count):
                self.entries(t, rows, columns, out=entries[t])
                thresholds = self.thresholds[t] if self.thresholds else ()
                rule.prune(entries[t], Block(rows.start, columns.start, self.keys[t], thresholds, self.values))
            yield rows, columns, entries

    def weighted(self, weights: Tensor) -> TiledDelta:
        """Multiply ``weights`` (T) into the entries, and their magnitudes into the thresholds."""
        parts = [Factors(part.b * weight, part.a) for part, weight in zip(self.view.parts, weights, strict=True)]
        thresholds = [
            tuple(torch.where(weight == 0, 0.0, threshold * weight.abs()) for threshold in of_source)
            for of_source, weight in zip(self.thresholds, weights, strict=True)
        ]
        return replace(self, view=replace(self.view, parts=parts), thresholds=thresholds)


def tile_deltas(batch: Batch, values: Values, views: Views) -> list[TiledDelta]:
    """See each module of a batch under its view, in the precision that ``values`` ask for, with keys for its draws."""
    seed = values.get("seed", 0)
    dtype = torch.float32 if values.get("precision") == "single" else torch.float64
    deltas = []
    for module, view in zip(batch.modules, views(batch, values), strict=True):
        parts = [Factors(part.b.to(dtype), part.a.to(dtype)) for part in view.parts]
        keys = tuple(counter_rng.derive_key(digest, module, seed) for digest in batch.digests)
        deltas.append(TiledDelta(replace(view, parts=parts), keys, values))
    return deltas
