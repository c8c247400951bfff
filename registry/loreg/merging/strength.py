"""Say where a merge is so strong that it is known to overshoot, by the lengths of the deltas themselves.

Weights alone do not tell: orthogonal deltas add up to √T times their length, equal ones to T times, and adapters of
disjoint modules do not meet. The norms that every module is certified with do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from loreg.merging.certificate import CertifiedModule

#: Length of the merged delta, of that of the longest source. The best was 0.5 for eight adapters of SmolLM2-135M, 0.7
#: for four, and 0.9 for six of MiniLM (benchmarks/RESULTS.md).
_BEST = 0.7
_LONG = 1.25


def describe_strength(adds_up: bool, scale: float, modules: Sequence[CertifiedModule]) -> Iterator[str]:
    """Say, in words for the user, that a merge overshoots, and at which λ it would not.

    ``adds_up`` says whether the method makes a longer delta of more sources, ``scale`` is λ as it was;
    ``modules`` are those of the result, of which the ones with several sources count.
    """
    if not adds_up:
        return
    shared = [part.energies for part in modules if sum(whole > 0 for _, whole in part.energies.sources) > 1]
    by_source = zip(*([whole for _, whole in energies.sources] for energies in shared), strict=True)
    longest = max(map(sum, by_source), default=0.0)
    if not longest:
        return
    length = math.sqrt(sum(energies.whole for energies in shared) / longest)
    if length > _LONG:
        yield (
            f"the merged delta is {length:.1f} times as long as the longest of its sources, where they share modules; "
            f"on real adapters 0.5 to 0.9 times was best, and 2 times no better than the base: try --lambda "
            f"{scale * _BEST / length:.2g}, or loreg sweep"
        )
