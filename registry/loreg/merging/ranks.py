"""How many singular values the result keeps, module by module."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loreg.algebra.spectrum import Spectrum
from loreg.errors import UsageError


@dataclass(frozen=True)
class RankRule:
    """``kind`` is lossless, fixed, energy, tolerance, budget or fit; ``value`` what it says.

    lossless drops only what is numerically zero · fixed is one rank for all · energy keeps at least that share of
    ``‖delta‖²`` in every module · tolerance loses at most that share of ``‖delta‖`` in every module · budget spends
    that many parameters over all modules where they keep the most · fit is lossless up to the rank that a server
    was started with, zeros added where it wants one rank for all.
    """

    kind: str = "lossless"
    value: float = 0.0
    server: str = ""

    @property
    def most(self) -> int | None:
        """The rank that no module exceeds, if the rule says so."""
        return int(self.value) if self.kind in ("fixed", "fit") else None

    @property
    def uniform(self) -> bool:
        """Whether every module must have the same rank."""
        return self.kind == "fit" and SERVERS[self.server].one_rank

    def choose(self, spectrum: Spectrum) -> Tensor:
        """The ranks (n) of n modules, at least 1. Not for a budget, which needs all modules together."""
        if self.kind == "fixed":
            return torch.full(spectrum.energy.shape, int(self.value), device=spectrum.s.device)
        if self.kind in ("lossless", "fit"):
            return spectrum.numerical_rank().clamp(1, self.most)
        allowed = self.value**2 if self.kind == "tolerance" else 1 - self.value
        squares = spectrum.s.square().cpu()  # a GPU does not add up in the same order every time
        after = squares.flip(-1).cumsum(-1).flip(-1)  # what is lost if this one and all beyond are dropped
        ranks = (after > allowed * spectrum.energy.cpu().unsqueeze(-1)).sum(-1).clamp_min(1)
        return ranks.to(spectrum.s.device)

    def to_json(self) -> Mapping[str, Any]:
        """``{"fixed": 16}``; empty for lossless."""
        if self.kind == "lossless":
            return {}
        if self.kind == "fit":
            return {"fit": f"{self.server}:{int(self.value)}"}
        return {self.kind: int(self.value) if self._counts else self.value}

    @property
    def _counts(self) -> bool:
        return self.kind in ("fixed", "budget")


@dataclass(frozen=True)
class ServerRanks:
    """What a server says of ranks: those it can be started with (empty: any), and whether it wants one for all."""

    ranks: tuple[int, ...] = ()
    one_rank: bool = False


#: Read from vLLM 0.33 (``MaxLoRARanks``), SGLang 0.5.23 and LoRAX (no rank_pattern), TensorRT-LLM.
SERVERS: Mapping[str, ServerRanks] = {
    "vllm": ServerRanks(ranks=(1, 8, 16, 32, 64, 128, 256, 320, 512)),
    "sglang": ServerRanks(one_rank=True),
    "lorax": ServerRanks(one_rank=True),
    "tensorrt-llm": ServerRanks(),
}

LOSSLESS = RankRule()


def read_rank_rule(document: Mapping[str, Any]) -> RankRule:
    """The rule of ``{"fixed": 16}``, ``{"fit": "vllm:16"}`` and the like. Raises UsageError."""
    given = {kind: value for kind, value in document.items() if value is not None}
    if not given:
        return LOSSLESS
    if len(given) > 1:
        raise UsageError(f"{len(given)} rank rules at once: {', '.join(given)}", hint="choose one of them")
    ((kind, value),) = given.items()
    if kind == "fit":
        return _fit(str(value))
    if kind not in ("fixed", "energy", "tolerance", "budget"):
        raise UsageError(f"there is no rank rule {kind!r}", hint="fixed, energy, tolerance, budget or fit")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{kind} is {value!r}, expected a number", hint=f"{kind} = 16")
    rule = RankRule(kind, value)
    if rule._counts and (value < 1 or value != int(value)):
        name = "rank" if kind == "fixed" else kind
        raise UsageError(f"{name} {value:g} is not possible: expected 1 or more", hint="--rank 16, or leave it out")
    if not rule._counts and not 0 <= value <= 1:
        raise UsageError(f"{kind} {value:g} is not possible: expected 0 to 1", hint="--energy 0.99 or --tolerance 0.01")
    return rule


def _fit(text: str) -> RankRule:
    name, _, limit = text.partition(":")
    if name not in SERVERS or not limit.isdecimal() or int(limit) < 1:
        raise UsageError(
            f"cannot fit {text!r}: expected SERVER:RANK with one of {', '.join(SERVERS)}", hint="--fit vllm:16"
        )
    possible = SERVERS[name].ranks
    if possible and int(limit) not in possible:
        raise UsageError(
            f"{name} cannot be started with rank {limit}: expected one of {', '.join(map(str, possible))}",
            hint=f"--fit {name}:{max([rank for rank in possible if rank < int(limit)], default=possible[0])}",
        )
    return RankRule("fit", int(limit), name)


@dataclass(frozen=True)
class ModuleCost:
    """One module in a budget: the squares of its singular values, and what one more rank costs in parameters."""

    squares: Sequence[float]
    each: int


def spend_budget(budget: int, modules: Sequence[ModuleCost]) -> list[int]:
    """The ranks that keep the most energy for ``budget`` parameters: greedy by σ²/(out+in), at least 1 everywhere.

    Greedy is optimal up to the one value that no longer fits, for squares fall within a module. Raises UsageError
    if rank 1 everywhere is more than the budget already.
    """
    ranks = [1] * len(modules)
    left = budget - sum(module.each for module in modules)
    if left < 0:
        least = sum(module.each for module in modules)
        raise UsageError(
            f"a budget of {budget:,} parameters is not possible: rank 1 in every module is {least:,}",
            hint=f"--budget {least}",
        )
    queue = [(-m.squares[1] / m.each, i) for i, m in enumerate(modules) if len(m.squares) > 1]
    heapq.heapify(queue)
    while queue:
        gain, i = heapq.heappop(queue)
        if gain == 0 or modules[i].each > left:
            continue
        left -= modules[i].each
        ranks[i] += 1
        if ranks[i] < len(modules[i].squares):
            heapq.heappush(queue, (-modules[i].squares[ranks[i]] / modules[i].each, i))
    return ranks
