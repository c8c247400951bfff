"""What a truncation costs: the error at each rank, and where the merge that was written lies among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


class RankError:
    """The errors of one merge by rank, from its certificate and the singular values of its deltas.

    ``uniform`` has ε of all modules together if each had the rank 0, 1, 2, …; ``sufficient`` the ranks that keep 90, 99
    and 99.9 % of the energy in every module, as they are printed, by share. ``written`` is the average rank of a module
    and ε as they were written, ``ranks`` the least and the largest. A merge whose modules differ in rank does not lie
    on ``uniform``: its error is that of its own ranks.
    """

    def __init__(self, certificate: Mapping[str, Any], spectra: Mapping[str, Sequence[float]]) -> None:
        total = certificate["total"]
        self.uniform = _errors_by_rank(total["norm"] ** 2, list(spectra.values()))
        self.sufficient: dict[str, int] = {
            share: rank for share, rank in total["ranks"].items() if rank is not None and rank < len(self.uniform)
        }
        ranks = [module["rank"] for module in certificate["modules"]]
        self.ranks: tuple[int, int] = (min(ranks), max(ranks))
        self.written: tuple[float, float] = (sum(ranks) / len(ranks), total["epsilon"])


def _errors_by_rank(energy: float, spectra: Sequence[Sequence[float]]) -> list[float]:
    """Return ``√(Σ_{i>r} σᵢ² / Σ σᵢ²)`` over all modules, for r = 0, 1, 2, …"""
    count = max((len(values) for values in spectra), default=0)
    lost, errors = energy, [1.0]
    for place in range(count):
        lost -= sum(values[place] ** 2 for values in spectra if place < len(values))
        errors.append(math.sqrt(max(lost, 0.0) / energy) if energy else 0.0)
    return errors
