"""How adapters are merged, and what is said of a version when it is pushed: the two values that callers fill in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from loreg.entities.versions import Metric
from loreg.value import Value


class RankRuleKind(StrEnum):
    """How the rank of each merged module is chosen; all but ``lossless`` are asked for with a value."""

    LOSSLESS = "lossless"
    FIXED = "fixed"
    ENERGY = "energy"
    TOLERANCE = "tolerance"
    BUDGET = "budget"
    FIT = "fit"


class MergeOptions(Value, frozen=True):
    """How adapters become one: ``loreg methods`` lists the methods; by default ``Σ weights·deltas``, exactly.

    ``weights`` are 1 each if not given; ``weights_for`` has others for the modules that a pattern matches, and
    ``scale`` (λ) multiplies the result. ``parameters`` are those of the method. ``rank`` None loses nothing; else a
    number, or one of ``{"energy": 0.99}``, ``{"tolerance": 0.01}``, ``{"budget": 2_000_000}``,
    ``{"fit": "vllm:16"}``. ``extras`` is the source whose whole tensors are taken where they differ, ``initial`` the
    adapters from which PiSSA-like training started; ``allow_derived`` accepts a base and its cast, quantisation or
    fine-tune as one base. Nothing is compared with the sources here: merging raises UsageError for what cannot be.

    >>> MergeOptions(weights=[0.7, 0.3]).is_exact_sum
    True
    >>> MergeOptions(method="ties", parameters={"density": 0.2}, rank={"energy": 0.99}).is_exact_sum
    False
    """

    weights: Sequence[float] | None = None
    method: str = "linear"
    parameters: Mapping[str, object] = msgspec.field(default_factory=dict)
    weights_for: Mapping[str, Sequence[float]] = msgspec.field(default_factory=dict)
    scale: float = 1.0
    rank: int | Mapping[str, object] | None = None
    extras: str | None = None
    initial: Sequence[str] = ()
    allow_derived: bool = False

    @property
    def is_exact_sum(self) -> bool:
        """Whether the result is the weighted sum of the deltas as they are, at whatever rank that has."""
        return self.method == "linear" and self.rank is None and not self.parameters and not self.initial


class VersionMetadata(Value, frozen=True):
    """What is said of a version when it is pushed: ``metrics`` as values or as ``name=value[@dataset[:split]]``.

    >>> said = VersionMetadata(tasks=["qa"], metrics=["accuracy=0.9@sciq:test"], labels={"stage": "trial"})
    >>> said.aliases, said.message
    ((), '')
    """

    tasks: Sequence[str] = ()
    metrics: Sequence[str | Metric] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    aliases: Sequence[str] = ()
    message: str = ""
