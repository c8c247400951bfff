"""What is computed without holding the matrix: order statistics, the largest singular values, draws, subspaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from loreg.algebra import counter_rng
from loreg.algebra.order_statistics import kth_largest
from loreg.algebra.sketch import randomized_svd
from loreg.algebra.tucker import shared_subspaces

CPU = torch.device("cpu")


@given(st.data())
@settings(max_examples=200)
def test_a_cut_is_between_the_kth_and_the_next_whatever_the_sample(data: st.DataObject):
    numbers = torch.tensor(data.draw(st.lists(st.floats(-5, 5), min_size=2, max_size=60)), dtype=torch.float64)
    sample = torch.tensor(data.draw(st.lists(st.sampled_from(numbers.tolist()), min_size=1, max_size=8))).double()
    k = data.draw(st.integers(1, numbers.numel() - 1))
    threshold = kth_largest(lambda: numbers.split(7), sample, numbers.numel(), k)
    ordered = sorted(numbers.tolist(), reverse=True)
    assert float(threshold) == pytest.approx((ordered[k - 1] + ordered[k]) / 2, abs=1e-15)


def test_a_good_sample_needs_one_pass():
    numbers = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    passes = []

    def tiles():
        passes.append(1)
        return numbers.split(10_000)

    threshold = kth_largest(tiles, numbers[::10], numbers.numel(), 40_000)
    assert int((numbers >= threshold).sum()) == 40_000
    assert len(passes) == 1


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (12, 8), (1, 5)])
@pytest.mark.parametrize("rank", [1, 4, 30])
def test_the_largest_singular_values_of_tiles(shape: tuple[int, int], rank: int):
    generator = torch.Generator().manual_seed(1)
    u = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=generator, dtype=torch.float64))[0]
    sigmas = 0.8 ** torch.arange(min(shape), dtype=torch.float64)
    matrix = u * sigmas @ v.T
    tiles = [(first, matrix[first : first + 7]) for first in range(0, shape[0], 7)]
    left, s, right, energy = randomized_svd(lambda: tiles, shape, rank, CPU)
    keep = min(rank, *shape)
    torch.testing.assert_close(s[:keep], sigmas[:keep], rtol=1e-6, atol=0)
    torch.testing.assert_close(energy, sigmas.square().sum())
    # What a truncation loses is exact, for whatever vectors were found.
    lost = (matrix - left[:, :keep] * s[:keep] @ right[:, :keep].T).square().sum()
    torch.testing.assert_close(energy - s[:keep].square().sum(), lost, rtol=1e-9, atol=1e-12)


class TestDraws:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_are_the_documented_hash(self, share: float):
        key = counter_rng.derive_key("aa", "model.q_proj", 3)
        mask = counter_rng.bernoulli_mask(share, key, 0, 0, torch.empty(13, 11))
        assert torch.equal(mask, torch.from_numpy(oracles.uniform((13, 11), "aa", "model.q_proj", 3) < share))

    def test_do_not_depend_on_the_blocks(self):
        key = counter_rng.derive_key("a", "b", 0)
        whole = counter_rng.bernoulli_mask(0.4, key, 0, 0, torch.empty(50, 9))
        parts = [counter_rng.bernoulli_mask(0.4, key, first, 0, torch.empty(10, 9)) for first in range(0, 50, 10)]
        assert torch.equal(whole, torch.cat(parts))
        right = counter_rng.bernoulli_mask(0.4, key, 20, 5, torch.empty(3, 4))
        assert torch.equal(whole[20:23, 5:], right)

    @pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (1.0, 600)])
    def test_at_the_ends(self, share: float, kept: int):
        assert int(counter_rng.bernoulli_mask(share, 7, 0, 0, torch.empty(20, 30)).sum()) == kept

    def test_are_even_and_of_different_keys_independent(self):
        mask_a, mask_b = (
            counter_rng.bernoulli_mask(0.3, counter_rng.derive_key(word), 0, 0, torch.empty(400, 500)).double()
            for word in ("a", "b")
        )
        assert float(mask_a.mean()) == pytest.approx(0.3, abs=0.005)
        assert float((mask_a * mask_b).mean()) == pytest.approx(0.09, abs=0.005)
        assert float(mask_a.mean(0).std()) == pytest.approx((0.21 / 400) ** 0.5, rel=0.2)
        assert float(mask_a.mean(1).std()) == pytest.approx((0.21 / 500) ** 0.5, rel=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_shared_subspaces_keep_as_much_as_an_independent_fit(seed: int):
    deltas = [oracles.low_rank(14, 11, 3, 10 * seed + i) for i in range(3)]
    scale = np.mean([np.linalg.norm(d) for d in deltas])
    balanced = torch.from_numpy(np.stack([d * scale / np.linalg.norm(d) for d in deltas])).unsqueeze(0)
    u, v = shared_subspaces(balanced, 4)
    kept = float((u.mT.unsqueeze(1) @ balanced @ v.unsqueeze(1)).square().sum())
    _, _, best = oracles.tucker(deltas, 4)
    assert kept == pytest.approx(best, rel=1e-4)
    identity = torch.eye(4, dtype=torch.float64).unsqueeze(0)
    torch.testing.assert_close(u.mT @ u, identity)
    torch.testing.assert_close(v.mT @ v, identity)
