"""Merging entry by entry: some entries of each delta are dropped, the rest is summed, or averaged by elected sign.

The deltas are made block by block and forgotten. What is written of the result is its largest singular values, found
by passing over its rows again (``algebra.sketch``). The same code looks at deltas in the open (out × in) and in the
coordinates of a shared basis (a :class:`View`): there as here a delta is a product of two thin factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loreg.algebra import counter_rng
from loreg.algebra.factors import Factors
from loreg.algebra.order_statistics import kth_largest
from loreg.algebra.sketch import largest_singular
from loreg.algebra.spectrum import Spectrum, without_rounding
from loreg.merging.batch import Batch, Batches
from loreg.merging.method import Values
from loreg.merging.pruning import PruneRule
from loreg.merging.sign_election import elect_sign, fuse


@dataclass(frozen=True)
class Tiling:
    """How much is looked at at once: ``block`` entries of all sources together, ``rows`` of them where the columns
    are cut too. A merged matrix of more than ``held`` bytes is made again, row by row, at every pass."""

    block: int
    rows: int
    editable: int


_ON_CPU = Tiling(1 << 19, 256, 1 << 28)  # 4 MiB, near what caches hold
_ON_GPU = Tiling(1 << 25, 2048, 1 << 30)  # 256 MiB: longer work than it takes to start it
_SAMPLE = 1 << 14  # entries drawn to bracket an order statistic


@dataclass(frozen=True)
class DeltaView:
    """The deltas of one module, as a method looks at them: source t has the entries ``parts[t].b @ parts[t].a``.

    ``left (m, rows)`` and ``right (m', columns)`` take the merged entries back into the frames of the batch; None
    where the entries are those of the delta itself.
    """

    parts: Sequence[Factors]
    left: Tensor | None = None
    right: Tensor | None = None


Views = Callable[[Batch, Values], list[DeltaView]]


def dense_view(batch: Batch, values: Values) -> list[DeltaView]:
    """Every entry of the dense deltas."""
    sources = batch.stack.sources()
    return [DeltaView([Factors(part.b[i], part.a[i]) for part in sources]) for i in range(len(batch.modules))]


@dataclass(frozen=True)
class TiledDelta:
    """One module under a view, with what decides which of its entries are kept."""

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
        """How much is looked at at once where the entries are."""
        return _ON_GPU if self.view.parts[0].b.is_cuda else _ON_CPU

    def blocks(self, sources: int, whole_rows: bool = False) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every block, all columns of some rows before the next rows."""
        (rows, columns), at_once = self.shape, self.tiling
        height = max(1, at_once.block // (sources * columns)) if whole_rows else at_once.rows
        width = columns if whole_rows else max(1, at_once.block // (sources * height))
        for top in range(0, rows, height):
            for left in range(0, columns, width):
                yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))

    def block_of(self, t: int, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """The entries of source t in a block."""
        part = self.view.parts[t]
        return torch.mm(part.b[rows], part.a[:, columns], out=out)

    def pruned_blocks(self, rule: PruneRule) -> Iterator[tuple[slice, slice, Tensor]]:
        """Every block with the entries that are kept, (T, rows, columns), for the caller to change."""
        count = len(self.view.parts)
        for rows, columns in self.blocks(count, rule.whole_rows):
            shape = (count, rows.stop - rows.start, columns.stop - columns.start)
            entries = self.view.parts[0].b.new_empty(shape)
            for t in range(count):
                self.block_of(t, rows, columns, out=entries[t])
                rule.prune(self, entries[t], t, rows.start, columns.start)
            yield rows, columns, entries


#: One source's modules with its place in each; again at every call, so that none has to be held.
OfSource = Callable[[], Iterable[tuple[TiledDelta, int]]]


def merge_entrywise(views: Views, rule: PruneRule) -> Callable[[Batch, Values], Spectrum]:
    """A method's ``merge``: drop entries of each source under a view, then fuse the sources."""

    def merge(batch: Batch, values: Values) -> Spectrum:
        spectra = []
        for i, module in enumerate(_open(batch, values, views)):
            if batch.thresholds is not None:
                cuts = [batch.thresholds[position] for position in batch.positions]
            else:
                cuts = [_thresholds(_alone(module, t), values, rule) for t in range(len(batch.positions))]
            spectra.append(_merge_module(replace(module, thresholds=cuts), batch.weights[i], rule, batch.rank))
        u, s, v, energy = (torch.stack(column) for column in zip(*spectra, strict=True))
        view = module.view
        return Spectrum(
            None if view.left is None else batch.framed.left,
            None if view.right is None else batch.framed.right,
            u,
            without_rounding(s, 0.0, max(batch.shape)),
            v,
            energy,
            complete=s.shape[-1] >= min(module.shape),
        )

    return merge


def calibrate_thresholds(
    views: Views, rule: PruneRule
) -> Callable[[Batches, Values], dict[int, tuple[Tensor, ...]] | None]:
    """A method's ``survey``: with ``threshold = global``, each source's entries compete over all of its modules."""

    def survey(batches: Batches, values: Values) -> dict[int, tuple[Tensor, ...]] | None:
        if values["threshold"] != "global":
            return None

        def of_source(position: int) -> OfSource:
            def modules() -> Iterator[tuple[TiledDelta, int]]:
                for batch in batches():
                    if position in batch.positions:
                        t = batch.positions.index(position)
                        yield from ((module, t) for module in _open(batch, values, views))

            return modules

        positions = {position for batch in batches() for position in batch.positions}
        return {position: _thresholds(of_source(position), values, rule) for position in sorted(positions)}

    return survey


def _open(batch: Batch, values: Values, views: Views) -> list[TiledDelta]:
    seed = values.get("seed", 0)
    dtype = torch.float32 if values.get("precision") == "single" else torch.float64
    opened = []
    for module, view in zip(batch.modules, views(batch, values), strict=True):
        parts = [Factors(part.b.to(dtype), part.a.to(dtype)) for part in view.parts]
        keys = tuple(counter_rng.derive_key(digest, module, seed) for digest in batch.digests)
        opened.append(TiledDelta(replace(view, parts=parts), keys, values))
    return opened


def _alone(module: TiledDelta, t: int) -> OfSource:
    return lambda: [(module, t)]


def _merge_module(
    module: TiledDelta, weights: Tensor, rule: PruneRule, rank: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values, view = module.values, module.view
    weights = weights.to(view.parts[0].b)
    if values.get("rescale") == "l1":
        weights = weights * _rescaling(module, rule)
    if values.get("sign") != "unweighted":
        module = _weighted(module, weights)
    tie: Any = 1.0
    if values.get("tie") == "majority":
        balance = [elect_sign(kept, values["elect"], 0.0).sum() for _, _, kept in module.pruned_blocks(rule)]
        tie = torch.where(torch.stack(balance).sum() < 0, -1.0, 1.0)

    height, width = module.shape
    editable = height * width * weights.element_size() <= module.tiling.editable

    def merged() -> Iterator[tuple[int, Tensor]]:
        first, tile = 0, weights.new_empty(0, width)
        for rows, columns, kept in module.pruned_blocks(rule):
            if columns.start == 0 and (rows.start == 0 or not editable):
                first, tile = rows.start, weights.new_empty(height if editable else rows.stop - rows.start, width)
            tile[rows.start - first : rows.stop - first, columns] = fuse(kept, weights, values, tie)
            if columns.stop == width and (rows.stop == height or not editable):
                yield first, tile

    tiles: Callable[[], Iterable[tuple[int, Tensor]]] = merged
    if editable:
        whole = list(merged())
        tiles = lambda: whole  # noqa: E731
    u, s, v, energy = largest_singular(tiles, module.shape, rank or min(module.shape), weights.device)
    return u if view.left is None else view.left @ u, s, v if view.right is None else view.right @ v, energy


def _weighted(module: TiledDelta, weights: Tensor) -> TiledDelta:
    """The weights multiplied into the entries, and into the cuts that they are compared with."""
    parts = [Factors(part.b * weight, part.a) for part, weight in zip(module.view.parts, weights, strict=True)]
    cuts = [
        tuple(torch.where(weight == 0, 0.0, cut * weight.abs()) for cut in of_source)
        for of_source, weight in zip(module.thresholds, weights, strict=True)
    ]
    return replace(module, view=replace(module.view, parts=parts), thresholds=cuts)


def _thresholds(modules: OfSource, values: Values, rule: PruneRule) -> tuple[Tensor, ...]:
    """The magnitudes that bound the entries of a source that are kept; over one module, or over all together."""
    sizes = [module.shape[0] * module.shape[1] for module, _ in modules()]
    total = sum(sizes)
    wanted = rule.counts(values, total)
    if not wanted:
        return ()

    def magnitudes() -> Iterator[Tensor]:
        for module, t in modules():
            yield from (module.block_of(t, rows, columns).abs_() for rows, columns in module.blocks(1))

    drawn = [_sample(m, t, -(-_SAMPLE * size // total)) for (m, t), size in zip(modules(), sizes, strict=True)]
    sample = torch.cat(drawn)
    all_or_none = {0: torch.inf, total: 0.0}
    return tuple(
        sample.new_tensor(all_or_none[k]) if k in all_or_none else kth_largest(magnitudes, sample, total, k)
        for k in wanted
    )


def _sample(module: TiledDelta, t: int, count: int) -> Tensor:
    """Magnitudes of entries drawn at random, without making the delta."""
    part = module.view.parts[t]
    generator = torch.Generator().manual_seed(module.keys[t] >> 1)
    row, column = (torch.randint(size, (count,), generator=generator).to(part.b.device) for size in part.shape)
    return (part.b[row] * part.a.T.contiguous()[column]).sum(-1).abs()


def _rescaling(module: TiledDelta, rule: PruneRule) -> Tensor:
    """``‖Δₜ‖₁ / ‖kept‖₁`` of every source, (T): keeps the sum of magnitudes."""
    before = torch.stack(
        [
            torch.stack([module.block_of(t, *block).abs_().sum() for block in module.blocks(1)]).sum()
            for t in range(len(module.keys))
        ]
    )
    after = torch.stack([kept.abs_().sum((-2, -1)) for _, _, kept in module.pruned_blocks(rule)]).sum(0)
    return torch.where(after > 0, before / after.clamp_min(1e-300), 1.0)
