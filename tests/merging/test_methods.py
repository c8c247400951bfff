"""Every method against the dense oracle, and the symmetries that it must have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils
from torch import Tensor

import oracles
from loreg.algebra.factors import Factors, stack
from loreg.errors import MergeError, UsageError
from loreg.merging.batch import Batch
from loreg.merging.methods import METHODS, find_method

OUT, IN = 21, 17
DIGESTS = ("ab" * 32, "cd" * 32, "ef" * 32)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def random_parts(ranks: tuple[int, ...], modules: int = 1, seed: int = 0, shape=(OUT, IN)) -> list[Factors]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return [Factors(draw(modules, shape[0], rank), draw(modules, rank, shape[1])) for rank in ranks]


def batch_of(parts: list[Factors], weights, rank: int | None = None, modules=None) -> Batch:
    n = parts[0].b.shape[0]
    names = tuple(modules or [f"m{i}" for i in range(n)])
    row_weights = torch.tensor([list(weights)] * n, dtype=torch.float64)
    stacked = stack(parts)
    seen = [stacked.a @ x for x in task_inputs(len(parts), stacked.a.shape[-1])]
    moments = torch.stack([y @ y.mT / y.shape[-1] for y in seen], dim=1)
    return Batch(stacked, row_weights, tuple(range(len(parts))), DIGESTS[: len(parts)], names, rank, moments=moments)


def task_inputs(count: int, width: int) -> list[Tensor]:
    """What the text of each source's task feeds to a layer, (in, 40): a function of the source, of large mean."""
    generators = [torch.Generator().manual_seed(int(digest[:8], 16)) for digest in DIGESTS[:count]]
    return [
        torch.randn(width, 40, generator=generator, dtype=torch.float64)
        * torch.logspace(0.5, -0.5, width, dtype=torch.float64).unsqueeze(-1)
        + torch.randn(width, 1, generator=generator, dtype=torch.float64)
        for generator in generators
    ]


def merged(name: str, parts: list[Factors], weights, rank: int | None = None, modules=None, **parameters) -> Tensor:
    """The merged deltas, dense; of a method of full rank all singular values."""
    method = find_method(name)
    values = method.values(parameters)
    batch = batch_of(parts, weights, rank, modules)
    if method.calibrate:
        batch = replace(batch, thresholds=method.calibrate(lambda: iter([batch]), values))
    spectrum = method.merge(batch, values)
    kept = spectrum.truncate(torch.full(spectrum.energy.shape, spectrum.s.shape[-1]))
    dense = kept.b @ kept.a
    precision = 1e-5 if parameters.get("precision") == "single" else 1e-9
    torch.testing.assert_close(spectrum.energy, dense.square().sum((-2, -1)), rtol=precision, atol=1e-12)
    return dense


def dense(parts: list[Factors], module: int = 0) -> list[np.ndarray]:
    return [(part.b[module] @ part.a[module]).numpy() for part in parts]


def same(actual: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(np.asarray(expected)), **CLOSE)


THREE = ((3, 5, 2), (0.7, 0.4, 1.1))
TWO = ((4, 3), (0.6, 0.9))


@pytest.mark.parametrize(
    ("name", "sources", "parameters"),
    [
        ("linear", THREE, {}),
        ("slerp", TWO, {}),
        ("karcher", THREE, {}),
        ("karcher", THREE, {"iterations": 200, "tolerance": 1e-12}),
        ("model_stock", THREE, {}),
        ("magnitude_prune", THREE, {}),
        ("magnitude_prune", THREE, {"density": 0.3}),
        ("ties", THREE, {}),
        ("ties", THREE, {"density": 0.6, "elect": "count"}),
        ("ties", THREE, {"density": 0.5, "sign": "unweighted", "mean": "count"}),
        ("ties", THREE, {"density": 1.0, "mean": "none"}),
        ("breadcrumbs", THREE, {}),
        ("breadcrumbs", THREE, {"density": 0.5, "gamma": 0.2}),
        ("core_ties", THREE, {}),
        ("core_ties", THREE, {"density": 0.7}),
        ("knots_ties", THREE, {}),
        ("knots_ties", THREE, {"density": 0.6}),
        ("tsv", THREE, {}),
        ("iso", THREE, {}),
        ("svc", THREE, {}),
        ("svc", THREE, {"alpha": 0.1}),
        ("wudi", THREE, {}),
        ("wudi", THREE, {"ridge": 0.3}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_method_does_what_its_paper_says(name: str, sources, parameters: dict, seed: int):
    ranks, weights = sources
    parts = random_parts(ranks, modules=2, seed=seed)
    for module in range(2):
        one = [Factors(part.b[module : module + 1], part.a[module : module + 1]) for part in parts]
        expected = getattr(oracles, name)(dense(parts, module), list(weights), **parameters)
        same(merged(name, one, weights, modules=[f"m{module}"], **parameters)[0], expected)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della"])
@pytest.mark.parametrize("parameters", [{}, {"density": 0.8, "seed": 7}])
def test_a_drawing_method_does_what_its_paper_says(name: str, parameters: dict):
    ranks, weights = THREE
    parts = random_parts(ranks)
    kept = (oracles.della if name == "della" else oracles.dare)(dense(parts), DIGESTS, "m0", **parameters)
    expected = oracles.linear(kept, weights) if name == "dare_linear" else oracles.elect(kept, weights)
    same(merged(name, parts, weights, **parameters)[0], expected)


@pytest.mark.parametrize("parameters", [{}, {"shrinkage": 0.0}, {"shrinkage": 0.7}])
@pytest.mark.parametrize("weights", [(0.7, 0.4, 1.1), (1.0, 1.0, 1.0), (2.0, 0.0, 1.0)])
def test_regmean_is_least_squares_over_what_the_adapters_do_to_the_text_of_their_tasks(weights, parameters: dict):
    parts = random_parts(THREE[0], modules=2)
    inputs = [x.numpy() for x in task_inputs(3, IN)]
    actual = merged("regmean", parts, weights, **parameters)
    for module in range(2):
        same(actual[module], oracles.regmean(dense(parts, module), weights, inputs, **parameters))


@pytest.mark.parametrize("common", [0.5, 0.8])
def test_iso_cts_does_what_its_paper_says(common: float):
    ranks, weights = THREE
    parts = random_parts(ranks)
    expected = oracles.iso_cts(dense(parts), weights, sum(ranks), common)
    same(merged("iso_cts", parts, weights, common=common)[0], expected)


def test_ctm_merges_coordinates_in_the_subspaces_that_fit_best():
    ranks, weights = THREE
    parts = random_parts(ranks)
    u, v, energy = oracles.tucker(dense(parts), 4)
    actual = merged("ctm", parts, weights, rank=4, density=1.0, elect="none")[0].numpy()
    projected = [u @ (u.T @ d @ v) @ v.T for d in dense(parts)]
    assert np.linalg.matrix_rank(actual) == 4
    assert energy > 0
    np.testing.assert_allclose(actual, oracles.linear(projected, weights), rtol=1e-3, atol=1e-3)


def test_ctm_at_the_sum_of_the_ranks_loses_nothing():
    ranks, weights = THREE
    parts = random_parts(ranks)
    actual = merged("ctm", parts, weights, rank=sum(ranks), density=1.0, elect="none")[0]
    same(actual, oracles.linear(dense(parts), weights))


class TestAgainstPeft:
    """PEFT's functions on the same dense tensors, with the conventions that are its own."""

    @pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
    @pytest.mark.parametrize("elect", [("mass", "total"), ("count", "frequency")])
    def test_ties(self, density: float, elect: tuple[str, str]):
        ranks, weights = THREE
        parts = random_parts(ranks)
        tensors = [torch.from_numpy(delta) for delta in dense(parts)]
        parameters = {"density": density, "elect": elect[0], "sign": "unweighted", "mean": "count"}
        expected = merge_utils.ties(tensors, torch.tensor(weights, dtype=torch.float64), density, elect[1])
        same(merged("ties", parts, weights, **parameters)[0], expected.numpy())

    @pytest.mark.parametrize("density", [0.2, 0.9])
    def test_magnitude_prune(self, density: float):
        ranks, weights = THREE
        parts = random_parts(ranks)
        tensors = [torch.from_numpy(delta) for delta in dense(parts)]
        expected = merge_utils.magnitude_prune(tensors, torch.tensor(weights, dtype=torch.float64), density)
        same(merged("magnitude_prune", parts, weights, density=density)[0], expected.numpy())

    @pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
    def test_dare_with_the_same_masks(self, name: str, monkeypatch: pytest.MonkeyPatch):
        ranks, weights = THREE
        parts = random_parts(ranks)
        tensors = [torch.from_numpy(delta) for delta in dense(parts)]
        masks = iter([torch.from_numpy(oracles.uniform((OUT, IN), digest, "m0", 3) < 0.4) for digest in DIGESTS])

        def bernoulli(input: Tensor) -> Tensor:  # noqa: A002 (that is what it is called)
            return next(masks).double()

        monkeypatch.setattr(torch, "bernoulli", bernoulli)
        expected = getattr(merge_utils, name)(tensors, torch.tensor(weights, dtype=torch.float64), 0.4)
        parameters = {"sign": "unweighted", "mean": "count"} if name == "dare_ties" else {}
        same(merged(name, parts, weights, density=0.4, seed=3, **parameters)[0], expected.numpy())


class TestRescaling:
    def test_to_the_same_sum_of_magnitudes(self):
        parts = random_parts((4,))
        actual = merged("magnitude_prune", parts, [1.0], density=0.3, rescale="l1")[0]
        (delta,) = dense(parts)
        assert float(actual.abs().sum()) == pytest.approx(np.abs(delta).sum())

    def test_a_draw_keeps_its_share_of_entries(self):
        parts = random_parts((4,), shape=(200, 150))
        actual = merged("dare_linear", parts, [1.0], density=0.3, rescale="none")[0]
        kept = float((actual.abs() > 1e-9).double().mean())
        assert kept == pytest.approx(0.3, abs=0.02)


class TestThreshold:
    def test_global_entries_compete_over_all_modules(self):
        parts = random_parts((3, 2), modules=2)
        parts = [Factors(p.b * torch.tensor([1.0, 100.0]).reshape(2, 1, 1), p.a) for p in parts]
        actual = merged("magnitude_prune", parts, [1.0, 1.0], density=0.5, threshold="global")
        deltas = [np.stack(dense([p], 0) + dense([p], 1)) for p in parts]
        expected = sum(oracles.top(delta, delta.size // 2) for delta in deltas)
        same(actual, expected)

    def test_knots_thresholds_are_global_by_default(self):
        assert {p.name: p.default for p in find_method("knots_ties").parameters}["threshold"] == "global"


@pytest.mark.parametrize("name", ["ties", "dare_ties", "breadcrumbs"])
def test_single_precision_is_the_same_to_its_precision(name: str):
    parts, weights = sources_for(name, 11)
    exact = merged(name, parts, weights)
    torch.testing.assert_close(merged(name, parts, weights, precision="single"), exact, rtol=1e-4, atol=1e-4)


def test_a_tie_goes_to_plus_or_to_the_majority():
    b = torch.zeros(1, 3, 1, dtype=torch.float64)
    one, two = b.clone(), b.clone()
    one[0, :, 0] = torch.tensor([1.0, -2.0, -3.0])
    two[0, :, 0] = torch.tensor([-1.0, -2.0, -3.0])
    a = torch.ones(1, 1, 2, dtype=torch.float64)
    parts = [Factors(one, a), Factors(two, a)]
    plus = merged("ties", parts, [1, 1], density=1.0)[0]
    majority = merged("ties", parts, [1, 1], density=1.0, tie="majority")[0]
    assert plus[:, 0].tolist() == pytest.approx([1, -2, -3])
    assert majority[:, 0].tolist() == pytest.approx([-1, -2, -3])


def test_factor_average_is_what_peft_calls_linear_and_not_the_weighted_sum():
    parts = random_parts((4, 4))
    weights = [0.7, -0.3]
    b = sum(abs(w) ** 0.5 * p.b[0] for w, p in zip(weights, parts, strict=True))
    a = sum(np.sign(w) * abs(w) ** 0.5 * p.a[0] for w, p in zip(weights, parts, strict=True))
    actual = merged("factor_average", parts, weights)[0]
    same(actual, (b @ a).numpy())
    assert np.linalg.norm(actual.numpy() - oracles.linear(dense(parts), weights)) > 1
    with pytest.raises(MergeError, match="ranks 4, 3"):
        merged("factor_average", random_parts((4, 3)), weights)


CASES = [name for name, method in METHODS.items() if name not in ("factor_average",)]
SYMMETRIC = [name for name in CASES if name != "slerp"]


def sources_for(name: str, seed: int) -> tuple[list[Factors], list[float]]:
    ranks, weights = TWO if name == "slerp" else THREE
    return random_parts(ranks, seed=seed), list(weights)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), spread=st.floats(0.1, 10))
def test_refactoring_changes_nothing(name: str, seed: int, spread: float):
    """``(B·G, G⁻¹·A)`` is the same adapter."""
    parts, weights = sources_for(name, seed)
    generator = torch.Generator().manual_seed(seed)
    other = []
    for part in parts:
        g = torch.linalg.qr(torch.randn(part.rank, part.rank, generator=generator, dtype=torch.float64))[0]
        g = g * torch.linspace(1, spread, part.rank, dtype=torch.float64)
        other.append(Factors(part.b @ g, torch.linalg.inv(g) @ part.a))
    torch.testing.assert_close(merged(name, other, weights), merged(name, parts, weights), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_scaling_one_factor_up_and_the_other_down_changes_nothing(name: str):
    parts, weights = sources_for(name, 5)
    other = [Factors(4 * part.b, part.a / 4) for part in parts]
    torch.testing.assert_close(merged(name, other, weights), merged(name, parts, weights), **CLOSE)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_order_of_the_sources_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch):
    parts, weights = sources_for(name, 6)
    expected = merged(name, parts, weights)
    monkeypatch.setattr(f"{__name__}.DIGESTS", DIGESTS[::-1])
    torch.testing.assert_close(merged(name, parts[::-1], weights[::-1]), expected, **CLOSE)


#: What looks at rows, or at one side first, or draws by row and column, is not the same of the transposed deltas.
ONE_SIDED = ("della", "dare_linear", "dare_ties", "knots_ties", "iso_cts", "svc", "ctm", "regmean", "wudi")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ONE_SIDED])
def test_transposed_deltas_give_the_transposed_result(name: str):
    parts, weights = sources_for(name, 7)
    flipped = [Factors(part.a.mT.contiguous(), part.b.mT.contiguous()) for part in parts]
    expected = merged(name, parts, weights).mT
    torch.testing.assert_close(merged(name, flipped, weights), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
class TestAtTheEdge:
    def check(self, name: str, parts: list[Factors], weights: list[float]) -> Tensor:
        actual = merged(name, parts[:2] if name == "slerp" else parts, weights[:2] if name == "slerp" else weights)
        assert bool(actual.isfinite().all())
        return actual

    def test_a_zero_source(self, name: str):
        parts, weights = sources_for(name, 8)
        zero = Factors(torch.zeros_like(parts[0].b), parts[0].a)
        self.check(name, [zero, *parts[1:]], weights)

    def test_only_zero_sources(self, name: str):
        parts, weights = sources_for(name, 8)
        zeros = [Factors(torch.zeros_like(part.b), part.a) for part in parts]
        assert float(self.check(name, zeros, weights).abs().max()) == 0

    def test_the_same_source_several_times(self, name: str):
        parts, _ = sources_for(name, 9)
        self.check(name, [parts[0]] * len(parts), [0.5] * len(parts))

    def test_rank_one(self, name: str):
        self.check(name, random_parts((1, 1, 1)), [0.7, 0.4, 1.1])

    def test_ranks_that_fill_the_matrix(self, name: str):
        parts = random_parts((9, 9, 9), shape=(11, 8))
        self.check(name, parts, [0.7, 0.4, 1.1])

    def test_rank_deficient_factors(self, name: str):
        parts = [Factors(torch.cat([p.b, p.b], -1), torch.cat([p.a, p.a], -2)) for p in random_parts((2, 3, 2))]
        self.check(name, parts, [0.7, 0.4, 1.1])

    def test_one_huge_and_one_tiny_source(self, name: str):
        parts, weights = sources_for(name, 10)
        self.check(name, [Factors(1e9 * parts[0].b, parts[0].a), *parts[1:]], weights)


@pytest.mark.parametrize(
    "name", ["ties", "dare_linear", "core_ties", "knots_ties", "tsv", "karcher", "svc", "ctm", "regmean", "wudi"]
)
def test_a_batch_is_its_modules_one_by_one(name: str):
    ranks, weights = THREE
    parts = random_parts(ranks, modules=4)
    parameters = {"threshold": "tensor"} if name == "knots_ties" else {}
    batched = merged(name, parts, weights, **parameters)
    for i in range(4):
        one = [Factors(part.b[i : i + 1], part.a[i : i + 1]) for part in parts]
        torch.testing.assert_close(
            batched[i : i + 1], merged(name, one, weights, modules=[f"m{i}"], **parameters), **CLOSE
        )


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_no_random_candidate_of_the_same_rank_is_nearer_than_linears_truncation(seed: int):
    parts, weights = sources_for("linear", seed)
    target = torch.from_numpy(oracles.linear(dense(parts), weights))
    method = find_method("linear")
    best = method.merge(batch_of(parts, weights), {}).truncate(torch.tensor([3]))
    nearest = torch.linalg.norm(best.b[0] @ best.a[0] - target)
    generator = torch.Generator().manual_seed(seed)
    for step in (1e-3, 1e-1, 1.0):
        b = best.b[0] + step * torch.randn(best.b[0].shape, generator=generator, dtype=torch.float64)
        a = torch.linalg.lstsq(b, target).solution  # the best partner of these columns
        assert torch.linalg.norm(b @ a - target) >= nearest - 1e-9


class TestWudi:
    """The closed form against the paper's way, which is to walk down the objective."""

    def objective(self, delta: Tensor, deltas: list[Tensor], weights: list[float], ridge: float) -> Tensor:
        mean = sum(weights) / len(weights)
        interference = sum(
            w / mean * ((delta - d) @ d.mT).square().sum() / d.square().sum()
            for w, d in zip(weights, deltas, strict=True)
        )
        return interference + ridge * delta.square().sum()

    @pytest.mark.parametrize("ridge", [0.01, 0.2])
    def test_no_perturbation_is_better(self, ridge: float):
        parts, weights = random_parts(THREE[0]), [0.7, 0.4, 1.1]
        deltas = [torch.from_numpy(delta) for delta in dense(parts)]
        best = merged("wudi", parts, weights, ridge=ridge)[0]
        lowest = self.objective(best, deltas, weights, ridge)
        generator = torch.Generator().manual_seed(1)
        for step in (1e-4, 1e-2, 1.0):
            for _ in range(20):
                moved = best + step * torch.randn(best.shape, generator=generator, dtype=torch.float64)
                assert self.objective(moved, deltas, weights, ridge) > lowest

    def test_gradient_descent_ends_there(self):
        parts, weights = random_parts(THREE[0]), [0.7, 0.4, 1.1]
        deltas = [torch.from_numpy(delta) for delta in dense(parts)]
        walked = sum(deltas).clone().requires_grad_()
        optimizer = torch.optim.SGD([walked], lr=0.2, momentum=0.9)
        for _ in range(3000):
            optimizer.zero_grad()
            self.objective(walked, deltas, weights, 0.05).backward()
            optimizer.step()
        torch.testing.assert_close(merged("wudi", parts, weights, ridge=0.05)[0], walked.detach(), rtol=1e-6, atol=1e-6)

    def test_the_same_source_twice_is_that_source(self):
        parts = random_parts((3,))
        same(merged("wudi", [parts[0], parts[0]], [1, 3], ridge=0.0)[0], dense(parts)[0])


class TestLeastSquares:
    @pytest.mark.parametrize("name", ["regmean", "wudi"])
    def test_a_source_alone_stays_as_it_is_whatever_its_weight(self, name: str):
        parts = random_parts((3,))
        same(merged(name, parts, [0.25])[0], dense(parts)[0])

    @pytest.mark.parametrize("name", ["regmean", "wudi"])
    def test_only_the_ratio_of_the_weights_counts(self, name: str):
        parts = random_parts(THREE[0])
        torch.testing.assert_close(
            merged(name, parts, [1, 2, 3]), merged(name, parts, [0.1, 0.2, 0.3]), rtol=1e-9, atol=1e-9
        )

    def test_regmean_shrunk_all_the_way_is_the_mean_by_the_size_of_each_tasks_inputs(self):
        parts = random_parts(THREE[0])
        rows = np.linalg.qr(np.concatenate([p.a[0].numpy() for p in parts]).T)[0]
        sizes = [float(((rows.T @ x.numpy()) ** 2).sum()) for x in task_inputs(3, IN)]
        expected = oracles.linear(dense(parts), np.array(sizes) / sum(sizes))
        same(merged("regmean", parts, [1, 1, 1], shrinkage=1.0)[0], expected)

    def test_rows_that_nearly_coincide_are_not_told_apart_by_rounding(self):
        """Two adapters of one seed: in float32 the moments of the difference of their rows are rounding alone."""
        first, second = random_parts((4, 4))
        twin = Factors(second.b, first.a + 1e-6 * second.a)
        batch = batch_of([first, twin], [1, 1])
        assert batch.moments is not None
        rounded = replace(batch, moments=batch.moments.float().double() * (1 + 1e-7 * torch.randn(8, 8).double()))
        spectrum = find_method("regmean").merge(rounded, find_method("regmean").values({}))
        limit = max(float(torch.linalg.matrix_norm(part.b @ part.a)) for part in (first, twin))
        assert float(spectrum.energy.sqrt()) < 1.5 * limit


class TestSpecialCases:
    def test_svc_does_not_count_the_same_source_twice(self):
        parts = random_parts((3,))
        same(merged("svc", [parts[0], parts[0]], [1, 1])[0], dense(parts)[0])

    def test_tsv_of_one_source_is_that_source(self):
        parts = random_parts((3,))
        same(merged("tsv", parts, [1.0])[0], dense(parts)[0])
        same(merged("tsv", [parts[0], parts[0]], [0.5, 0.5])[0], 0.5 * dense(parts)[0])

    def test_slerp_goes_from_one_source_to_the_other(self):
        parts = random_parts((3, 4))
        same(merged("slerp", parts, [1, 0])[0], dense(parts)[0])
        same(merged("slerp", parts, [0, 1])[0], dense(parts)[1])

    def test_model_stock_leaves_the_base_where_nothing_agrees(self):
        parts = random_parts((2, 2))
        opposite = Factors(-parts[0].b, parts[0].a)
        assert float(merged("model_stock", [parts[0], opposite], [1, 1]).abs().max()) < 1e-12


class TestParameters:
    def test_one_that_a_method_does_not_have(self):
        with pytest.raises(UsageError, match=r"linear has no parameter 'density'; it has none"):
            find_method("linear").values({"density": 0.5})

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"density": "much"}, "density is 'much', expected 0 to 1"),
            ({"density": 1.5}, "density is '1.5', expected 0 to 1"),
            ({"density": True}, "density is 'True'"),
            ({"elect": "nobody"}, r"elect is 'nobody', expected mass \| count"),
            ({"density": float("nan")}, "density is 'nan'"),
        ],
    )
    def test_a_value_that_is_not_possible(self, parameters: dict, message: str):
        with pytest.raises(UsageError, match=message):
            find_method("ties").values(parameters)

    def test_texts_from_a_command_line_mean_numbers(self):
        values = find_method("dare_ties").values({"density": "0.25", "seed": "12"})
        assert (values["density"], values["seed"]) == (0.25, 12)

    def test_a_method_that_does_not_exist(self):
        with pytest.raises(UsageError, match="no merge method 'magic'; there are linear, slerp"):
            find_method("magic")

    @pytest.mark.parametrize("name", METHODS)
    def test_every_method_names_its_source_and_explains_its_parameters(self, name: str):
        method = METHODS[name]
        assert method.summary and method.source
        for parameter in method.parameters:
            assert parameter.about
            assert parameter.read(parameter.default) == parameter.default
