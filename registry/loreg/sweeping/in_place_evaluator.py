"""Evaluate candidates on texts with one model: losses, how they bend with the weights, and what the modules see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from loreg.algebra.factors import Factors
from loreg.entities import Progress, SweepCandidate
from loreg.merging.cross_moments import CrossMoments
from loreg.sweeping.curvature import curve_of_logits, sum_by_document
from loreg.sweeping.in_place import InPlaceModel, MomentsOfTask, Rows, lay_side_by_side
from loreg.sweeping.journal import MOMENTS, Journal
from loreg.sweeping.loss_model import Array, DocumentLosses
from loreg.sweeping.token_search import RANK_SHARE, STEP, steps_from

_CHOSEN_ON = "chosen_on"
#: Merges a candidate, and returns the factors of its modules, ``b (out, r)`` and ``a (r, in)``.
MergeFactors = Callable[[SweepCandidate], Mapping[str, Factors]]


@dataclass
class InPlaceEvaluator:
    """A model with the rows of both halves of the texts. Everything that is measured goes into the journal."""

    model: InPlaceModel
    merge: MergeFactors
    chosen_on: Rows
    confirmed_on: Rows
    journal: Journal
    progress: Progress

    def curve(self, candidates: Sequence[SweepCandidate], origin: Sequence[float], share: float) -> DocumentLosses:
        """Return how the losses of a share of the documents of each task bend with the weights of ``candidates``."""
        rows = _first_of_each_task(self.chosen_on, share)
        adapters = lay_side_by_side([self.merge(candidate) for candidate in candidates])
        points = [adapters.row_weights(weights) for weights in steps_from(origin)]
        count, k = len(rows.tasks), len(candidates)
        sums = {"losses": np.zeros(count), "gradients": np.zeros((count, k)), "curvatures": np.zeros((count, k, k))}
        key = {"curve": [candidate.recipe for candidate in candidates], "origin": list(origin), "share": share}
        with self.model.adding(adapters.factors) as weights:
            done = 0
            for batch in self.model.batches(rows, "seeing how the loss bends", self.progress):
                of_batch = {**key, "rows": [done, done + len(batch.ids)]}
                done += len(batch.ids)
                part = self.journal.recall_arrays(of_batch)
                if part is None:
                    logits = []
                    for point in points:
                        weights.set(point)
                        logits.append(self.model.logits(batch))
                    curved = curve_of_logits(logits[0], logits[1:], batch.labels, STEP)
                    part = {
                        name: sum_by_document(values, batch.documents, count)
                        for name, values in zip(sums, curved, strict=True)
                    }
                    self.journal.record_arrays(of_batch, part)
                for name in sums:
                    sums[name] += part[name]
        return DocumentLosses(np.array(origin), rows.tasks, rows.tokens(), **sums)

    def evaluate(self, candidate: SweepCandidate) -> Array:
        """Return the summed loss of each document that is chosen by, (D)."""
        return self._losses(candidate, self.chosen_on, _CHOSEN_ON)

    def confirm(self, candidate: SweepCandidate) -> Array:
        """Return the summed loss of each document of confirmation, (D')."""
        return self._losses(candidate, self.confirmed_on, "confirmed_on")

    def seconds(self, candidate: SweepCandidate) -> float:
        """Return how long the evaluation of a candidate took when it was made."""
        recalled = self.journal.recall_arrays(_losses_key(candidate, _CHOSEN_ON)) or {}
        return float(recalled.get("seconds", 0.0))

    def collect_moments(self, sources: Sequence[Mapping[str, Factors]], tasks: Sequence[int]) -> Path:
        """Collect what the modules see of the text of each source's task while that source is active, for ``regmean``.

        ``tasks`` says by position whose text belongs to each source. Returns the file; costs one evaluation.
        """
        if (recalled := self.journal.recall_file(MOMENTS)) is not None:
            return recalled
        adapters, k = lay_side_by_side(sources), len(sources)
        runs = (
            (_of_task(self.chosen_on, task), adapters.row_weights([float(i == position) for i in range(k)]))
            for position, task in enumerate(tasks)
        )
        return self.journal.record_file(MOMENTS, self._collect(adapters.factors, runs, k).to_bytes())

    def rank_errors(self, candidate: SweepCandidate) -> Array:
        """Return the output error of each task when a merged candidate is cut to each rank, (T, R + 1).

        It is ``Σ E‖(D − D_r)x‖²`` over the modules, x what they see of a quarter of the documents under the candidate.
        """
        key = {"rank_errors": candidate.recipe}
        if (recalled := self.journal.recall_arrays(key)) is not None:
            return np.asarray(recalled["errors"])
        factors, rows = self.merge(candidate), _first_of_each_task(self.chosen_on, RANK_SHARE)
        tasks = int(rows.tasks.max()) + 1
        moments = self._collect(factors, ((_of_task(rows, task), {}) for task in range(tasks)), tasks)
        errors = np.zeros((tasks, max(part.rank for part in factors.values()) + 1))
        for task, module in moments.sums:
            # merged factors are U√S and √SVᵀ: the columns of b are orthogonal, and the energies of directions add up
            energies = factors[module].b.double().square().sum(0) * moments.mean(task, module).diagonal()
            left = energies.flip(0).cumsum(0).flip(0).numpy()
            errors[int(task), : len(left)] += left
        self.journal.record_arrays(key, {"errors": errors})
        return errors

    def _collect(
        self, factors: Mapping[str, Factors], runs: Iterable[tuple[Rows, Mapping[str, torch.Tensor]]], count: int
    ) -> CrossMoments:
        """Return the moments of the rows of A in ``count`` runs, each of some texts with weights of the rows."""
        moments = CrossMoments([str(number) for number in range(count)])
        grams = {name: part.a @ part.a.mT for name, part in factors.items()}
        for number, (rows, row_weights) in enumerate(runs):
            self.progress("collecting moments", number, count)
            collector = MomentsOfTask(moments, str(number), grams)
            with self.model.adding(factors, collector) as weights:
                weights.set(row_weights)
                for batch in self.model.batches(rows):
                    collector.keep = batch.real
                    self.model.logits(batch)
        self.progress("collecting moments", count, count)
        return moments

    def _losses(self, candidate: SweepCandidate, rows: Rows, half: str) -> Array:
        key = _losses_key(candidate, half)
        recalled = self.journal.recall_arrays(key)
        if recalled is None:
            factors, start = self.merge(candidate), time.perf_counter()
            with self.model.adding(factors):
                sums = self.model.losses(rows, self.progress)
            recalled = {"sums": sums, "seconds": np.array(time.perf_counter() - start)}
            self.journal.record_arrays(key, recalled)
        return np.asarray(recalled["sums"])


def _losses_key(candidate: SweepCandidate, half: str) -> dict[str, object]:
    return {"losses": candidate.recipe, "half": half}


def _first_of_each_task(rows: Rows, share: float) -> Rows:
    """Return the rows of the first ``share`` of the documents of each task; they lie in the order of their digests."""
    kept = np.zeros(len(rows.tasks), dtype=bool)
    for task in np.unique(rows.tasks):
        members = np.flatnonzero(rows.tasks == task)
        kept[members[: max(1, round(share * len(members)))]] = True
    return _select(rows, kept)


def _of_task(rows: Rows, task: int) -> Rows:
    return _select(rows, rows.tasks == task)


def _select(rows: Rows, kept: npt.NDArray[np.bool_]) -> Rows:
    """Return the rows of the documents that are kept, (D), counted anew."""
    chosen = kept[rows.documents]
    renumbered = np.cumsum(kept) - 1
    mask = torch.from_numpy(chosen)
    return Rows(rows.ids[mask], rows.lengths[mask], renumbered[rows.documents[chosen]], rows.tasks[kept])
