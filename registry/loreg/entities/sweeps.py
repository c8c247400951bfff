"""Sweeps: which recipes were tried, what each scored, and which of them to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from loreg.entities.displayed import Displayed
from loreg.value import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Interval(Value, frozen=True):
    """A mean, and the interval that holds it in 90 of 100 samples of the evaluation data."""

    mean: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether the difference may as well be none."""
        return self.low <= 0 <= self.high


class SweepCandidate(Value, frozen=True):
    """A recipe to try: ``what`` says in words which it is, ``scale`` (λ) multiplies what the method makes.

    ``rank`` cuts each module to that many directions; None keeps all.
    """

    what: str
    weights: tuple[float, ...]
    method: str = "linear"
    scale: float = 1.0
    rank: int | None = None

    @property
    def recipe(self) -> dict[str, object]:
        """Return what is merged, as JSON: two candidates of one recipe are evaluated once, whatever they are called."""
        cut = {} if self.rank is None else {"rank": self.rank}
        return {"method": self.method, "weights": list(self.weights), "scale": self.scale, **cut}

    @property
    def strengths(self) -> tuple[float, ...]:
        """Return what each delta is multiplied with by the weighted sum."""
        return tuple(self.scale * weight for weight in self.weights)


class SweepTrial(Value, frozen=True):
    """One candidate that was merged and evaluated.

    ``scores`` by task are on the data that candidates were chosen by, ``confirmed`` on those that nothing was chosen
    by; ``version`` is the ref that it was pushed as. ``error`` says why it has no scores. The seconds are those of
    merging and of evaluating.
    """

    number: int
    candidate: SweepCandidate
    scores: Mapping[str, float] = msgspec.field(default_factory=dict)
    confirmed: Mapping[str, float] = msgspec.field(default_factory=dict)
    version: str = ""
    error: str = ""
    merge_seconds: float = 0.0
    evaluate_seconds: float = 0.0


class SweepComparison(Value, frozen=True):
    """How much more a trial loses on the data of confirmation than the one that the sweep takes, in nats a token."""

    trial: int
    difference: Interval


class SweepOptions(Value, frozen=True):
    """How a sweep spends its evaluations.

    ``budget`` is how many times the evaluation data may be gone through. ``methods`` are tried beside the weighted sum;
    ``importance`` weighs the tasks, 1 each where it says nothing. ``metric`` names what the evaluation prints;
    ``higher_is_better`` None asks the registry, then the name. A trial that takes longer than ``timeout`` seconds has
    failed; ``jobs`` trials are evaluated side by side: None is one, and on a cluster as many as it has room for, where
    each has ``gpus`` of its own. ``extras`` is the source whose whole tensors are taken where they differ. ``seed`` is
    that of everything drawn.

    >>> SweepOptions(budget=30).methods
    ('regmean', 'tsv', 'wudi')
    """

    budget: int = 20
    methods: tuple[str, ...] = ("regmean", "tsv", "wudi")
    importance: Mapping[str, float] = msgspec.field(default_factory=dict)
    metric: str = ""
    higher_is_better: bool | None = None
    timeout: float | None = None
    jobs: int | None = None
    gpus: int = 0
    extras: str | None = None
    seed: int = 0


class SweepResult(Displayed, frozen=True):
    """What a sweep found, and how sure it is.

    ``best`` is the number of the trial to take, ``front`` those that no other beats on every task. ``comparisons`` set
    others beside it on the data of confirmation; ``weights_sd`` is how far other data of the same kind would move the
    weights, ``regret`` what that costs in nats a token; both are empty where the evaluation gives only scores.
    ``baselines`` are the base and the sources alone, as far as the budget went: they are no versions.
    ``evaluations`` counts how often the data were gone through. ``promote`` is the command that makes the best one what
    is served. ``notes`` are for the person who reads it.
    """

    id: str
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    metric: str
    higher_is_better: bool
    trials: tuple[SweepTrial, ...]
    best: int
    front: tuple[int, ...]
    comparisons: tuple[SweepComparison, ...] = ()
    baselines: tuple[SweepTrial, ...] = ()
    weights_sd: tuple[float, ...] = ()
    regret: float | None = None
    evaluations: float = 0.0
    promote: str = ""
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> SweepTrial:
        """The trial to take."""
        return self.trials[self.best]

    def plot(self) -> Figure:
        """Draw each trial's scores by task; return the figure, as ``--plot`` writes it.

        Raises MissingExtraError without matplotlib.
        """
        from loreg.entities.display.pictures import import_figures

        figure: Figure = import_figures().draw_sweep(self)
        return figure
