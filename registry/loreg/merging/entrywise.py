"""Merging entry by entry, as TIES, DARE, DELLA and Breadcrumbs do.

On the dense deltas Δₜ (out, in), with weights wₜ, TIES (Yadav et al. 2023, arXiv 2306.01708) is three lines::

    kept[t] = where(abs(Δ[t]) >= kth_largest(abs(Δ[t]), k), Δ[t], 0)                    # trim
    sign    = where(sum(w[t] * kept[t]) >= 0, 1, -1)                                     # elect sign
    merged  = sum(w[t] * kept[t] where it has that sign) / sum(abs(w[t]) of the same)    # disjoint merge

The others trim by another rule of ``pruning``, and may sum instead of electing. Here the deltas are made block by
block (``tiled_delta``), and of the result its largest singular values are found by passing over its rows again
(``algebra.sketch``). The same code works in the coordinates of a shared basis, for there too a delta is a product of
two thin factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loreg.algebra.sketch import randomized_svd
from loreg.algebra.spectrum import Spectrum, zero_out_rounding
from loreg.merging.batch import Batch
from loreg.merging.method import Values
from loreg.merging.pruning import PruneRule
from loreg.merging.sign_election import elect_sign, merge_entries
from loreg.merging.thresholds import find_thresholds
from loreg.merging.tiled_delta import TiledDelta, Views, tile_deltas


@dataclass(frozen=True)
class EntrywiseMerge:
    """A method's ``merge``: prune the entries of each source under a view by a rule, then sum them or elect signs."""

    views: Views
    rule: PruneRule

    def __call__(self, batch: Batch, values: Values) -> Spectrum:
        """Return the largest singular values of the n merged deltas: ``batch.rank`` of each and a few more."""
        modules = tile_deltas(batch, values, self.views)
        spectra = [
            self._merge_module(self._with_thresholds(module, batch), weights, batch.rank)
            for module, weights in zip(modules, batch.weights, strict=True)
        ]
        u, s, v, energy = (torch.stack(column) for column in zip(*spectra, strict=True))
        view, shape = modules[0].view, modules[0].shape
        return Spectrum(
            None if view.left is None else batch.framed.left,
            None if view.right is None else batch.framed.right,
            u,
            zero_out_rounding(s, 0.0, max(batch.shape)),
            v,
            energy,
            complete=s.shape[-1] >= min(shape),
        )

    def _with_thresholds(self, module: TiledDelta, batch: Batch) -> TiledDelta:
        """Give a module the thresholds of the calibration, or its own where there was none."""
        if batch.thresholds is not None:
            thresholds = [batch.thresholds[position] for position in batch.positions]
        else:
            thresholds = [find_thresholds([(module, t)], module.values, self.rule) for t in range(len(batch.positions))]
        return replace(module, thresholds=thresholds)

    def _merge_module(
        self, module: TiledDelta, weights: Tensor, rank: int | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return u, s, v and energy of one merged delta, in the frames of the batch."""
        values, view = module.values, module.view
        weights = weights.to(view.parts[0].b)
        # rescale
        if values.get("rescale") == "l1":
            weights = weights * _l1_ratio(module, self.rule)
        if values.get("sign") != "unweighted":
            module = module.weighted(weights)
        # trim, elect sign, disjoint merge
        tie = _majority(module, self.rule) if values.get("tie") == "majority" else 1.0
        merged = MergedDelta(module, weights, self.rule, tie)
        # truncate
        held = merged.whole() if merged.can_be_held else None
        tiles = merged.tiles if held is None else lambda: [(0, held)]
        u, s, v, energy = randomized_svd(tiles, module.shape, rank or min(module.shape), weights.device)
        return u if view.left is None else view.left @ u, s, v if view.right is None else view.right @ v, energy


@dataclass(frozen=True)
class MergedDelta:
    """The merged delta of one module, made from its pruned blocks at every call.

    ``weights`` (T) are multiplied into the entries of ``module`` already, unless signs are elected before weighting;
    ``tie`` is the sign that wins where entries cancel.
    """

    module: TiledDelta
    weights: Tensor
    rule: PruneRule
    tie: Tensor | float

    @property
    def can_be_held(self) -> bool:
        """Whether the matrix is small enough to be held instead of made again at every pass."""
        rows, columns = self.module.shape
        return rows * columns * self.weights.element_size() <= self.module.tiling.max_held_bytes

    def whole(self) -> Tensor:
        """Return the merged delta (rows, columns)."""
        merged = self.weights.new_empty(self.module.shape)
        for rows, columns, entries in self._blocks():
            merged[rows, columns] = entries
        return merged

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the merged delta in tiles of whole rows, each with its first row."""
        width = self.module.shape[1]
        tile = self.weights.new_empty(0, width)
        for rows, columns, entries in self._blocks():
            if columns.start == 0:
                tile = self.weights.new_empty(rows.stop - rows.start, width)
            tile[:, columns] = entries
            if columns.stop == width:
                yield rows.start, tile

    def _blocks(self) -> Iterable[tuple[slice, slice, Tensor]]:
        for rows, columns, kept in self.module.pruned_blocks(self.rule):  # trim
            yield rows, columns, merge_entries(kept, self.weights, self.module.values, self.tie)


def _l1_ratio(module: TiledDelta, rule: PruneRule) -> Tensor:
    """Return ``‖Δₜ‖₁ / ‖keptₜ‖₁`` of every source, (T): as weights they keep the sum of magnitudes."""
    before = torch.stack(
        [torch.stack([magnitudes.sum() for magnitudes in module.magnitudes(t)]).sum() for t in range(len(module.keys))]
    )
    after = torch.stack([kept.abs_().sum((-2, -1)) for _, _, kept in module.pruned_blocks(rule)]).sum(0)
    return torch.where(after > 0, before / after.clamp_min(1e-300), 1.0)


def _majority(module: TiledDelta, rule: PruneRule) -> Tensor:
    """Return the sign, ±1, that most entries of the whole module elect."""
    elect = module.values["elect"]
    balance = [elect_sign(kept, elect, 0.0).sum() for _, _, kept in module.pruned_blocks(rule)]
    return torch.where(torch.stack(balance).sum() < 0, -1.0, 1.0)
