"""Running a recipe: task by task, from the sources' factors to what is written and certified of each module."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loreg.adapters.tensors import ModuleToWrite
from loreg.algebra.factors import Factors, Stack
from loreg.algebra.spectrum import Spectrum
from loreg.entities import Progress
from loreg.errors import MergeError
from loreg.merging import certificate
from loreg.merging.batch import Batch
from loreg.merging.calibration import CalibratedDeltas, whiten
from loreg.merging.certificate import CertifiedModule
from loreg.merging.device import explain_out_of_memory
from loreg.merging.method import Method
from loreg.merging.parallel import parallel_map
from loreg.merging.ranks import ModuleCost, spend_budget
from loreg.merging.recipe import Recipe
from loreg.merging.sources import OpenSource
from loreg.merging.work_items import WorkItem, plan_work


@dataclass(frozen=True)
class MergedModule:
    """One merged module: what is written of it, and its certificate."""

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

    def run(self) -> list[MergedModule]:
        """Every module, merged. Raises MergeError if the device has no room."""
        with explain_out_of_memory(self.device):
            tasks = plan_work(self.sources, self.device)
            survey = self._calibrate(tasks)
            ranks = self._within_budget(tasks, survey) if self.recipe.rank.kind == "budget" else {}
            total = sum(len(task.modules) for task in tasks)
            done: list[MergedModule] = []
            for some in parallel_map(lambda task: self._merge(task, survey, ranks), tasks, self.device):
                done += some
                self.progress("merging", len(done), total)
            return done

    def _calibrate(self, tasks: Sequence[WorkItem]) -> Any:
        """What the method finds out of all modules before it merges one."""
        survey = self.method.calibrate
        if survey is None:
            return None
        batches = lambda: (self._load(task) for task in tasks)  # noqa: E731
        with self._explaining(tasks):
            (found,) = parallel_map(lambda values: survey(batches, values), [self.recipe.parameters], self.device)
        return found

    def _merge(self, task: WorkItem, survey: Any, ranks: Mapping[str, int]) -> list[MergedModule]:
        batch = self._load(task, survey)
        spectrum = self._spectrum(task, batch)
        data = self._on_data(batch)
        if self.recipe.rank.kind == "budget":
            budgeted = [ranks[name] for name in task.modules for _ in range(task.shape.matrices)]
            chosen = torch.tensor(budgeted, device=self.device)
        else:
            chosen = self.recipe.rank.choose(data.spectrum if data else spectrum)
        # The matrices of one module are written at one rank: the largest that one of them needs.
        each = task.shape.matrices
        chosen = (
            chosen.reshape(-1, each).amax(-1).repeat_interleave(each).clamp(max=min(task.shape.out, task.shape.in_))
        )
        best = data.truncate(chosen) if data else spectrum
        kept = best.truncate(chosen)
        stored = Factors(*(x.to(task.dtype, memory_format=torch.contiguous_format) for x in (kept.b, kept.a)))
        _refuse_overflow(stored, task)
        measured = certificate.certify(
            batch.modules,
            spectrum,
            chosen,
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
            _difference(spectrum, best) if data else spectrum.lost(chosen),
        )
        b, a = stored.b.cpu(), stored.a.cpu()
        done = []
        for i, (name, rank) in enumerate(zip(task.modules, chosen[::each].tolist(), strict=True)):
            span = slice(i * each, (i + 1) * each)
            factors = Factors(b[span, :, :rank].contiguous(), a[span, :rank].contiguous())
            written = ModuleToWrite(task.shape, factors, self._bias(name, task))
            figures = measured[span]
            done.append(MergedModule(name, written, figures[0] if each == 1 else certificate.aggregate(name, figures)))
        return done

    def _load(self, task: WorkItem, survey: Any = None) -> Batch:
        form, each, rank = task.shape, task.shape.matrices, sum(task.ranks)
        n = len(task.modules) * each
        b = torch.empty(n, form.out, rank, dtype=torch.float64, device=self.device)
        a = torch.empty(n, rank, form.in_, dtype=torch.float64, device=self.device)
        stack = Stack(b, a, task.ranks)
        for position, place in zip(task.positions, stack.sources(), strict=True):
            for i, module in enumerate(task.modules):
                span = slice(i * each, (i + 1) * each)
                self.sources[position].copy_factors(module, Factors(place.b[span], place.a[span]))
        # Comparing entries with a cut would drop a NaN without a word; decompositions fail at it by themselves.
        if self.method.full_rank and not (b.sum() + a.sum()).isfinite():
            self._refuse_what_is_not_finite(task)
        # Each matrix of a module has a name of its own: random draws are a function of it.
        names = [f"{name}[{e}]" if each > 1 else name for name in task.modules for e in range(each)]
        weights = [[self.recipe.weights(name)[t] for t in task.positions] for name in task.modules for _ in range(each)]
        return Batch(
            stack,
            torch.tensor(weights, dtype=torch.float64, device=self.device),
            task.positions,
            tuple(self.sources[t].input.digest for t in task.positions),
            tuple(names),
            self.recipe.rank.most,
            survey,
        )

    def _refuse_what_is_not_finite(self, task: WorkItem) -> None:
        for module, position in itertools.product(task.modules, task.positions):
            self.sources[position].refuse_what_is_not_finite(module)

    @contextlib.contextmanager
    def _explaining(self, tasks: Sequence[WorkItem]) -> Iterator[None]:
        """Raise MergeError, saying what is not finite, where LAPACK was given infinity or NaN in the block."""
        try:
            yield
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            for task in tasks:
                self._refuse_what_is_not_finite(task)
            raise _too_large(tasks[0]) from None

    def _spectrum(self, task: WorkItem, batch: Batch) -> Spectrum:
        with self._explaining([task]):
            spectrum = self.method.merge(batch, self.recipe.parameters).scaled(self.recipe.scale)
        if not spectrum.energy.isfinite().all():
            self._refuse_what_is_not_finite(task)
            raise _too_large(task)
        return spectrum

    def _on_data(self, batch: Batch) -> CalibratedDeltas | None:
        if self.moments is None:
            return None
        (source,) = self.sources
        # The factors that are framed here carry √scale, and so does what they see.
        each = [source.adapter.scale(name) * self.moments[name].double() for name in batch.modules]
        return whiten(batch.framed, torch.stack(each).to(self.device))

    def _for_ranks(self, task: WorkItem, survey: Any) -> Tensor:
        """The squares of the singular values that a budget looks at, (modules, p)."""
        batch = self._load(task, survey)
        data = self._on_data(batch)
        spectrum = data.spectrum if data else self._spectrum(task, batch)
        return spectrum.s.square().reshape(len(task.modules), task.shape.matrices, -1).sum(1)

    def _within_budget(self, tasks: Sequence[WorkItem], survey: Any) -> dict[str, int]:
        """The ranks that a budget allows: every spectrum first, then the ranks, then the factors."""
        names: list[str] = []
        costs: list[ModuleCost] = []
        squares = parallel_map(lambda task: self._for_ranks(task, survey), tasks, self.device)
        for task, of_task in zip(tasks, squares, strict=True):
            names += task.modules
            each = task.shape.matrices * (task.shape.out + task.shape.in_)
            costs += [ModuleCost(values, each) for values in of_task.tolist()]
        ranks = spend_budget(int(self.recipe.rank.value), costs)
        return dict(zip(names, ranks, strict=True))

    def _bias(self, module: str, task: WorkItem) -> Tensor | None:
        """``lora_bias``: the weighted sum of the sources' biases, which lie beside the factors' product."""
        weights = self.recipe.weights(module)
        biases = [
            self.recipe.scale * weights[t] * self.sources[t].adapter.scale(module) * bias.double()
            for t in task.positions
            if (bias := self.sources[t].adapter.bias(module)) is not None
        ]
        return sum(biases[1:], biases[0]).to(task.dtype) if biases else None


def _difference(whole: Spectrum, part: Spectrum) -> Tensor:
    """``‖whole − part‖²`` (n), both in the same frames."""
    rebuilt = [(x.u * x.s.unsqueeze(-2)) @ x.v.mT for x in (whole, part)]
    return (rebuilt[0] - rebuilt[1]).square().sum((-2, -1))


def _too_large(task: WorkItem) -> MergeError:
    """What the sources came to, each of them finite."""
    return MergeError(f"the merged delta of {task.modules[0]} does not fit into float64", hint="use smaller weights")


def _refuse_overflow(stored: Factors, task: WorkItem) -> None:
    for tensor in (stored.b, stored.a):
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise MergeError(
                f"the merged factors of {task.modules[0]} do not fit into {task.dtype}", hint="use smaller weights"
            )
