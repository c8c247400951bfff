"""Choose a recipe where the evaluation gives the loss, or the logits, of each token.

Two evaluations, of a part of the texts, say about which common strength is best, K + 1 round it how the loss of each
task bends with the weights. Its minimum, one common strength and the best of some methods are evaluated, and confirmed
on texts that nothing was chosen by. What is measured stands in docs/concepts/sweeps.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from loreg.entities import Interval, Progress, SweepCandidate, no_progress
from loreg.errors import IntegrityError, LoregError, UnavailableError
from loreg.sweeping.bootstrap import Spread, interval_of_difference, spread_of_minimizer
from loreg.sweeping.loss_model import Array, DocumentLosses, LossModel
from loreg.sweeping.rank_choice import BOUND, MAX_EVALUATIONS, choose_rank

#: How far a weight is moved to see how the loss bends. Three times as far, the difference is no derivative any more: on
#: six classifiers the minimum then lost 4 % of the gain that this one finds (benchmarks/RESULTS.md).
STEP = 0.05
_MAX_STRENGTH = 1.5
#: Of the documents, in each round of halving.
SHARES = (0.25, 0.5, 1.0)
#: Of the documents, for what the modules see of them when ranks are compared.
RANK_SHARE = 0.25
#: A full disk or a damaged file say nothing of a candidate: they end the search, which goes on when they are mended.
_OF_THE_MACHINE = (IntegrityError, UnavailableError)
EQUAL, STRENGTH, FREE = "equal mixture", "one strength for all", "a weight for each"


class TokenEvaluator(Protocol):
    """What is asked of the model: three questions, each of which costs evaluations."""

    def curve(self, candidates: Sequence[SweepCandidate], origin: Sequence[float], share: float) -> DocumentLosses:
        """Return how the losses of a share of the documents bend with the weights of merged ``candidates``.

        Costs ``share · (1 + number of candidates)`` evaluations. Raises LoregError for what cannot be merged.
        """
        ...

    def evaluate(self, candidate: SweepCandidate) -> Array:
        """Merge a candidate and return its summed loss on each document that is chosen by, (D)."""
        ...

    def confirm(self, candidate: SweepCandidate) -> Array:
        """Return its summed loss on each document of confirmation, (D')."""
        ...

    def rank_errors(self, candidate: SweepCandidate) -> Array | None:
        """Return the output error of each task when a merged candidate is cut to each rank, (T, R + 1).

        Costs ``RANK_SHARE`` evaluations. None where what the modules see is not known.
        """
        ...

    def seconds(self, candidate: SweepCandidate) -> float:
        """Return how long the evaluation of a candidate took when it was made."""
        ...


@dataclass(frozen=True)
class Texts:
    """The documents of one half: the task of each, (D), and how many tokens each has, (D)."""

    tasks: np.ndarray
    tokens: Array

    def mean_losses(self, sums: Array) -> Array:
        """Return the mean loss a token of each task, (T), from the sums of each document, (D)."""
        by_task = np.bincount(self.tasks, sums)
        return np.asarray(by_task / np.bincount(self.tasks, self.tokens))


@dataclass(frozen=True)
class TokenAnswer:
    """Which candidate to take, the others with their differences on the texts of confirmation, and how sure that is.

    ``baselines`` are the base and the sources alone with their differences, as far as the budget went.
    """

    best: SweepCandidate
    differences: dict[SweepCandidate, Interval]
    baselines: dict[SweepCandidate, Interval]
    spread: Spread
    spent: float
    notes: tuple[str, ...]


@dataclass
class TokenSearch:
    """A search over the weights of K sources with ``budget`` evaluations; ``importance`` (T) sums to 1.

    ``start`` is the strength from which the best is looked for, by default 1/K; ``shares`` are those of the
    documents in each round of halving, and ``confirmation_cost`` the evaluations that confirming a candidate takes.
    ``prepare`` is called with merged candidates before the evaluator is asked about them, one after another.
    """

    evaluator: TokenEvaluator
    sources: int
    chosen_on: Texts
    confirmed_on: Texts
    importance: Array
    budget: float
    methods: tuple[str, ...]
    seed: int
    start: float | None = None
    shares: Sequence[float] = SHARES
    confirmation_cost: float = 1.0
    progress: Progress = no_progress
    prepare: Callable[[Sequence[SweepCandidate]], None] = lambda candidates: None
    spent: float = 0.0
    notes: list[str] = field(default_factory=list)

    def run(self) -> TokenAnswer:
        """Return the answer. What it spends is at most the budget, which ``least_budget`` bounds."""
        k = self.sources
        # see how the loss bends with one strength, and there with each weight
        alone = [SweepCandidate(f"source {i + 1} alone", tuple(float(i == j) for j in range(k))) for i in range(k)]
        origin = self._best_strength()
        self.prepare(curve_points(alone, (origin,) * k))
        curve = self.evaluator.curve(alone, (origin,) * k, 1.0)
        is_known = origin == self._start and self.shares[0] == 1  # nothing is evaluated twice
        self._spend(k + (not is_known))
        model = curve.fit()
        spread = spread_of_minimizer(curve, self.importance, self.seed)
        # evaluate the equal mixture and the minima
        equal = SweepCandidate(EQUAL, (round(1 / k, 4),) * k)
        strength = SweepCandidate(STRENGTH, _rounded(model.common_strength(self.importance)))
        free = SweepCandidate(FREE, _rounded(model.minimize(self.importance)))
        self._note_regret(model, strength, free, spread)
        candidates = [equal, strength, free]
        self.prepare(candidates)
        for candidate in candidates:
            self._evaluate(candidate)
        # halve the methods
        kept = self._halve(self.methods)
        if kept is not None:
            self._evaluate(kept)
            candidates.append(kept)
        # confirm
        sums = {candidate: self._confirm(candidate) for candidate in candidates}
        best = self._choose(candidates, sums)
        # cut the rank, and evaluate what there was before
        base = SweepCandidate("base", (0.0,) * k)
        baselines: dict[SweepCandidate, Array] = {}
        if self._try_baseline(base, baselines, 1 + self.confirmation_cost):
            best = self._cut_rank(best, base, baselines[base], sums)
        cost = self.confirmation_cost or 1
        self.prepare(alone[: max(int((self.budget - self.spent) / cost), 0)])
        for source in alone:
            self._try_baseline(source, baselines, cost)
        differences = {c: self._difference(sums[c], sums[best]) for c in sums if c != best}
        beside = {c: self._difference(sums_of_baseline, sums[best]) for c, sums_of_baseline in baselines.items()}
        return TokenAnswer(best, differences, beside, spread, self.spent, tuple(self.notes))

    def _best_strength(self) -> float:
        """Return about which common strength is best: deltas that are far from it bend the loss otherwise."""
        share = self.shares[0]
        whole = SweepCandidate(STRENGTH, (1.0,) * self.sources)
        self.prepare(curve_points([whole], (self._start,)))
        curve = self.evaluator.curve([whole], (self._start,), share)
        self._spend(2 * share)
        strength = float(curve.fit().common_strength(self.importance)[0])
        if abs(strength - self._start) < STEP:
            return self._start
        return round(min(max(strength, 0.5 / self.sources), _MAX_STRENGTH), 4)

    @property
    def _start(self) -> float:
        return self.start or round(1 / self.sources, 4)

    def _try_baseline(self, candidate: SweepCandidate, baselines: dict[SweepCandidate, Array], cost: float) -> bool:
        """Evaluate what is no merge, and return whether that went well: the budget may end, a program may fail."""
        if not self._affords(cost):
            return False
        try:
            baselines[candidate] = self.evaluator.confirm(candidate)
        except _OF_THE_MACHINE:
            raise
        except LoregError as error:
            self.notes.append(f"{candidate.what} was not evaluated: {error.message}")
        self._spend(cost)
        return candidate in baselines

    def _spend(self, evaluations: float) -> None:
        self.spent += evaluations
        self.progress("spending the budget", round(self.spent), round(self.budget))

    def _affords(self, evaluations: float) -> bool:
        return self.spent + evaluations <= self.budget

    def _confirm(self, candidate: SweepCandidate) -> Array:
        self._spend(self.confirmation_cost)
        return self.evaluator.confirm(candidate)

    def _chosen_loss(self, candidate: SweepCandidate) -> float:
        return float(self.importance @ self.chosen_on.mean_losses(self.evaluator.evaluate(candidate)))

    def _confirmed_loss(self, sums: Array) -> float:
        return float(self.importance @ self.confirmed_on.mean_losses(sums))

    def _cut_rank(
        self, best: SweepCandidate, base: SweepCandidate, baseline: Array, sums: dict[SweepCandidate, Array]
    ) -> SweepCandidate:
        """Return ``best`` cut to a rank that costs at most 1 % of the gain on both halves, or as it is."""
        most = RANK_SHARE + MAX_EVALUATIONS + self.confirmation_cost
        gain = self._chosen_loss(base) - self._chosen_loss(best)
        errors = self.evaluator.rank_errors(best) if gain > 0 and self._affords(most) else None
        if errors is None:
            return best
        self._spend(RANK_SHARE)

        def cut(rank: int) -> SweepCandidate:
            return msgspec.structs.replace(best, what=f"{best.what}, rank {rank}", rank=rank)

        def added_loss(rank: int) -> float:
            self._evaluate(cut(rank))
            return self._chosen_loss(cut(rank)) - self._chosen_loss(best)

        rank = choose_rank(self.importance @ errors, gain, added_loss)
        if rank is None:
            return best
        sums[cut(rank)] = self._confirm(cut(rank))
        gain = self._confirmed_loss(baseline) - self._confirmed_loss(sums[best])
        lost = self._confirmed_loss(sums[cut(rank)]) - self._confirmed_loss(sums[best])
        if lost > BOUND * gain:
            return best
        share = max(lost, 0.0) / gain if gain > 0 else 0.0
        self.notes.append(
            f"the cut to rank {rank} costs {share:.1%} of what is gained over the base: up to {BOUND:.0%} is "
            "taken for a smaller adapter"
        )
        return cut(rank)

    def _evaluate(self, candidate: SweepCandidate) -> None:
        self._spend(1)
        self.evaluator.evaluate(candidate)

    def _halve(self, methods: Sequence[str]) -> SweepCandidate | None:
        """Return the best of the methods, at its best strength: on a quarter of the texts, then half, then all.

        The worse half goes after each round (successive halving, Jamieson and Talwalkar 2016, arXiv 1502.07943). How
        the loss bends with λ gives the strength: two evaluations a method. None where no method fits the budget.
        """
        reserve = 1 + (len(_CONFIRMED) + 1) * self.confirmation_cost  # the winner's evaluation, the confirmations
        rivals = {method: SweepCandidate(method, (1.0,) * self.sources, method) for method in methods}
        best: SweepCandidate | None = None
        reached: set[str] = set()
        for share in self.shares:
            if len(rivals) == 1 and share < self.shares[-1]:
                continue
            cost = 2 * share
            affordable = int((self.budget - self.spent - reserve) / cost)
            losses: dict[str, float] = {}
            tried = list(rivals)[: max(affordable, 0)]
            self.prepare([p for method in tried for p in curve_points([rivals[method]], (rivals[method].scale,))])
            for method in tried:
                reached.add(method)
                curve = self._curve_of_strength(rivals[method], share)
                if curve is None:
                    continue
                model = curve.fit()
                scale = model.common_strength(self.importance)
                rivals[method] = msgspec.structs.replace(rivals[method], scale=_rounded(scale)[0])
                losses[method] = float(self.importance @ model.predict(scale))
                self._spend(cost)
            if not losses:
                break
            order = sorted(losses, key=losses.__getitem__)
            rivals = {method: rivals[method] for method in order[: max(1, len(order) // 2)]}
            best = rivals[order[0]]
        if left := [method for method in methods if method not in reached]:
            self.notes.append(f"not tried, for the budget had ended: {', '.join(left)}")
        return best

    def _curve_of_strength(self, candidate: SweepCandidate, share: float) -> DocumentLosses | None:
        try:
            return self.evaluator.curve([msgspec.structs.replace(candidate, scale=1.0)], (candidate.scale,), share)
        except _OF_THE_MACHINE:
            raise
        except LoregError as error:
            self.notes.append(f"{candidate.method} was not tried: {error.message}")
            return None

    def _choose(self, candidates: Sequence[SweepCandidate], sums: dict[SweepCandidate, Array]) -> SweepCandidate:
        """Return the best on the texts of confirmation, or the simplest that cannot be told from it."""
        means = {candidate: self._confirmed_loss(sums[candidate]) for candidate in candidates}
        best = min(candidates, key=means.__getitem__)
        for simpler in candidates:  # the simplest first
            if simpler == best:
                return best
            difference = self._difference(sums[simpler], sums[best])
            if difference.holds_zero:
                self.notes.append(f"no difference between {simpler.what} and {best.what}: the simpler is taken")
                return simpler
        return best

    def _difference(self, sums: Array, others: Array) -> Interval:
        texts = self.confirmed_on
        return interval_of_difference(texts.tasks, texts.tokens, sums - others, self.importance, self.seed)

    def _note_regret(self, model: LossModel, strength: SweepCandidate, free: SweepCandidate, spread: Spread) -> None:
        promised = [float(self.importance @ model.predict(np.array(c.weights))) for c in (strength, free)]
        gain = promised[0] - promised[1]
        if spread.regret > gain:
            self.notes.append(
                f"the texts are too few to tell free weights from one strength: they promise {gain:.4f} nats a token, "
                f"and chance in the texts costs {spread.regret:.4f}"
            )


_CONFIRMED = (EQUAL, STRENGTH, FREE)


def least_budget(sources: int, shares: Sequence[float] = SHARES, confirmation_cost: float = 1.0) -> int:
    """Return how many evaluations an answer takes: both curves, three candidates, and their confirmation."""
    return sources + 4 + math.ceil(2 * shares[0] + len(_CONFIRMED) * confirmation_cost)


def steps_from(origin: Sequence[float]) -> list[tuple[float, ...]]:
    """Return the weights where a curve is looked at: ``origin`` (K), then it with each weight larger by the step."""
    steps = [tuple(w + STEP * (i == j) for i, w in enumerate(origin)) for j in range(len(origin))]
    return [tuple(origin), *steps]


def curve_points(candidates: Sequence[SweepCandidate], origin: Sequence[float]) -> list[SweepCandidate]:
    """Return what is merged where a curve is looked at: mixtures of the sources, or one candidate at two strengths."""
    return [_mix(candidates, weights) for weights in steps_from(origin)]


def _mix(candidates: Sequence[SweepCandidate], weights: Sequence[float]) -> SweepCandidate:
    """Return the mixture of the sources with these weights, or the one merged candidate at that strength."""
    if len(candidates) == 1 and candidates[0].method != "linear":
        return msgspec.structs.replace(candidates[0], scale=round(weights[0], 4))
    if len(candidates) == 1:
        weights = [weights[0] * weight for weight in candidates[0].weights]
    return SweepCandidate("a step to see how the loss bends", tuple(round(weight, 4) for weight in weights))


def _rounded(weights: Array) -> tuple[float, ...]:
    """Return weights as they are typed: four digits."""
    return tuple(round(float(weight), 4) for weight in weights)
