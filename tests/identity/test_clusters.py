"""Near-duplicates hang together, and an order of many puts alike ones side by side."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from loreg.entities import AdapterComparison, AdapterSimilarity
from loreg.identity.clusters import cluster, link, seriate


def test_vectors_hang_together_by_the_magnitude_of_their_cosine_and_through_each_other():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 256))
    turn = np.array([np.cos(0.1), np.sin(0.1)])  # of 0.1 to the first, 0.2 is too far
    orthogonal = other - one * (one @ other) / (one @ one)
    chain = [one, turn @ [one, orthogonal * np.linalg.norm(one) / np.linalg.norm(orthogonal)]]
    groups = cluster([one, rng.standard_normal(256), -3 * chain[1], np.zeros(256), np.zeros(256)], 0.99)
    assert groups == [[0, 2]]
    assert cluster([], 0.99) == []


def test_groups_are_found_across_blocks():
    rng = np.random.default_rng(1)
    vectors = list(rng.standard_normal((2500, 64)))
    vectors[2400] = 2 * vectors[3]
    vectors[1100] = -vectors[3]
    assert cluster(vectors, 0.99) == [[3, 1100, 2400]]


def test_links_join_what_they_join():
    assert link(6, [(4, 1), (5, 4), (0, 2)]) == [[0, 2], [1, 4, 5]]


@pytest.mark.parametrize("seed", range(5))
def test_points_on_a_line_come_in_their_order(seed: int):
    rng = np.random.default_rng(seed)
    points = rng.permutation(12) + rng.uniform(-0.2, 0.2, 12)
    distances = np.abs(points[:, None] - points[None])
    order = seriate(distances)
    assert sorted(order) == list(range(12))
    assert sum(distances[i, j] for i, j in pairwise(order)) < 2 * (points.max() - points.min())


def test_an_order_of_few_keeps_groups_together():
    groups = np.array([0, 1, 0, 1, 0])
    distances = np.where(groups[:, None] == groups[None], 0.1, 1.0) * (1 - np.eye(5))
    order = seriate(distances)
    changes = min(sum(groups[i] != groups[j] for i, j in pairwise(way)) for way in permutations(range(5)))
    assert sum(groups[i] != groups[j] for i, j in pairwise(order)) == changes


def test_one_and_none_have_an_order():
    assert seriate(np.zeros((0, 0))) == []
    assert seriate(np.zeros((1, 1))) == [0]


def test_a_comparison_in_another_order_says_the_same_of_every_two():
    pairs = [AdapterSimilarity(a, b, 1, c, 0.5, 0.5, 0, r, False) for a, b, c, r in
             (("a", "b", 0.1, 2.0), ("a", "c", 0.9, 0.0), ("b", "c", 0.2, 0.0))]  # fmt: skip
    turned = AdapterComparison(pairs).reorder([1, 0, 2])
    assert turned.labels == ("b", "a", "c")
    assert {(pair.a, pair.b): (pair.cosine, pair.norm_ratio) for pair in turned} == {
        ("b", "a"): (0.1, 0.5), ("b", "c"): (0.2, 0.0), ("a", "c"): (0.9, 0.0),
    }  # fmt: skip
    assert AdapterComparison(pairs).reorder([2, 0, 1])[0].norm_ratio is None  # of nothing to something
    assert tuple(turned.reorder([1, 0, 2])) == tuple(pairs)
