"""A merge that is known to overshoot says so in one line, by how long its delta is; every other one is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployments import empty_home
from factories import deltas_by_peft, train, write_base
from loreg.entities import MergeOptions
from loreg.registry import Registry, connect


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture
def four(tmp_path: Path) -> list[str]:
    return [str(train(tmp_path / f"task-{i}", i)) for i in range(4)]


def warnings(registry: Registry, sources: list[str], *, base: Path | None = None, **options) -> list[str]:
    notes = registry.merge(sources, MergeOptions(**options), base=base).notes
    return [note for note in notes if "times as long" in note]


def length(sources: list[str], weights: list[float]) -> float:
    """How long the dense sum is, of the longest of the deltas that it is made from."""
    deltas = [torch.cat([delta.flatten() for delta in deltas_by_peft(Path(s)).values()]) for s in sources]
    total = sum(weight * delta for weight, delta in zip(weights, deltas, strict=True))
    return float(total.norm() / max(delta.norm() for delta in deltas))


class TestWarns:
    def test_of_one_each(self, local_registry: Registry, four: list[str]):
        (warning,) = warnings(local_registry, four)
        times = length(four, [1.0] * 4)
        assert warning.startswith(f"the merged delta is {times:.1f} times as long as the longest of its sources")
        assert warning.endswith(f"try --lambda {0.7 / times:.2g}, or loreg sweep")

    def test_and_the_strength_that_it_names_is_not_warned_of(self, local_registry: Registry, four: list[str]):
        (warning,) = warnings(local_registry, four, scale=-3.0)
        assert warnings(local_registry, four, scale=float(warning.partition("--lambda ")[2].partition(",")[0])) == []

    @pytest.mark.parametrize("options", [{}, {"weights": [0.5, 0.5], "weights_for": {"q_proj": [3, 3]}}])
    def test_of_two(self, local_registry: Registry, four: list[str], options: dict):
        assert len(warnings(local_registry, four[:2], **options)) == 1

    @pytest.mark.parametrize("method", ["magnitude_prune", "breadcrumbs", "wudi"])
    def test_of_other_sums(self, local_registry: Registry, four: list[str], method: str):
        assert len(warnings(local_registry, four, method=method)) == 1


class TestIsSilent:
    @pytest.mark.parametrize("weights", [[0.35] * 4, [0.25] * 4, [1, 0.3, 0.2, 0.1], [0.7, 0.3, 0, 0]])
    def test_of_usual_weights(self, local_registry: Registry, four: list[str], weights: list[float]):
        assert warnings(local_registry, four, weights=weights) == []

    def test_of_adapters_whose_modules_are_disjoint(self, local_registry: Registry, tmp_path: Path):
        sources = [str(train(tmp_path / name, 1, target_modules=[name])) for name in ("q_proj", "v_proj")]
        assert warnings(local_registry, sources, base=write_base(tmp_path / "base")) == []

    def test_of_a_small_adapter_beside_a_large_one(self, local_registry: Registry, tmp_path: Path):
        sources = [str(train(tmp_path / "large", 1)), str(train(tmp_path / "small", 2, lora_alpha=1))]
        assert warnings(local_registry, sources) == []

    def test_of_one_adapter(self, local_registry: Registry, four: list[str]):
        assert warnings(local_registry, four[:1]) == []
        assert warnings(local_registry, four[:1], scale=2.0) == []

    @pytest.mark.parametrize("method", ["ties", "slerp", "karcher", "model_stock", "iso"])
    def test_of_methods_that_do_not_add_up(self, local_registry: Registry, four: list[str], method: str):
        assert warnings(local_registry, four[:2], method=method) == []
