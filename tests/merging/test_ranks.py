"""How many singular values are kept, by each rule, against the dense singular values of PEFT's deltas."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from deployments import empty_home
from factories import deltas_by_peft, new_model, relative_error, train
from loreg.entities import MergeOptions
from loreg.errors import UsageError
from loreg.merging.ranks import ModuleCost, read_rank_rule, spend_budget
from loreg.registry import Registry, connect
from loreg.verbs.merge import merge


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return train(tmp_path / "source", 1, r=8, rank_pattern={"v_proj": 5})


def ranks(folder: Path) -> dict[str, int]:
    """The rank of each module's delta as PEFT loads it, which is also what the configuration says."""
    config = json.loads((folder / "adapter_config.json").read_text())
    by_module = {name: config["rank_pattern"].get(name, config["r"]) for name in deltas_by_peft(folder)}
    model = PeftModel.from_pretrained(new_model(), folder)
    for name, rank in by_module.items():
        assert model.base_model.model.get_submodule(name).r["default"] == rank
    return by_module


def spectra(folder: Path) -> dict[str, torch.Tensor]:
    return {name: torch.linalg.svdvals(delta) for name, delta in deltas_by_peft(folder).items()}


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_energy_is_the_smallest_rank_that_keeps_it(
    local_registry: Registry, source: Path, tmp_path: Path, share: float
):
    local_registry.rerank(str(source), {"energy": share}, folder=tmp_path / "out")
    for name, s in spectra(source).items():
        kept = torch.cumsum(s.square(), 0) / s.square().sum()
        assert ranks(tmp_path / "out")[name] == int((kept < share - 1e-12).sum()) + 1


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
def test_tolerance_is_the_smallest_rank_that_loses_no_more(
    local_registry: Registry, source: Path, tmp_path: Path, share: float
):
    local_registry.rerank(str(source), {"tolerance": share}, folder=tmp_path / "out")
    for name, s in spectra(source).items():
        rank = ranks(tmp_path / "out")[name]
        lost = lambda r: float((s[r:].square().sum() / s.square().sum()).sqrt())  # noqa: B023, E731
        assert lost(rank) <= share + 1e-6
        assert rank == 1 or lost(rank - 1) > share


def test_a_budget_is_spent_where_it_keeps_the_most(local_registry: Registry, source: Path, tmp_path: Path):
    budget = 44 * 13  # all modules have 24 + 20 parameters a rank
    result = local_registry.rerank(str(source), {"budget": budget}, folder=tmp_path / "out")
    spent = ranks(tmp_path / "out")
    assert 44 * sum(spent.values()) == budget
    best = sorted((float(s) ** 2 for values in spectra(source).values() for s in values[1:]), reverse=True)
    kept = sum(float(s[0]) ** 2 for s in spectra(source).values()) + sum(best[: 13 - len(spent)])
    whole = sum(float(s.square().sum()) for s in spectra(source).values())
    assert result.provenance.certificate["total"]["retained_energy"] == pytest.approx(kept / whole)


@given(
    modules=st.lists(
        st.tuples(st.lists(st.floats(0, 100), min_size=1, max_size=4), st.integers(1, 5)), min_size=1, max_size=4
    ),
    more=st.integers(0, 30),
)
def test_spending_is_within_the_budget_and_no_other_choice_of_equal_costs_is_better(modules, more: int):
    costs = [ModuleCost(sorted(squares, reverse=True), 3) for squares, _ in modules]
    budget = 3 * len(costs) + more
    chosen = spend_budget(budget, costs)
    assert sum(3 * rank for rank in chosen) <= budget
    energy = sum(sum(c.squares[:r]) for c, r in zip(costs, chosen, strict=True))
    for other in itertools.product(*(range(1, len(c.squares) + 1) for c in costs)):
        if sum(3 * rank for rank in other) <= budget:
            assert energy >= sum(sum(c.squares[:r]) for c, r in zip(costs, other, strict=True)) - 1e-9


def test_a_budget_below_rank_one_everywhere_is_refused(local_registry: Registry, source: Path):
    with pytest.raises(UsageError, match=r"rank 1 in every module is 176") as error:
        local_registry.rerank(str(source), {"budget": 100})
    assert error.value.hint == "--budget 176"


def test_a_higher_rank_pads_with_zeros(local_registry: Registry, source: Path, tmp_path: Path):
    local_registry.rerank(str(source), 12, folder=tmp_path / "out")
    assert set(ranks(tmp_path / "out").values()) == {12}
    assert relative_error(deltas_by_peft(tmp_path / "out"), deltas_by_peft(source)) < 1e-6


class TestFit:
    def test_vllm_takes_several_ranks_up_to_its_own(self, local_registry: Registry, tmp_path: Path):
        source = train(tmp_path / "source", 1, r=12, rank_pattern={"v_proj": 3})
        local_registry.rerank(str(source), {"fit": "vllm:8"}, folder=tmp_path / "out")
        assert {name.rpartition(".")[2]: rank for name, rank in ranks(tmp_path / "out").items()} == {
            "q_proj": 8,
            "v_proj": 3,
        }

    def test_a_server_that_wants_one_rank_gets_one(self, local_registry: Registry, source: Path, tmp_path: Path):
        local_registry.rerank(str(source), {"fit": "sglang:16"}, folder=tmp_path / "out")
        assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["rank_pattern"] == {}
        assert set(ranks(tmp_path / "out").values()) == {8}
        assert relative_error(deltas_by_peft(tmp_path / "out"), deltas_by_peft(source)) < 1e-6

    @pytest.mark.parametrize(
        ("text", "message"),
        [("vllm:24", "cannot be started with rank 24"), ("magic:8", "expected SERVER:RANK"), ("vllm", "SERVER:RANK")],
    )
    def test_what_no_server_is(self, text: str, message: str):
        with pytest.raises(UsageError, match=message):
            read_rank_rule({"fit": text})


@pytest.mark.parametrize(
    "document", [{"energy": 2}, {"fixed": 0}, {"fixed": 1.5}, {"budget": "x"}, {"magic": 1}, {"fixed": 1, "energy": 1}]
)
def test_rules_that_are_none(document: dict):
    with pytest.raises(UsageError):
        read_rank_rule(document)


@pytest.mark.parametrize("rule", [{}, {"fixed": 16}, {"energy": 0.99}, {"budget": 200}, {"fit": "vllm:16"}])
def test_a_rule_survives_its_document(rule: dict):
    assert read_rank_rule(read_rank_rule(rule).to_json()) == read_rank_rule(rule)


def test_a_method_of_full_rank_takes_the_largest_rank_of_the_sources_or_a_fixed_one(
    local_registry: Registry, tmp_path: Path
):
    sources = [str(train(tmp_path / "a", 1, r=3)), str(train(tmp_path / "b", 2, r=5))]
    assert local_registry.merge(sources, MergeOptions(method="ties")).provenance.recipe["rank"] == {"fixed": 5}
    with pytest.raises(UsageError, match="full rank: its result can only be of a fixed rank"):
        local_registry.merge(sources, MergeOptions(method="ties", rank={"energy": 0.9}))


class TestCalibration:
    """Re-ranking on data, with the moments collected while PEFT runs, against the dense optimum."""

    def collect(self, source: Path, path: Path) -> torch.Tensor:
        import loreg

        model = PeftModel.from_pretrained(new_model(), source)
        x = torch.randn(64, 20, generator=torch.Generator().manual_seed(1)) * torch.logspace(1, -2, 20)
        with loreg.collect_calibration(model) as moments, torch.no_grad():
            model(x[:40])
            model(x[40:])
        moments.save(path)
        return x

    def test_is_the_best_of_its_rank_on_that_data(self, local_registry: Registry, tmp_path: Path):
        source = train(tmp_path / "source", 3, target_modules=["layers.0.q_proj"], r=6)
        x = self.collect(source, tmp_path / "k.safetensors").double()
        for folder, calibration in (("data", tmp_path / "k.safetensors"), ("plain", None)):
            local_registry.rerank(str(source), 2, calibration=calibration, folder=tmp_path / folder)
        (exact,), (data,), (plain,) = (
            deltas_by_peft(f).values() for f in (source, tmp_path / "data", tmp_path / "plain")
        )
        error = lambda delta: float(torch.linalg.norm((delta - exact) @ x.T))  # noqa: E731
        s = torch.linalg.svdvals(exact @ x.T)
        assert error(data) == pytest.approx(float(s[2:].square().sum().sqrt()), rel=1e-4)
        assert error(plain) > 1.05 * error(data)
        assert torch.linalg.matrix_rank(data, rtol=1e-6) == 2
        certificate = json.loads((tmp_path / "data" / "loreg_merge.json").read_text())["certificate"]
        measured = float(torch.linalg.norm(data - exact) / torch.linalg.norm(exact))
        assert certificate["total"]["epsilon"] == pytest.approx(measured, rel=1e-4)

    def test_of_another_adapter_is_refused(self, local_registry: Registry, tmp_path: Path):
        source = train(tmp_path / "source", 3, r=6)
        self.collect(train(tmp_path / "other", 4, r=5), tmp_path / "k.safetensors")
        with pytest.raises(UsageError, match=r"second moments of layers\.0\.q_proj are \(5, 5\), expected .* \(6, 6\)"):
            local_registry.rerank(str(source), 2, calibration=tmp_path / "k.safetensors")
        with pytest.raises(UsageError, match="fit one adapter"):
            merge(
                local_registry.context,
                [str(source)] * 2,
                MergeOptions(rank=2),
                calibration=tmp_path / "k.safetensors",
            )
        assert "energy" in str(local_registry.rerank(str(source), {"energy": 0.9}).provenance.recipe["rank"])

    def test_of_a_model_without_the_adapter_is_refused(self):
        import loreg

        with pytest.raises(UsageError, match="no LoRA adapter 'default'"), loreg.collect_calibration(new_model()):
            pass
