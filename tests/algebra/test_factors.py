"""The algebra on factors against the same thing done densely in float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loreg.algebra.factors import (
    Factors,
    inner,
    retained,
    rounding_error,
    spectrum,
    squared_norm,
    stack,
    truncate,
)

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 10))


@st.composite
def factors(draw: st.DrawFn, shape: tuple[int, int] | None = None) -> Factors:
    out, in_ = shape or draw(SHAPES)
    rank = draw(st.integers(1, 14))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = draw(st.floats(0.01, 8)) * draw(st.sampled_from([1, -1]))
    b = torch.randn(out, rank, generator=generator, dtype=torch.float64)
    return Factors(b, torch.randn(rank, in_, generator=generator, dtype=torch.float64), scale)


@st.composite
def several(draw: st.DrawFn) -> list[Factors]:
    shape = draw(SHAPES)
    return draw(st.lists(factors(shape), min_size=1, max_size=4))


def dense(x: Factors) -> Tensor:
    return x.scale * x.b.double() @ x.a.double()


def close(found: Tensor | float, expected: Tensor | float) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-9, atol=1e-9)


@given(several(), st.data())
def test_a_stack_is_the_weighted_sum(parts: list[Factors], data: st.DataObject):
    weights = data.draw(st.lists(st.floats(-3, 3), min_size=len(parts), max_size=len(parts)))
    close(dense(stack(parts, weights)), sum(w * dense(p) for p, w in zip(parts, weights, strict=True)))


@given(factors())
def test_a_spectrum_is_the_singular_value_decomposition(x: Factors):
    full = spectrum(x)
    expected = torch.linalg.svdvals(dense(x))
    k = min(full.s.numel(), expected.numel())
    close(full.s[:k], expected[:k])
    assert float(expected[k:].sum()) < 1e-9
    close(full.u * full.s @ full.v.T, dense(x))
    identity = torch.eye(full.s.numel(), dtype=torch.float64)
    close(full.u.T @ full.u, identity)
    close(full.v.T @ full.v, identity)


@given(factors(), st.integers(1, 16))
def test_a_truncation_is_the_best_of_its_rank(x: Factors, rank: int):
    kept = truncate(spectrum(x), rank)
    u, s, vh = torch.linalg.svd(dense(x), full_matrices=False)
    close(dense(kept), u[:, :rank] * s[:rank] @ vh[:rank])
    assert kept.b.shape == (x.b.shape[0], rank)
    assert kept.a.shape == (rank, x.a.shape[1])


@given(factors())
def test_a_truncation_is_balanced_and_its_signs_are_fixed(x: Factors):
    kept = truncate(spectrum(x), spectrum(x).numerical_rank())
    close(kept.b.norm(dim=0), kept.a.norm(dim=1))
    assert bool((kept.b.gather(0, kept.b.abs().argmax(dim=0, keepdim=True)) > 0).all())


@given(factors(), st.integers(0, 2**32))
def test_refactoring_changes_nothing(x: Factors, seed: int):
    """(B·G, G⁻¹·A) is the same delta."""
    rank = x.a.shape[0]
    g = torch.linalg.qr(torch.randn(rank, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    other = Factors(x.b @ g, g.T @ x.a, x.scale)
    close(spectrum(other).s, spectrum(x).s)
    close(squared_norm(other), squared_norm(x))


@given(several())
def test_inner_products_and_norms_are_the_dense_ones(parts: list[Factors]):
    close(inner(parts[0], parts[-1]), float((dense(parts[0]) * dense(parts[-1])).sum()))
    close(squared_norm(parts[0]), float(dense(parts[0]).square().sum()))


@given(several(), st.integers(1, 14))
def test_what_a_truncation_retains_of_a_source(parts: list[Factors], rank: int):
    full = spectrum(stack(parts, [1.0] * len(parts)))
    u, v = full.u[:, :rank], full.v[:, :rank]
    for part in parts:
        close(retained(full, rank, part), float((u.T @ dense(part) @ v).square().sum()))


@settings(max_examples=40)
@given(factors(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_error_of_rounding_is_the_dense_one(x: Factors, dtype: torch.dtype):
    exact = Factors(x.b * x.scale, x.a)
    rounded = Factors(exact.b.to(dtype), exact.a.to(dtype))
    expected = float((dense(rounded) - dense(exact)).square().sum())
    torch.testing.assert_close(
        torch.tensor(rounding_error(exact, rounded), dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-3,
        atol=1e-20,
    )


def test_a_numerical_rank_does_not_count_rounding():
    b = torch.randn(30, 2, dtype=torch.float64)
    a = torch.randn(2, 20, dtype=torch.float64)
    doubled = Factors(torch.cat([b, 0.3 * b], dim=1), torch.cat([a, a]))
    assert spectrum(doubled).numerical_rank() == 2
    assert spectrum(Factors(torch.zeros(4, 3), torch.ones(3, 5))).numerical_rank() == 0
