"""Recipe → adapter and certificate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loreg.adapters.keys import extra_name, plain_extra
from loreg.adapters.tensors import OpenAdapter, Written, WrittenModule, pad
from loreg.algebra.factors import Factors, Stack
from loreg.algebra.spectrum import Spectrum
from loreg.errors import MergeError, UsageError
from loreg.merging import certificate
from loreg.merging.batch import Batch
from loreg.merging.calibration import OnData, on_data, read_moments
from loreg.merging.certificate import Measured
from loreg.merging.compatible import (
    choose_extras,
    fields_of_result,
    refuse_factors_of_whole_modules,
    refuse_what_cannot_be_merged,
)
from loreg.merging.method import Method
from loreg.merging.methods import find_method
from loreg.merging.parallel import side_by_side
from loreg.merging.plan import Task, plan
from loreg.merging.ranks import Costs, RankRule, spend
from loreg.merging.recipe import Recipe
from loreg.merging.sources import Input, Source, conversions, open_sources
from loreg.records import Progress, no_progress


@dataclass(frozen=True)
class Merged:
    """The result: an adapter to write, its certificate as JSON, and the recipe with every choice filled in.

    ``sigmas`` has the known singular values of each merged delta, largest first; ``notes`` are for the person.
    """

    adapter: Written
    certificate: dict[str, Any]
    recipe: Recipe
    sigmas: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]


def execute(
    inputs: Sequence[Input],
    recipe: Recipe,
    *,
    device: str = "cpu",
    calibration: Path | None = None,
    progress: Progress = no_progress,
) -> Merged:
    """Merge ``inputs``, the recipe's sources in order, over the union of their modules.

    A module that only some have still merges. Computed in float64 on ``device``, stored in the widest dtype of the
    inputs. ``calibration`` is a file of second moments (``merging.calibration``) for re-ranking a single source.
    Raises MergeError, naming what stands in the way, and UsageError for a recipe that cannot be.
    """
    layouts, labels = [given.layout for given in inputs], [given.label for given in inputs]
    refuse_what_cannot_be_merged(inputs)
    method = find_method(recipe.method)
    recipe = _completed(recipe, method, inputs)
    with open_sources(inputs, recipe.rank.most or 0) as sources:
        adapters = [source.adapter for source in sources]
        extras = choose_extras(layouts, labels, _same_extras(adapters), recipe.extras)
        whole = {}
        if extras is not None:
            refuse_factors_of_whole_modules(layouts, labels, extras)
            names = {name for source in sources for name in source.modules}
            taken = adapters[extras]
            whole = {extra_name(plain_extra(name), names): taken.extra(name) for name in taken.layout.extras}
        moments = _moments(calibration, sources) if calibration else None
        run = _Run(sources, recipe, method, torch.device(device), moments, progress)
        done = sorted(run.all(), key=lambda module: module.name)
        notes = conversions(sources)
    if recipe.rank.uniform:
        done = _at_one_rank(done)
    biased = {}
    if any(module.written.bias is not None for module in done):
        done, biased = _with_biases(done), {"lora_bias": True}
    modules = {module.name: module.written for module in done}
    return Merged(
        adapter=Written(modules, whole, {**fields_of_result(layouts, extras), **biased}),
        certificate=certificate.to_json([module.measured for module in done], labels),
        recipe=replace(recipe, extras=extras),
        sigmas={module.name: module.measured.sigmas for module in done},
        notes=tuple(notes),
    )


def _completed(recipe: Recipe, method: Method, inputs: Sequence[Input]) -> Recipe:
    """The recipe with the method's defaults filled in. Raises UsageError for what the method cannot do."""
    count = len(inputs)
    if count < method.needs or (method.most is not None and count > method.most):
        expected = f"exactly {method.needs}" if method.most == method.needs else f"{method.needs} or more"
        raise UsageError(
            f"the method {method.name} merges {expected} adapters, not {count}", hint=f"loreg methods {method.name}"
        )
    for given in inputs:
        if method.name != "linear" and any("bias" in module.parts for module in given.layout.modules.values()):
            raise MergeError(
                f"{given.label} cannot be merged by {method.name}: lora_bias is true, and only linear says what a "
                "merged bias is",
                hint="--method linear",
            )
    if method.full_rank and recipe.rank.most is None:
        if recipe.rank.kind != "lossless":
            raise UsageError(
                f"the method {method.name} makes a delta of full rank: its result can only be of a fixed rank",
                hint="merge with --rank N, then loreg rerank",
            )
        every = [module.rank for given in inputs for module in given.layout.modules.values()]
        recipe = replace(recipe, rank=RankRule("fixed", max(every)))
    return replace(recipe, parameters=method.values(recipe.parameters))


@dataclass(frozen=True)
class _Done:
    name: str
    written: WrittenModule
    measured: Measured


@dataclass(frozen=True)
class _Run:
    """One execution of a recipe over open sources."""

    sources: Sequence[Source]
    recipe: Recipe
    method: Method
    device: torch.device
    moments: Mapping[str, Tensor] | None
    progress: Progress

    def all(self) -> list[_Done]:
        """Every module, merged."""
        tasks = plan(self.sources, self.device)
        survey = None
        if self.method.survey:
            survey = self.method.survey(lambda: (self._load(task) for task in tasks), self.recipe.parameters)
        ranks = self._within_budget(tasks, survey) if self.recipe.rank.kind == "budget" else {}
        total = sum(len(task.modules) for task in tasks)
        done: list[_Done] = []
        for some in side_by_side(lambda task: self._merge(task, survey, ranks), tasks, self.device):
            done += some
            self.progress("merging", len(done), total)
        return done

    def _merge(self, task: Task, survey: Any, ranks: Mapping[str, int]) -> list[_Done]:
        batch = self._load(task, survey)
        spectrum = self._spectrum(task, batch)
        data = self._on_data(batch)
        if self.recipe.rank.kind == "budget":
            chosen = torch.tensor([ranks[name] for name in batch.modules], device=self.device)
        else:
            chosen = self.recipe.rank.choose(data.spectrum if data else spectrum)
        # The matrices of one module are written at one rank: the largest that one of them needs.
        each = task.form.matrices
        chosen = chosen.reshape(-1, each).amax(-1).repeat_interleave(each).clamp(max=min(task.form.out, task.form.in_))
        best = data.truncate(chosen) if data else spectrum
        kept = best.truncate(chosen)
        stored = Factors(*(x.to(task.dtype, memory_format=torch.contiguous_format) for x in (kept.b, kept.a)))
        _refuse_overflow(stored, task)
        measured = certificate.measure(
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
        for i, name in enumerate(task.modules):
            span, rank = slice(i * each, (i + 1) * each), int(chosen[i * each])
            factors = Factors(b[span, :, :rank].contiguous(), a[span, :rank].contiguous())
            written = WrittenModule(task.form, factors, self._bias(name, task))
            figures = measured[span]
            done.append(_Done(name, written, figures[0] if each == 1 else certificate.together(name, figures)))
        return done

    def _load(self, task: Task, survey: Any = None) -> Batch:
        form, each, rank = task.form, task.form.matrices, sum(task.ranks)
        n = len(task.modules) * each
        b = torch.empty(n, form.out, rank, dtype=torch.float64, device=self.device)
        a = torch.empty(n, rank, form.in_, dtype=torch.float64, device=self.device)
        stack = Stack(b, a, task.ranks)
        for position, place in zip(task.positions, stack.sources(), strict=True):
            for i, module in enumerate(task.modules):
                span = slice(i * each, (i + 1) * each)
                self.sources[position].put(module, Factors(place.b[span], place.a[span]))
        # Comparing entries with a cut would drop a NaN without a word; decompositions fail at it by themselves.
        if self.method.full_rank and not (b.sum() + a.sum()).isfinite():
            self._refuse_what_is_not_finite(task)
        modules = tuple(name for name in task.modules for _ in range(each))
        weights = [[self.recipe.weights(name)[t] for t in task.positions] for name in modules]
        return Batch(
            stack,
            torch.tensor(weights, dtype=torch.float64, device=self.device),
            task.positions,
            tuple(self.sources[t].given.digest for t in task.positions),
            modules,
            self.recipe.rank.most,
            survey,
        )

    def _refuse_what_is_not_finite(self, task: Task) -> None:
        for module, position in itertools.product(task.modules, task.positions):
            self.sources[position].refuse_what_is_not_finite(module)

    def _spectrum(self, task: Task, batch: Batch) -> Spectrum:
        too_large = MergeError(
            f"the merged delta of {batch.modules[0]} does not fit into float64", hint="use smaller weights"
        )
        try:
            spectrum = self.method.merge(batch, self.recipe.parameters).scaled(self.recipe.scale)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # LAPACK was given infinity: the factors themselves were finite
            self._refuse_what_is_not_finite(task)
            raise too_large from None
        if not spectrum.energy.isfinite().all():
            self._refuse_what_is_not_finite(task)
            raise too_large
        return spectrum

    def _on_data(self, batch: Batch) -> OnData | None:
        if self.moments is None:
            return None
        (source,) = self.sources
        # The factors that are framed here carry √scale, and so does what they see.
        each = [source.adapter.scale(name) * self.moments[name].double() for name in batch.modules]
        return on_data(batch.framed, torch.stack(each).to(self.device))

    def _for_ranks(self, task: Task, survey: Any) -> Tensor:
        """The squares of the singular values that a budget looks at, (modules, p)."""
        batch = self._load(task, survey)
        data = self._on_data(batch)
        spectrum = data.spectrum if data else self._spectrum(task, batch)
        return spectrum.s.square().reshape(len(task.modules), task.form.matrices, -1).sum(1)

    def _within_budget(self, tasks: Sequence[Task], survey: Any) -> dict[str, int]:
        """The ranks that a budget allows: every spectrum first, then the ranks, then the factors."""
        names: list[str] = []
        costs: list[Costs] = []
        squares = side_by_side(lambda task: self._for_ranks(task, survey), tasks, self.device)
        for task, of_task in zip(tasks, squares, strict=True):
            names += task.modules
            each = task.form.matrices * (task.form.out + task.form.in_)
            costs += [Costs(values, each) for values in of_task.tolist()]
        ranks = spend(int(self.recipe.rank.value), costs)
        return dict(zip(names, ranks, strict=True))

    def _bias(self, module: str, task: Task) -> Tensor | None:
        """``lora_bias``: the weighted sum of the sources' biases, which lie beside the factors' product."""
        weights = self.recipe.weights(module)
        biases = [
            self.recipe.scale * weights[t] * self.sources[t].adapter.scale(module) * bias.double()
            for t in task.positions
            if (bias := self.sources[t].adapter.bias(module)) is not None
        ]
        return sum(biases[1:], biases[0]).to(task.dtype) if biases else None


def _moments(path: Path, sources: Sequence[Source]) -> dict[str, Tensor]:
    if len(sources) != 1 or sources[0].initial or any(form.kind != "linear" for form in sources[0].modules.values()):
        raise UsageError(
            "calibration data fit one adapter of plain linear LoRA modules", hint="loreg rerank REF --calibration FILE"
        )
    if any("magnitude" in module.parts for module in sources[0].adapter.layout.modules.values()):
        raise UsageError("calibration data do not fit a DoRA adapter", hint="loreg rerank it without, then again")
    return read_moments(path, {name: sources[0].rank(name) for name in sources[0].modules})


def _difference(whole: Spectrum, part: Spectrum) -> Tensor:
    """``‖whole − part‖²`` (n), both in the same frames."""
    rebuilt = [(x.u * x.s.unsqueeze(-2)) @ x.v.mT for x in (whole, part)]
    return (rebuilt[0] - rebuilt[1]).square().sum((-2, -1))


def _at_one_rank(done: Sequence[_Done]) -> list[_Done]:
    rank = max(module.written.factors.rank for module in done)
    return [
        replace(module, written=replace(module.written, factors=pad(module.written.factors, rank))) for module in done
    ]


def _with_biases(done: Sequence[_Done]) -> list[_Done]:
    """PEFT looks for a bias at every module of an adapter that has any: zeros where no source had one."""

    def biased(written: WrittenModule) -> WrittenModule:
        b = written.factors.b
        return written if written.bias is not None else replace(written, bias=b.new_zeros(b.shape[-2]))

    return [replace(module, written=biased(module.written)) for module in done]


def _refuse_overflow(stored: Factors, task: Task) -> None:
    for tensor in (stored.b, stored.a):
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise MergeError(
                f"the merged factors of {task.modules[0]} do not fit into {task.dtype}", hint="use smaller weights"
            )


def _same_extras(adapters: Sequence[OpenAdapter]) -> bool:
    """Whether all adapters that have whole tensors have the same ones, to the bit."""

    def names(adapter: OpenAdapter) -> dict[str, str]:
        return {plain_extra(name): name for name in adapter.layout.extras}

    having = [adapter for adapter in adapters if adapter.layout.extras]
    return all(
        names(first).keys() == names(other).keys()
        and all(_equal(first.extra(name), other.extra(names(other)[plain])) for plain, name in names(first).items())
        for first, other in itertools.pairwise(having)
    )


def _equal(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
