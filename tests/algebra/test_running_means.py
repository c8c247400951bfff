"""K running means of a stream, placed by inner products alone, against the dense vectors themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loreg.algebra.running_means import place_in_order


def by_hand(vectors: np.ndarray, keep: int) -> list[tuple[int, float | None]]:
    """K-Merge on dense vectors: the mean is updated as each one comes, by how many it holds."""
    means, counts, placed = [], [], []
    for x in vectors:
        if len(means) < keep:
            means.append(x.copy())
            counts.append(1)
            placed.append((len(means) - 1, None))
            continue
        cosines = [float(x @ m / (np.linalg.norm(x) * np.linalg.norm(m))) for m in means]
        best = int(np.argmax(cosines))
        means[best] += (x - means[best]) / (counts[best] + 1)
        counts[best] += 1
        placed.append((best, cosines[best]))
    return placed


@pytest.mark.parametrize("keep", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("seed", range(4))
def test_each_goes_where_the_dense_means_say(keep: int, seed: int):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(12, 40)) * generator.uniform(0.1, 10, size=(12, 1)) + 0.3
    placements = place_in_order(torch.from_numpy(vectors @ vectors.T), keep)
    expected = by_hand(vectors, keep)
    assert [p.group for p in placements] == [group for group, _ in expected]
    assert [p.cosine for p in placements] == [c if c is None else pytest.approx(c) for _, c in expected]


def test_an_opposite_one_joins_what_it_opposes_least():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1]])
    assert place_in_order(torch.from_numpy(vectors @ vectors.T), 2)[2].group == 1


def test_a_delta_of_zero_is_similar_to_none_and_joins_the_first():
    placement = place_in_order(torch.zeros(3, 3), 2)[2]
    assert (placement.group, placement.cosine) == (0, 0.0)
