"""What an adapter meets of a base's change, beside dense projections by torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loreg.upgrading.touched_change import TouchedChange, delta_directions, measure_touched


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_figures(weight: torch.Tensor, change: torch.Tensor, delta: torch.Tensor) -> dict[str, float]:
    """The definitions, by projectors from the full singular value decomposition of the dense delta."""
    u, s, vh = torch.linalg.svd(delta)
    rank = int((s > 1e-9 * s[0]).sum())
    onto_read, onto_written = vh[:rank].T @ vh[:rank], u[:, :rank] @ u[:, :rank].T
    return {
        "delta": float((delta**2).sum()),
        "weight": float((weight**2).sum()),
        "change": float((change**2).sum()),
        "read": float(((change @ onto_read) ** 2).sum()),
        "written": float(((onto_written @ change) ** 2).sum()),
        "both": float(((onto_written @ change @ onto_read) ** 2).sum()),
        "inner": float((change * delta).sum()),
    }


def figures(
    weight: torch.Tensor, change: torch.Tensor, *factors: tuple[torch.Tensor, torch.Tensor]
) -> list[TouchedChange]:
    deltas = [delta_directions(b.numpy(), a.numpy()) for b, a in factors]
    return list(measure_touched(weight.numpy(), change.numpy(), deltas))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6))
def test_each_figure_is_that_of_the_dense_projections(out: int, in_: int, rank: int, seed: int):
    weight, change = draw(out, in_, seed=seed), draw(out, in_, seed=seed + 1)
    b, a = draw(out, rank, seed=seed + 2), draw(rank, in_, seed=seed + 3)
    (actual,) = figures(weight, change, (b, a))
    for name, expected in dense_figures(weight, change, b @ a).items():
        assert getattr(actual, name) == pytest.approx(expected, rel=1e-8, abs=1e-10), name


def test_a_change_outside_of_what_is_read_and_written_is_not_met():
    b, a = torch.zeros(6, 2).double(), torch.zeros(2, 5).double()
    b[0, 0] = b[1, 1] = a[0, 0] = a[1, 1] = 1
    change = torch.zeros(6, 5).double()
    change[2:, 2:] = 3
    (actual,) = figures(torch.ones(6, 5).double(), change, (b, a))
    assert (actual.read, actual.written, actual.both, actual.inner) == (0, 0, 0, 0)
    assert actual.change == 9 * 4 * 3


def test_an_upgrade_that_took_the_adapter_in_lies_wholly_in_what_it_reads_and_writes():
    b, a = draw(12, 3, seed=1), draw(3, 10, seed=2)
    (actual,) = figures(draw(12, 10, seed=3), b @ a, (b, a))
    for figure in (actual.change, actual.read, actual.written, actual.both, actual.inner):
        assert figure == pytest.approx(actual.delta)


def test_another_factorisation_of_the_same_delta_meets_the_same():
    weight, change, b, a = draw(12, 10, seed=1), draw(12, 10, seed=2), draw(12, 3, seed=3), draw(3, 10, seed=4)
    turn = draw(3, 3, seed=5)
    wider = torch.cat([b @ turn, torch.zeros(12, 2)], 1), torch.cat([torch.linalg.inv(turn) @ a, draw(2, 10, seed=6)])
    one, other = figures(weight, change, (b, a), wider)
    for name in ("delta", "read", "written", "both", "inner"):
        assert getattr(other, name) == pytest.approx(getattr(one, name)), name


def test_a_delta_of_zero_reads_and_writes_nothing():
    (actual,) = figures(draw(4, 5, seed=1), draw(4, 5, seed=2), (torch.zeros(4, 2).double(), draw(2, 5, seed=3)))
    assert (actual.delta, actual.read, actual.written, actual.both, actual.inner) == (0, 0, 0, 0, 0)
    assert actual.change > 0


def test_many_adapters_side_by_side_have_the_figures_that_each_has_alone():
    weight, change = draw(40, 30, seed=1), draw(40, 30, seed=2)
    factors = [(draw(40, 16, seed=10 + i), draw(16, 30, seed=200 + i)) for i in range(150)]  # 2,400 columns
    of_all = figures(weight, change, *factors)
    for pair, actual in zip(factors, of_all, strict=True):
        (alone,) = figures(weight, change, pair)
        assert actual.read == pytest.approx(alone.read, rel=1e-12)
        assert actual.written == pytest.approx(alone.written, rel=1e-12)


def test_the_figures_of_two_matrices_are_those_of_the_block_diagonal_one():
    pieces = [
        (draw(6, 5, seed=s), draw(6, 5, seed=s + 1), draw(6, 2, seed=s + 2), draw(2, 5, seed=s + 3)) for s in (1, 9)
    ]
    (one,), (other,) = (figures(w, d, (b, a)) for w, d, b, a in pieces)
    blocks = [torch.block_diag(*(piece[i] for piece in pieces)) for i in range(4)]
    expected = dense_figures(blocks[0], blocks[1], blocks[2] @ blocks[3])
    for name in ("delta", "change", "read", "written", "inner"):
        assert getattr(one + other, name) == pytest.approx(expected[name]), name


def test_a_base_in_float32_is_measured_to_its_precision():
    weight, change, b, a = draw(64, 48, seed=1), draw(64, 48, seed=2), draw(64, 4, seed=3), draw(4, 48, seed=4)
    deltas = [delta_directions(b.numpy().astype(np.float32), a.numpy().astype(np.float32))]
    (actual,) = measure_touched(weight.float().numpy(), change.float().numpy(), deltas)
    expected = dense_figures(weight, change, b @ a)
    assert actual.read == pytest.approx(expected["read"], rel=1e-5)
    assert actual.inner == pytest.approx(expected["inner"], rel=1e-4)
