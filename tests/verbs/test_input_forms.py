"""What a LoRA can be made of: every form merges, and PEFT says what each delta is."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from deployments import empty_home
from loreg.entities import MergeOptions
from loreg.errors import CheckFailedError, MergeError, UsageError
from loreg.registry import Registry, connect
from module_kinds import FORMS, new_model, train, write_base

EXACT = 1e-6


def deltas(folder: Path) -> dict[str, Tensor]:
    """Every delta in float64 as PEFT computes it, biases of LoRA among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # missing and unexpected keys
        peft = PeftModel.from_pretrained(new_model(), folder).double()
    by_module = {}
    for name, module in peft.base_model.model.named_modules():
        holders = (getattr(module, kind, {}) for kind in ("lora_A", "lora_embedding_A"))
        if hasattr(module, "get_delta_weight") and any("default" in holder for holder in holders):
            by_module[name] = module.get_delta_weight("default").detach()
            bias = module.lora_B["default"].bias if "default" in module.lora_B else None
            if bias is not None:
                by_module[f"{name} bias"] = (module.scaling["default"] * bias).detach()
    return by_module


def check(folder: Path, sources: list[Path], weights: list[float], tolerance: float = EXACT) -> None:
    actual, source_deltas = deltas(folder), [deltas(source) for source in sources]
    expected_names = set().union(*source_deltas)
    assert actual.keys() >= expected_names
    # Where one module has a bias PEFT wants one everywhere: those that no source had are zero.
    assert all(float(actual[name].abs().max()) == 0 for name in actual.keys() - expected_names)
    for name in expected_names:
        delta = actual[name]
        expected = sum(w * d[name] for w, d in zip(weights, source_deltas, strict=True) if name in d)
        assert float(torch.linalg.norm(delta - expected)) < tolerance * float(torch.linalg.norm(expected)), name


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.mark.parametrize("form", FORMS)
def test_merges_exactly_and_peft_agrees(local_registry: Registry, tmp_path: Path, form: str):
    targets, options = FORMS[form]
    sources = [
        train(tmp_path / "a", 1, targets, **options),
        train(tmp_path / "b", 2, targets, **{**options, "r": 2, "lora_alpha": 9}),
    ]
    local_registry.merge(
        [str(source) for source in sources], MergeOptions(weights=[0.7, -0.4]), folder=tmp_path / "merged"
    )
    check(tmp_path / "merged", sources, [0.7, -0.4])


@pytest.mark.parametrize("form", FORMS)
def test_merges_with_an_adapter_of_other_modules(local_registry: Registry, tmp_path: Path, form: str):
    targets, options = FORMS[form]
    other = ["sound"] if "sound" not in targets else ["words"]
    fan = {"fan_in_fan_out": True} if "fan_in_fan_out" in options else {}
    sources = [train(tmp_path / "a", 1, targets, **options), train(tmp_path / "b", 2, other, r=4, **fan)]
    base = write_base(tmp_path / "base")
    local_registry.merge(
        [str(source) for source in sources], MergeOptions(weights=[0.5, 2]), base=base, folder=tmp_path / "merged"
    )
    check(tmp_path / "merged", sources, [0.5, 2])


@pytest.mark.parametrize("form", ["embedding", "convolution", "transposed", "experts, nested"])
def test_other_methods_and_ranks_take_every_form(local_registry: Registry, tmp_path: Path, form: str):
    targets, options = FORMS[form]
    sources = [str(train(tmp_path / f"{i}", i, targets, **options)) for i in range(2)]
    for method, rank in (("ties", 2), ("tsv", None), ("linear", {"energy": 0.5}), ("linear", {"budget": 400})):
        target = tmp_path / f"{method}-{rank}".replace(" ", "")
        local_registry.merge(sources, MergeOptions(method=method, rank=rank), folder=target)
        assert deltas(target).keys() == deltas(Path(sources[0])).keys()


def test_biases_have_no_meaning_for_other_methods(local_registry: Registry, tmp_path: Path):
    source = str(train(tmp_path / "a", 1, ["plain"], lora_bias=True))
    with pytest.raises(MergeError, match="lora_bias is true, and only linear"):
        local_registry.merge([source, source], MergeOptions(method="ties"), folder=tmp_path / "merged")


class TestAnInitialAdapter:
    """PiSSA and OLoRA move a part of the base into the adapter: the delta is what training added to it."""

    def trained(self, folder: Path, kind: str, seed: int) -> tuple[Path, Path, Tensor, Tensor]:
        """The initial and the trained adapter, the original weight and the one after training."""
        model = new_model()
        before = model.plain.weight.detach().clone()
        peft = get_peft_model(model, LoraConfig(target_modules=["plain"], r=3, init_lora_weights=kind))
        peft.save_pretrained(folder / "initial")
        torch.manual_seed(seed)
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        peft.save_pretrained(folder / "trained")
        return folder / "initial", folder / "trained", before, peft.merge_and_unload().plain.weight.detach()

    @pytest.mark.parametrize("kind", ["pissa", "olora"])
    def test_is_subtracted_exactly_at_twice_the_rank(self, local_registry: Registry, tmp_path: Path, kind: str):
        initial, trained, before, after = self.trained(tmp_path, kind, 1)
        result = local_registry.merge(
            [str(trained)], MergeOptions(weights=[1], initial=[str(initial)]), folder=tmp_path / "merged"
        )
        actual = deltas(tmp_path / "merged")["plain"]
        expected = (after - before).double()
        # PEFT's own way to the trained weight goes through float32.
        assert float(torch.linalg.norm(actual - expected) / torch.linalg.norm(expected)) < 1e-5
        assert json.loads((tmp_path / "merged" / "adapter_config.json").read_text())["r"] == 6
        assert any("original base" in note for note in result.notes)

    def test_is_missed_by_name(self, local_registry: Registry, tmp_path: Path):
        _, trained, _, _ = self.trained(tmp_path, "pissa", 1)
        with pytest.raises(MergeError, match=r"init_lora_weights is 'pissa'.*needs the initial adapter") as error:
            local_registry.merge([str(trained)], MergeOptions(weights=[1]), folder=tmp_path / "merged")
        assert "--initial DIR" in error.value.hint

    def test_merges_with_plain_adapters(self, local_registry: Registry, tmp_path: Path):
        initial, trained, before, after = self.trained(tmp_path, "pissa", 1)
        plain = train(tmp_path / "b", 2, ["plain"])
        local_registry.merge(
            [str(plain), str(trained)],
            MergeOptions(weights=[2, 0.5], initial=[str(initial)]),
            folder=tmp_path / "merged",
        )
        expected = 2 * deltas(plain)["plain"] + 0.5 * (after - before).double()
        actual = deltas(tmp_path / "merged")["plain"]
        assert float(torch.linalg.norm(actual - expected) / torch.linalg.norm(expected)) < 1e-5

    def test_of_another_shape_is_refused(self, local_registry: Registry, tmp_path: Path):
        _, trained, _, _ = self.trained(tmp_path, "pissa", 1)
        other = train(tmp_path / "b", 2, ["old"], fan_in_fan_out=True)
        with pytest.raises(MergeError, match="initial adapter b does not fit trained at plain"):
            local_registry.merge(
                [str(trained)], MergeOptions(weights=[1], initial=[str(other)]), folder=tmp_path / "merged"
            )

    def test_that_nobody_needs_or_too_many_are_refused(self, local_registry: Registry, tmp_path: Path):
        plain = str(train(tmp_path / "b", 2, ["plain"]))
        with pytest.raises(UsageError, match="no source needs an initial adapter"):
            local_registry.merge([plain], MergeOptions(weights=[1], initial=[plain]), folder=tmp_path / "merged")
        initial, trained, _, _ = self.trained(tmp_path, "pissa", 1)
        with pytest.raises(UsageError, match="2 initial adapters for 1 sources"):
            local_registry.merge(
                [str(trained)], MergeOptions(weights=[1], initial=[str(initial)] * 2), folder=tmp_path / "merged"
            )


class TestDora:
    def base(self, folder: Path) -> Path:
        folder.mkdir()
        save_file(dict(new_model().state_dict()), folder / "model.safetensors")
        return folder

    def expected(self, trained: Path) -> Tensor:
        """The delta of DoRA from PEFT's merged weight."""
        peft = PeftModel.from_pretrained(new_model().double(), trained)
        return peft.merge_and_unload().plain.weight.detach() - new_model().double().plain.weight.detach()

    def test_is_converted_at_full_rank_exactly(self, local_registry: Registry, tmp_path: Path):
        trained = train(tmp_path / "a", 1, ["plain"], use_dora=True)
        local_registry.merge(
            [str(trained)], MergeOptions(weights=[1]), base=self.base(tmp_path / "base"), folder=tmp_path / "merged"
        )
        actual, expected = deltas(tmp_path / "merged")["plain"], self.expected(trained)
        assert float(torch.linalg.norm(actual - expected) / torch.linalg.norm(expected)) < 1e-5

    def test_is_converted_to_its_best_approximation_and_the_error_is_told(
        self, local_registry: Registry, tmp_path: Path
    ):
        trained = train(tmp_path / "a", 1, ["plain"], use_dora=True, r=1)
        result = local_registry.merge(
            [str(trained)], MergeOptions(weights=[1]), base=self.base(tmp_path / "base"), folder=tmp_path / "merged"
        )
        u, s, vh = torch.linalg.svd(self.expected(trained), full_matrices=False)
        best = u[:, :2] * s[:2] @ vh[:2]
        actual = deltas(tmp_path / "merged")["plain"]
        assert float(torch.linalg.norm(actual - best) / torch.linalg.norm(best)) < 1e-5
        error = float((s[2:].square().sum() / s.square().sum()).sqrt())
        assert f"DoRA converted to factors of rank 2, ε = {error:.2g}" in " ".join(result.notes)

    def test_is_missed_by_name(self, local_registry: Registry, tmp_path: Path):
        trained = train(tmp_path / "a", 1, ["plain"], use_dora=True)
        with pytest.raises(MergeError, match="use_dora is true: its delta needs the base"):
            local_registry.merge([str(trained)], MergeOptions(weights=[1]), folder=tmp_path / "merged")

    def test_of_another_base_is_refused(self, local_registry: Registry, tmp_path: Path):
        trained = train(tmp_path / "a", 1, ["plain"], use_dora=True)
        (tmp_path / "base").mkdir()
        for tensors, message in (
            ({"x": torch.ones(1)}, "has no tensor plain.weight"),
            ({"plain.weight": torch.ones(6, 15)}, r"plain is \(6, 14\) in the adapter, this base has \(6, 15\)"),
        ):
            save_file(tensors, tmp_path / "base" / "model.safetensors")
            with pytest.raises(CheckFailedError, match=message):
                local_registry.merge(
                    [str(trained)], MergeOptions(weights=[1]), base=tmp_path / "base", folder=tmp_path / "merged"
                )


def test_a_number_that_is_not_finite_is_named_with_its_source(local_registry: Registry, tmp_path: Path):
    from loreg.adapters.structure import read_structure
    from loreg.entities import Source
    from loreg.merging.execute import execute_recipe
    from loreg.merging.inputs import MergeInput
    from loreg.merging.recipe import Recipe

    folder = train(tmp_path / "a", 1, ["plain"])
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.plain.lora_B.weight"
    tensors[name][2, 1] = float("inf")
    save_file(tensors, folder / "adapter_model.safetensors")
    recipe = Recipe((Source("team/a:v3", "0" * 64, 1.0),))
    with pytest.raises(MergeError, match=rf"team/a:v3 cannot be merged: tensor {name} has NaN or infinite"):
        execute_recipe([MergeInput(read_structure(folder), "team/a:v3", "0" * 64)], recipe)
