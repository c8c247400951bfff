"""What is baked into a base, wherever that is planned: adapters, each delta times its weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from loreg.adapters.config import why_not_mergeable
from loreg.adapters.patterns import PatternBudget, Patterns
from loreg.adapters.structure import AdapterStructure
from loreg.baking.plan import Plan, make_plan
from loreg.baking.tensor_updates import BakeSource
from loreg.bases.model import Model
from loreg.errors import MergeError, UsageError


@dataclass(frozen=True)
class Summand:
    """An adapter of a sum; ``label`` is its name in messages."""

    label: str
    digest: str
    structure: AdapterStructure


@dataclass(frozen=True)
class WeightedSum:
    """``scale`` times the sum of the deltas, each times its weight; ``weights_for`` has those of modules by pattern.

    ``extras`` is the summand whose whole tensors are taken, where there is a choice; ``dtype`` that of the result.
    """

    summands: Sequence[Summand]
    weights: Sequence[float]
    weights_for: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scale: float = 1.0
    extras: int | None = None
    dtype: str | None = None

    def plan(self, model: Model) -> Plan:
        """Return the plan of the result. Raises what ``make_plan`` does, and MergeError where factors give no delta."""
        budget = PatternBudget(field="weights_for", error=UsageError)
        patterns = Patterns({pattern: tuple(weights) for pattern, weights in self.weights_for.items()}, budget)
        sources = []
        for number, summand in enumerate(self.summands):
            _refuse_unknown_delta(summand)

            def weight(module: str, number: int = number) -> float:
                return self.scale * patterns.first(module, tuple(self.weights))[number]

            sources.append(BakeSource(summand.label, summand.digest, summand.structure, weight))
        return make_plan(model, sources, self.extras, self.dtype)


def _refuse_unknown_delta(summand: Summand) -> None:
    config = summand.structure.config
    reason = why_not_mergeable(config)
    if config.changes_the_base:
        reason = f"init_lora_weights is {config.raw['init_lora_weights']!r}: its delta needs the initial adapter"
    unreadable = next((m.why_unreadable for m in summand.structure.modules.values() if m.shape is None), "")
    if reason or unreadable:
        raise MergeError(
            f"{summand.label} cannot be baked: {reason or unreadable}",
            hint="--initial DIR names the adapter that was saved before training"
            if config.changes_the_base
            else "serve it as an adapter",
        )
