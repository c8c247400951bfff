"""Put adapters that were compared into an order in which alike ones are neighbours, and group near duplicates."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from loreg.entities import AdapterComparison
from loreg.identity.clusters import link, seriate

FEW = 4  # adapters, which stay in the order in which they were named


def sort_by_likeness(comparison: AdapterComparison) -> AdapterComparison:
    """Return the comparison with alike adapters as neighbours; a few stay in the order in which they were named."""
    return comparison if len(comparison.labels) <= FEW else comparison.reorder(order_by_likeness(comparison))


def order_by_likeness(comparison: AdapterComparison) -> list[int]:
    """Return an order of the adapters that were compared, by their places, in which alike ones are neighbours."""
    return seriate(1 - np.array(comparison.matrix("cosine")))


def group_near_duplicates(comparison: AdapterComparison) -> list[list[int]]:
    """Return which of the adapters that were compared are nearly the same, in groups of places."""
    count = len(comparison.labels)
    places = zip(combinations(range(count), 2), comparison, strict=True)
    return link(count, (place for place, pair in places if pair.near_duplicate))
