"""The algebra on factors against the same thing done densely in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loreg.algebra.canonical import canonicalize
from loreg.algebra.factors import Factors, inner_product, rounding_error, squared_norm, stack
from loreg.algebra.frames import frame, frame_stack
from loreg.algebra.spectrum import Spectrum, decompose, retained_energy

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 10))
MODULES = 2


@st.composite
def factors(draw: st.DrawFn, shape: tuple[int, int] | None = None) -> Factors:
    out, in_ = shape or draw(SHAPES)
    rank = draw(st.integers(1, 14))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scale = draw(st.floats(0.01, 8)) * draw(st.sampled_from([1, -1]))
    b = torch.randn(MODULES, out, rank, generator=generator, dtype=torch.float64)
    return Factors(scale * b, torch.randn(MODULES, rank, in_, generator=generator, dtype=torch.float64))


@st.composite
def factors_of_sources(draw: st.DrawFn) -> list[Factors]:
    shape = draw(SHAPES)
    return draw(st.lists(factors(shape), min_size=1, max_size=4))


def dense(x: Factors) -> Tensor:
    return x.b.double() @ x.a.double()


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def spectrum_of(parts: list[Factors], weights: list[float]) -> Spectrum:
    view = frame_stack(stack(parts))
    coefficients = torch.tensor([weights] * MODULES, dtype=torch.float64)
    return decompose(view.left, view.right, view.weighted_sum(coefficients))


@given(factors_of_sources(), st.data())
def test_a_weighted_sum_in_frames_is_the_dense_one(parts: list[Factors], data: st.DataObject):
    weights = data.draw(st.lists(st.floats(-3, 3), min_size=len(parts), max_size=len(parts)))
    spectrum = spectrum_of(parts, weights)
    expected = sum(w * dense(p) for p, w in zip(parts, weights, strict=True))
    full_rank = torch.full((MODULES,), spectrum.s.shape[-1])
    close(dense(spectrum.truncate(full_rank)), expected)
    close(spectrum.energy, expected.square().sum((-2, -1)))


@given(factors())
def test_a_spectrum_is_the_singular_value_decomposition(x: Factors):
    spectrum, expected = spectrum_of([x], [1.0]), torch.linalg.svdvals(dense(x))
    k = min(spectrum.s.shape[-1], expected.shape[-1])
    close(spectrum.s[:, :k], expected[:, :k])
    assert float(expected[:, k:].sum()) < 1e-9


@given(factors(), st.integers(1, 16), st.integers(1, 16))
def test_a_truncation_is_the_best_of_its_rank_in_every_module(x: Factors, first: int, second: int):
    ranks = torch.tensor([first, second])
    spectrum = spectrum_of([x], [1.0])
    truncated = spectrum.truncate(ranks)
    u, s, vh = torch.linalg.svd(dense(x), full_matrices=False)
    for i, rank in enumerate((first, second)):
        best = u[i, :, :rank] * s[i, :rank] @ vh[i, :rank]
        close(dense(truncated)[i], best)
        assert float(truncated.b[i, :, rank:].abs().sum()) == 0
        close(spectrum.truncation_error(ranks)[i], (dense(x)[i] - best).square().sum())
    assert truncated.rank == max(first, second)


@given(factors())
def test_a_truncation_is_balanced_and_its_signs_are_fixed(x: Factors):
    spectrum = spectrum_of([x], [1.0])
    truncated = spectrum.truncate(spectrum.numerical_rank())
    close(truncated.b.norm(dim=-2), truncated.a.norm(dim=-1))
    largest = truncated.b.gather(-2, truncated.b.abs().argmax(dim=-2, keepdim=True))
    assert bool((largest >= 0).all())


@pytest.mark.parametrize("scales", [[1.0, 1.0, 1.0], [1e9, 1.0, 1e-9]])
@pytest.mark.parametrize("way", ["independent", "dependent", "wide", "zero"])
def test_a_frame_is_orthonormal_whichever_way_it_is_made(way: str, scales: list[float]):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 30, 6, generator=generator, dtype=torch.float64)
    x[..., :3] *= torch.tensor(scales, dtype=torch.float64)
    if way == "dependent":
        x[..., 3] = x[..., 2] * (1 + 1e-12)
    if way == "wide":
        x = x.mT.contiguous()
    if way == "zero":
        x[1] = 0
    basis = frame(x)
    assert basis.implicit == (way == "independent")
    identity = torch.eye(basis.r.shape[-2], dtype=torch.float64).expand(4, -1, -1)
    q = basis.to_full_space(identity)
    close(q.mT @ q, identity, 1e-9)
    columns = x.norm(dim=-2, keepdim=True).clamp_min(1e-300)
    close(q @ basis.r / columns, x / columns, 1e-9)


@given(factors_of_sources())
def test_inner_products_norms_and_grams_are_the_dense_ones(parts: list[Factors]):
    deltas = [dense(part) for part in parts]
    close(inner_product(parts[0], parts[-1]), (deltas[0] * deltas[-1]).sum((-2, -1)))
    close(squared_norm(parts[0]), deltas[0].square().sum((-2, -1)))
    view = frame_stack(stack(parts))
    gram = torch.stack([torch.stack([(x * y).sum((-2, -1)) for y in deltas], -1) for x in deltas], -2)
    close(view.gram(), gram)
    close(view.cores().square().sum((-2, -1)), torch.stack([d.square().sum((-2, -1)) for d in deltas]))


@given(factors_of_sources(), st.integers(1, 14))
def test_what_a_truncation_retains_of_a_source(parts: list[Factors], rank: int):
    view = frame_stack(stack(parts))
    spectrum = spectrum_of(parts, [1.0] * len(parts))
    u, v = (side.to_full_space(x)[..., :rank] for side, x in ((view.left, spectrum.u), (view.right, spectrum.v)))
    ranks = torch.full((MODULES,), rank)
    for part, part_in_frames in zip(parts, view.sources(), strict=True):
        expected = (u.mT @ dense(part) @ v).square().sum((-2, -1))
        close(retained_energy(spectrum.u, spectrum.v, part_in_frames, ranks), expected)


@given(factors())
def test_the_canonical_form_is_the_thin_decomposition(x: Factors):
    form = canonicalize(x)
    close(form.u * form.s.unsqueeze(-2) @ form.v.mT, dense(x))
    close(form.s[..., :1], torch.linalg.svdvals(dense(x))[..., :1])


@settings(max_examples=40)
@given(factors(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_error_of_rounding_is_the_dense_one(x: Factors, dtype: torch.dtype):
    spectrum = spectrum_of([x], [1.0])
    exact = spectrum.truncate(spectrum.numerical_rank())
    rounded = Factors(exact.b.to(dtype), exact.a.to(dtype))
    expected = (dense(rounded) - dense(exact)).square().sum((-2, -1))
    precision = torch.finfo(dtype).eps
    torch.testing.assert_close(rounding_error(exact, rounded), expected, rtol=8 * precision + 1e-6, atol=1e-20)


def test_a_numerical_rank_does_not_count_rounding():
    b = torch.randn(1, 30, 2, dtype=torch.float64)
    a = torch.randn(1, 2, 20, dtype=torch.float64)
    doubled = Factors(torch.cat([b, 0.3 * b], dim=-1), torch.cat([a, a], dim=-2))
    view = frame_stack(stack([doubled]))
    assert decompose(view.left, view.right, view.weighted_sum(torch.ones(1, 1).double())).numerical_rank().tolist() == [
        2
    ]
