"""Group adapters whose deltas are nearly the same, and put many into an order in which alike ones are neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: The cosine above which two deltas differ by noise.
NEAR_DUPLICATE = 0.99
_BLOCK = 1024  # rows of the matrix of cosines at a time


def cluster(vectors: Sequence[Array], threshold: float) -> list[list[int]]:
    """Return the positions of the vectors that hang together, in groups of two or more, the first of each ascending.

    Two are joined if the magnitude of their cosine is ``threshold`` or more, and whatever is joined to both with them
    (single linkage). A vector of zeros is joined to none.
    """
    if not vectors:
        return []
    matrix = np.array(vectors, np.float32)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms > 0)
    close: list[tuple[int, int]] = []
    for start in range(0, len(vectors), _BLOCK):
        cosines = np.abs(matrix[start : start + _BLOCK] @ matrix[start:].T)
        close += [(start + int(i), start + int(j)) for i, j in np.argwhere(cosines >= threshold) if i < j]
    return link(len(vectors), close)


def link(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the positions below ``count`` that ``pairs`` hang together, in groups of two or more, each ascending."""
    parents = list(range(count))
    for one, other in pairs:
        first, second = sorted((_root(parents, one), _root(parents, other)))
        parents[second] = first
    groups: dict[int, list[int]] = {}
    for place in range(count):
        groups.setdefault(_root(parents, place), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def seriate(distances: Array) -> list[int]:
    """Return an order of n items in which close ones are neighbours, from their distances (n, n).

    Average linkage builds a tree (UPGMA, Sokal and Michener 1958); of its two branches each is turned so that the ends
    that meet are the closest (Gruvaeus and Wainer 1972).
    """
    orders = [[place] for place in range(len(distances))]
    between = np.array(distances, np.float64)
    np.fill_diagonal(between, np.inf)
    while len(orders) > 1:
        # merge the two closest clusters
        i, j = sorted(int(place) for place in np.unravel_index(np.argmin(between), between.shape))
        weights = len(orders[i]), len(orders[j])
        merged = np.average(between[[i, j]], axis=0, weights=weights)
        orders[i] = _meet(orders[i], orders[j], distances)
        between[i], between[:, i] = merged, merged
        between[i, i] = np.inf
        del orders[j]
        between = np.delete(np.delete(between, j, axis=0), j, axis=1)
    return orders[0] if orders else []


def _meet(one: list[int], other: list[int], distances: Array) -> list[int]:
    """Return the two orders as one, each turned so that their ends fit best."""
    turned = [(a, b) for a in (one, one[::-1]) for b in (other, other[::-1])]
    first, second = min(turned, key=lambda pair: float(distances[pair[0][-1]][pair[1][0]]))
    return first + second


def _root(parents: list[int], place: int) -> int:
    while parents[place] != place:
        parents[place] = parents[parents[place]]
        place = parents[place]
    return place
