"""Run a recipe, one work item after another: from the sources' factors to what is written and certified of a module."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.adapters.tensors import ModuleToWrite
from loreg.algebra.factors import Factors, Stack
from loreg.algebra.spectrum import Spectrum
from loreg.entities import Progress, RankRuleKind
from loreg.errors import MergeError
from loreg.merging.batch import Batch, Thresholds
from loreg.merging.calibration import CalibratedDeltas, whiten
from loreg.merging.certificate import CertifiedModule, aggregate
from loreg.merging.certify import certify
from loreg.merging.device import explain_out_of_memory
from loreg.merging.method import Method
from loreg.merging.parallel import parallel_map
from loreg.merging.ranks import ModuleCost, spend_budget
from loreg.merging.recipe import Recipe
from loreg.merging.sources import OpenSource
from loreg.merging.work_items import WorkItem, plan_work


@dataclass(frozen=True)
class MergedModule:
    """One merged module: what is written of it, and how it is certified."""

    name: str
    module: ModuleToWrite
    certified: CertifiedModule


@dataclass(frozen=True)
class MergeEngine:
    """One execution of a recipe over open sources."""

    sources: Sequence[OpenSource]
    recipe: Recipe
    method: Method
    device: torch.device
    moments: Mapping[str, Tensor] | None
    progress: Progress
    cross_moments: Mapping[str, Tensor] | None = None

    def run(self) -> list[MergedModule]:
        """Merge every module. Raises MergeError if a number is not finite or the device runs out of memory."""
        with explain_out_of_memory(self.device):
            items = plan_work(self.sources, self.device)
            thresholds = self._calibrate(items)
            budgeted = self._spend_budget(items, thresholds) if self.recipe.rank.kind == RankRuleKind.BUDGET else None
            total = sum(len(item.modules) for item in items)
            merged: list[MergedModule] = []
            for modules in parallel_map(lambda item: self._merge(item, thresholds, budgeted), items, self.device):
                merged += modules
                self.progress("merging", len(merged), total)
            return merged

    def _calibrate(self, items: Sequence[WorkItem]) -> Thresholds | None:
        """Let the method look at all modules before it merges one."""
        calibrate = self.method.calibrate
        if calibrate is None:
            return None
        batches = lambda: (self._load(item) for item in items)  # noqa: E731
        with self._explain_linalg_errors(items):
            (thresholds,) = parallel_map(
                lambda values: calibrate(batches, values), [self.recipe.parameters], self.device
            )
        return thresholds

    def _merge(
        self, item: WorkItem, thresholds: Thresholds | None, budgeted: Mapping[str, int] | None
    ) -> list[MergedModule]:
        """Merge, truncate and certify the modules of a work item; ``budgeted`` has the ranks that a budget allows."""
        # merge
        batch = self._load(item, thresholds)
        spectrum = self._spectrum(item, batch)
        calibrated = self._calibrated(batch)
        # truncate
        ranks = self._choose_ranks(item, calibrated.spectrum if calibrated else spectrum, budgeted)
        best = calibrated.truncate(ranks) if calibrated else spectrum
        kept = best.truncate(ranks)
        stored = Factors(*(x.to(item.dtype, memory_format=torch.contiguous_format) for x in (kept.b, kept.a)))
        _refuse_overflow(stored, item)
        # certify
        certified = certify(
            batch.modules,
            spectrum,
            ranks,
            best,
            kept,
            stored,
            Stack(
                batch.framed.left.r if spectrum.left else batch.stack.b,
                batch.framed.right.r.mT if spectrum.right else batch.stack.a,
                batch.stack.ranks,
            ),
            batch.positions,
            len(self.sources),
            _difference(spectrum, best) if calibrated else spectrum.truncation_error(ranks),
        )
        b, a, matrices = stored.b.cpu(), stored.a.cpu(), item.shape.matrices
        merged = []
        for i, (name, rank) in enumerate(zip(item.modules, ranks[::matrices].tolist(), strict=True)):
            span = slice(i * matrices, (i + 1) * matrices)
            factors = Factors(b[span, :, :rank].contiguous(), a[span, :rank].contiguous())
            module = ModuleToWrite(item.shape, factors, self._bias(name, item))
            whole = certified[i] if matrices == 1 else aggregate(name, certified[span])
            merged.append(MergedModule(name, module, whole))
        return merged

    def _choose_ranks(self, item: WorkItem, spectrum: Spectrum, budgeted: Mapping[str, int] | None) -> Tensor:
        """Return the rank of each matrix, (n); those of one module are written at one: the largest that one needs."""
        matrices = item.shape.matrices
        if budgeted is not None:
            ranks = torch.tensor([budgeted[name] for name in item.modules for _ in range(matrices)], device=self.device)
        else:
            ranks = self.recipe.rank.choose(spectrum)
        largest = ranks.reshape(-1, matrices).amax(-1).repeat_interleave(matrices)
        return largest.clamp(max=min(item.shape.out, item.shape.in_))

    def _load(self, item: WorkItem, thresholds: Thresholds | None = None) -> Batch:
        shape, matrices, rank = item.shape, item.shape.matrices, sum(item.ranks)
        n = len(item.modules) * matrices
        b = torch.empty(n, shape.out, rank, dtype=torch.float64, device=self.device)
        a = torch.empty(n, rank, shape.in_, dtype=torch.float64, device=self.device)
        stack = Stack(b, a, item.ranks)
        for position, target in zip(item.positions, stack.sources(), strict=True):
            for i, module in enumerate(item.modules):
                span = slice(i * matrices, (i + 1) * matrices)
                self.sources[position].copy_factors(module, Factors(target.b[span], target.a[span]))
        # Comparing entries with a threshold would drop a NaN without a word; decompositions fail at it by themselves.
        if self.method.full_rank and not (b.sum() + a.sum()).isfinite():
            self._refuse_non_finite(item)
        # Each matrix of a module has a name of its own: random draws are a function of it.
        names = [f"{name}[{e}]" if matrices > 1 else name for name in item.modules for e in range(matrices)]
        weights = [
            [self.recipe.weights(name)[t] for t in item.positions] for name in item.modules for _ in range(matrices)
        ]
        return Batch(
            stack,
            torch.tensor(weights, dtype=torch.float64, device=self.device),
            item.positions,
            tuple(self.sources[t].input.digest for t in item.positions),
            tuple(names),
            self.recipe.rank.max_rank,
            thresholds,
            self._cross_moments(item),
        )

    def _cross_moments(self, item: WorkItem) -> Tensor | None:
        """Return the moments of each module and source, (n, T, k, k); None without data, or for one source alone."""
        if self.cross_moments is None or len(item.positions) == 1:
            return None
        return torch.stack([self.cross_moments[name] for name in item.modules]).to(self.device)

    def _refuse_non_finite(self, item: WorkItem) -> None:
        for module, position in itertools.product(item.modules, item.positions):
            self.sources[position].refuse_non_finite(module)

    @contextlib.contextmanager
    def _explain_linalg_errors(self, items: Sequence[WorkItem]) -> Iterator[None]:
        """Raise MergeError, saying what is not finite, if LAPACK is given infinity or NaN in the block."""
        try:
            yield
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            for item in items:
                self._refuse_non_finite(item)
            raise _too_large(items[0]) from error

    def _spectrum(self, item: WorkItem, batch: Batch) -> Spectrum:
        with self._explain_linalg_errors([item]):
            spectrum = self.method.merge(batch, self.recipe.parameters).scaled(self.recipe.scale)
        if not spectrum.energy.isfinite().all():
            self._refuse_non_finite(item)
            raise _too_large(item)
        return spectrum

    def _calibrated(self, batch: Batch) -> CalibratedDeltas | None:
        """Return the deltas in the norm of the calibration data; None without any."""
        if self.moments is None:
            return None
        (source,) = self.sources
        # The factors that are framed here carry √scale, and so does a @ x.
        moments = [source.adapter.scale(name) * self.moments[name].double() for name in batch.modules]
        return whiten(batch.framed, torch.stack(moments).to(self.device))

    def _squares(self, item: WorkItem, thresholds: Thresholds | None) -> Tensor:
        """Return the squares of the singular values that a budget looks at, (modules, p)."""
        batch = self._load(item, thresholds)
        calibrated = self._calibrated(batch)
        spectrum = calibrated.spectrum if calibrated else self._spectrum(item, batch)
        return spectrum.s.square().reshape(len(item.modules), item.shape.matrices, -1).sum(1)

    def _spend_budget(self, items: Sequence[WorkItem], thresholds: Thresholds | None) -> dict[str, int]:
        """Choose the rank of each module within the budget, from the spectra of all; factors are made afterwards."""
        names: list[str] = []
        costs: list[ModuleCost] = []
        squares = parallel_map(lambda item: self._squares(item, thresholds), items, self.device)
        for item, squares_of_modules in zip(items, squares, strict=True):
            names += item.modules
            parameters = item.shape.matrices * (item.shape.out + item.shape.in_)
            costs += [ModuleCost(values, parameters) for values in squares_of_modules.tolist()]
        ranks = spend_budget(int(self.recipe.rank.value), costs)
        return dict(zip(names, ranks, strict=True))

    def _bias(self, module: str, item: WorkItem) -> Tensor | None:
        """Return the weighted sum of the sources' biases (``lora_bias``), which are added to the factors' product."""
        weights = self.recipe.weights(module)
        biases = [
            self.recipe.scale * weights[t] * self.sources[t].adapter.scale(module) * bias.double()
            for t in item.positions
            if (bias := self.sources[t].adapter.bias(module)) is not None
        ]
        return sum(biases[1:], biases[0]).to(item.dtype) if biases else None


def _difference(whole: Spectrum, part: Spectrum) -> Tensor:
    """Return ``‖whole − part‖²`` (n), both in the same frames."""
    cores = [(x.u * x.s.unsqueeze(-2)) @ x.v.mT for x in (whole, part)]
    return (cores[0] - cores[1]).square().sum((-2, -1))


def _too_large(item: WorkItem) -> MergeError:
    """Say that finite sources came to a delta that is not."""
    return MergeError(f"the merged delta of {item.modules[0]} does not fit into float64", hint="use smaller weights")


def _refuse_overflow(stored: Factors, item: WorkItem) -> None:
    for tensor in (stored.b, stored.a):
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise MergeError(
                f"the merged factors of {item.modules[0]} do not fit into {item.dtype}", hint="use smaller weights"
            )
