"""Rank rules: how many singular values of each merged delta are kept."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.algebra.spectrum import Spectrum
from loreg.checking.profile import Profile, read_profile
from loreg.entities import RankRuleKind
from loreg.errors import UsageError


@dataclass(frozen=True)
class RankRule:
    """How the rank of each module is chosen.

    ``value`` is the rank, the share or the number of parameters; ``server`` is the profile that a result is fitted to.

    lossless drops only what is numerically zero · fixed is one rank for all · energy keeps at least that share of
    ``‖delta‖²`` in every module · tolerance loses at most that share of ``‖delta‖`` in every module · budget spends
    that many parameters over all modules where they keep the most · fit is lossless up to the rank that a server
    was started with, padded with zeros where it needs one rank for all.
    """

    kind: RankRuleKind = RankRuleKind.LOSSLESS
    value: float = 0.0
    server: str = ""

    @property
    def max_rank(self) -> int | None:
        """The rank that no module exceeds, if the rule says so."""
        return int(self.value) if self.kind in (RankRuleKind.FIXED, RankRuleKind.FIT) else None

    @property
    def uniform(self) -> bool:
        """Whether every module must have the same rank."""
        return self.kind == RankRuleKind.FIT and needs_one_rank(read_profile(self.server))

    def choose(self, spectrum: Spectrum) -> Tensor:
        """Return the ranks (n) of n deltas, at least 1. Not for a budget, which needs all modules together."""
        if self.kind == RankRuleKind.FIXED:
            return torch.full(spectrum.energy.shape, int(self.value), device=spectrum.s.device)
        if self.kind in (RankRuleKind.LOSSLESS, RankRuleKind.FIT):
            return spectrum.numerical_rank().clamp(1, self.max_rank)
        max_lost = self.value**2 if self.kind == RankRuleKind.TOLERANCE else 1 - self.value  # share of the energy
        squares = spectrum.s.square().cpu()  # a GPU does not add up in the same order every time
        lost = squares.flip(-1).cumsum(-1).flip(-1)  # if this singular value and all beyond are dropped
        ranks = (lost > max_lost * spectrum.energy.cpu().unsqueeze(-1)).sum(-1).clamp_min(1)
        return ranks.to(spectrum.s.device)

    def to_json(self) -> Mapping[str, float | str]:
        """Return the rule as JSON, ``{"fixed": 16}``; empty for lossless."""
        if self.kind == RankRuleKind.LOSSLESS:
            return {}
        if self.kind == RankRuleKind.FIT:
            return {"fit": f"{self.server}:{int(self.value)}"}
        return {self.kind: int(self.value) if self._is_whole else self.value}

    @property
    def _is_whole(self) -> bool:
        return self.kind in (RankRuleKind.FIXED, RankRuleKind.BUDGET)


#: The profiles of servers that a result can be fitted to.
SERVERS = ("vllm", "sglang", "lorax", "tensorrt-llm")

LOSSLESS = RankRule()


def needs_one_rank(profile: Profile) -> bool:
    """Return whether a server needs one rank for all modules: its profile has rules on ranks or scales that differ."""
    conditions = {rule.condition for rule in profile.rules}
    return not conditions.isdisjoint(("ranks_differ", "ranks_differ_within_a_type", "scales_are_not_global"))


def read_rank_rule(document: Mapping[str, object]) -> RankRule:
    """Read a rule such as ``{"fixed": 16}`` or ``{"fit": "vllm:16"}``. Raises UsageError for one that cannot be."""
    rules = {kind: value for kind, value in document.items() if value is not None}
    if not rules:
        return LOSSLESS
    if len(rules) > 1:
        raise UsageError(f"{len(rules)} rank rules at once: {', '.join(rules)}", hint="choose one of them")
    ((name, value),) = rules.items()
    if name not in set(RankRuleKind) - {RankRuleKind.LOSSLESS}:
        raise UsageError(f"there is no rank rule {name!r}", hint="fixed, energy, tolerance, budget or fit")
    kind = RankRuleKind(name)
    if kind == RankRuleKind.FIT:
        return _read_fit(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{kind} is {value!r}, expected a number", hint=f"{kind} = 16")
    rule = RankRule(kind, value)
    if rule._is_whole and not (1 <= value < math.inf and value == int(value)):
        what = "rank" if kind == RankRuleKind.FIXED else kind
        raise UsageError(f"{what} {value:g} is not possible: expected 1 or more", hint="--rank 16, or leave it out")
    if not rule._is_whole and not 0 <= value <= 1:
        raise UsageError(f"{kind} {value:g} is not possible: expected 0 to 1", hint="--energy 0.99 or --tolerance 0.01")
    return rule


def _read_fit(text: str) -> RankRule:
    name, _, rank = text.partition(":")
    if name not in SERVERS or not rank.isdecimal() or int(rank) < 1:
        raise UsageError(
            f"cannot fit {text!r}: expected SERVER:RANK with one of {', '.join(SERVERS)}", hint="--fit vllm:16"
        )
    possible = read_profile(name).among.get("max_lora_rank", ())
    if possible and int(rank) not in possible:
        raise UsageError(
            f"{name} cannot be started with rank {rank}: expected one of {', '.join(map(str, possible))}",
            hint=f"--fit {name}:{max([r for r in possible if r < int(rank)], default=possible[0])}",
        )
    return RankRule(RankRuleKind.FIT, int(rank), name)


@dataclass(frozen=True)
class ModuleCost:
    """One module in a budget: the squares of its singular values, and what one more rank costs in parameters."""

    squares: Sequence[float]
    parameters: int


def spend_budget(budget: int, modules: Sequence[ModuleCost]) -> list[int]:
    """Return the ranks that keep the most energy for ``budget`` parameters: greedy by σ²/(out+in), at least 1 each.

    Greedy is optimal but for the last value that no longer fits, as squares fall within a module. Raises UsageError if
    rank 1 in every module exceeds the budget already.
    """
    ranks = [1] * len(modules)
    least = sum(module.parameters for module in modules)
    remaining = budget - least
    if remaining < 0:
        raise UsageError(
            f"a budget of {budget:,} parameters is not possible: rank 1 in every module is {least:,}",
            hint=f"--budget {least}",
        )
    queue = [(-m.squares[1] / m.parameters, i) for i, m in enumerate(modules) if len(m.squares) > 1]
    heapq.heapify(queue)
    while queue:
        gain, i = heapq.heappop(queue)
        if gain == 0 or modules[i].parameters > remaining:
            continue
        remaining -= modules[i].parameters
        ranks[i] += 1
        if ranks[i] < len(modules[i].squares):
            heapq.heappush(queue, (-modules[i].squares[ranks[i]] / modules[i].parameters, i))
    return ranks
