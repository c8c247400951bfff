"""Cross moments of several adapters: collected while PEFT runs, kept in a file, and merged by; who does not fit."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import loreg
import oracles
from deployments import empty_home
from factories import IN, change_tensors, copy, deltas_by_peft, new_model, relative_error, train, write_base
from loreg.entities import MergeOptions
from loreg.errors import IntegrityError, NotFoundError, UsageError
from loreg.merging.cross_moments import CrossMoments
from loreg.registry import Registry, connect

TASKS = ("news", "chat", "code")


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def texts() -> dict[str, Tensor]:
    """What each task feeds to the model, (2, 30, in): sizes of features differ, and so do the tasks."""
    generator = torch.Generator().manual_seed(3)
    return {
        task: torch.randn(2, 30, IN, generator=generator) * torch.logspace(0.5, -1, IN).roll(7 * i)
        for i, task in enumerate(TASKS)
    }


def adapters(folder: Path) -> dict[str, Path]:
    """Three adapters of other ranks; ``chat`` touches q_proj alone, ``code`` has another scale."""
    return {
        "news": train(folder / "news", 1),
        "chat": train(folder / "chat", 2, r=3, target_modules=["q_proj"]),
        "code": train(folder / "code", 3, r=2, lora_alpha=1),
    }


def load(folders: dict[str, Path]) -> PeftModel:
    (first, folder), *others = folders.items()
    model = PeftModel.from_pretrained(new_model(), folder, adapter_name=first)
    for name, other in others:
        model.load_adapter(other, name)
    return model


def collect(folders: dict[str, Path]) -> CrossMoments:
    model = load(folders)
    with loreg.collect_calibration(model, adapter=list(folders)) as moments, torch.no_grad():
        for task in folders:
            model.set_adapter(task)
            for row in texts()[task]:
                model(row)
    return moments


def inputs_by_hand(folder: Path, text: Tensor) -> dict[str, Tensor]:
    """What each layer gets, (60, …), while the model runs with the adapter in ``folder`` alone, in float64."""
    model, seen = PeftModel.from_pretrained(new_model(), folder).double(), {}
    layers = model.base_model.model.layers
    for i, layer in enumerate(layers):
        for projection in ("q_proj", "v_proj"):
            record = functools.partial(seen.__setitem__, f"layers.{i}.{projection}")
            getattr(layer, projection).register_forward_pre_hook(lambda _, args, record=record: record(args[0]))
    with torch.no_grad():
        model(text.double().flatten(0, 1))
    return seen


def a_of(folder: Path, module: str) -> Tensor | None:
    return load_file(folder / "adapter_model.safetensors").get(f"base_model.model.{module}.lora_A.weight")


class TestCollecting:
    def test_what_all_adapters_see_of_the_text_of_the_one_that_is_active(self, tmp_path: Path):
        folders = adapters(tmp_path)
        moments = collect(folders)
        for task, folder in folders.items():
            for module, x in inputs_by_hand(folder, texts()[task]).items():
                a_cat = torch.cat([a for other in folders.values() if (a := a_of(other, module)) is not None]).double()
                expected = (x @ a_cat.T).T @ (x @ a_cat.T) / 60
                torch.testing.assert_close(moments.mean(task, module), expected, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(moments.grams[module], a_cat @ a_cat.T)
        assert moments.mean("chat", "layers.0.v_proj").shape == (6, 6)  # those of news and code

    def test_a_sum_over_parts_is_that_of_the_whole(self):
        a_cat, x = torch.randn(5, 8), torch.randn(2, 10, 8)
        whole, parts = CrossMoments(["a", "b"]), CrossMoments(["a", "b"])
        whole.add("b", "q_proj", x @ a_cat.T, gram=a_cat @ a_cat.T)
        for part in x:
            parts.add("b", "q_proj", part @ a_cat.T, gram=a_cat @ a_cat.T)
        torch.testing.assert_close(parts.mean("b", "q_proj"), whole.mean("b", "q_proj"))
        with pytest.raises(UsageError, match="'c' is none of the adapters a, b"):
            parts.add("c", "q_proj", x @ a_cat.T, gram=a_cat @ a_cat.T)

    def test_hooks_go_with_the_block(self, tmp_path: Path):
        model = load(adapters(tmp_path))
        with loreg.collect_calibration(model, adapter=["news", "chat"]) as moments:
            model.set_adapter("news")
            model(texts()["news"][0])
        count = moments.counts["news", "layers.0.q_proj"]
        model(texts()["news"][0])
        assert moments.counts["news", "layers.0.q_proj"] == count == 30

    @pytest.mark.parametrize("active", [["code"], ["news", "chat"]])
    def test_text_of_no_task_is_refused(self, tmp_path: Path, active: list[str]):
        model = load(adapters(tmp_path))
        with loreg.collect_calibration(model, adapter=["news", "chat"]) as moments:
            model.base_model.set_adapter(active)
            with pytest.raises(
                UsageError, match=f"active adapters are {', '.join(active)}, expected one of news, chat"
            ):
                model(texts()["news"][0])
        assert not moments.sums

    def test_text_of_the_base_alone_is_refused(self, tmp_path: Path):
        model = load(adapters(tmp_path))
        with (
            loreg.collect_calibration(model, adapter=["news", "chat"]),
            model.disable_adapter(),
            pytest.raises(UsageError, match="active adapters are none"),
        ):
            model(texts()["news"][0])

    @pytest.mark.parametrize(
        ("names", "message"),
        [(["news", "nobody"], "no LoRA adapter 'nobody'"), (["news", "news"], "'news' is named twice")],
    )
    def test_adapters_that_cannot_be_told_apart_are_refused(self, tmp_path: Path, names: list[str], message: str):
        model = load(adapters(tmp_path))
        with pytest.raises(UsageError, match=message), loreg.collect_calibration(model, adapter=names):
            pass
        assert not any(layer._forward_pre_hooks for layer in model.modules())


def merge(registry: Registry, folders: dict[str, Path], cross: Path, to: Path | None = None, **how):
    return registry.merge(list(folders.values()), MergeOptions(method="regmean", **how), calibration=cross, folder=to)


class TestRegMean:
    """The whole way: collected by PEFT, merged from files, against least squares on the inputs themselves."""

    @pytest.fixture
    def folders(self, tmp_path: Path) -> dict[str, Path]:
        return adapters(tmp_path)

    @pytest.fixture
    def cross(self, tmp_path: Path, folders: dict[str, Path]) -> Path:
        collect(folders).save(tmp_path / "cross.safetensors")
        return tmp_path / "cross.safetensors"

    def expected(self, folders: dict[str, Path], weights: list[float]) -> dict[str, Tensor]:
        deltas = {task: deltas_by_peft(folder) for task, folder in folders.items()}
        inputs = {task: inputs_by_hand(folder, texts()[task]) for task, folder in folders.items()}
        merged = {}
        for module in deltas["news"]:
            owners = [task for task in folders if module in deltas[task]]
            merged[module] = torch.from_numpy(
                oracles.regmean(
                    [deltas[task][module].numpy() for task in owners],
                    [weight for task, weight in zip(folders, weights, strict=True) if task in owners],
                    [inputs[task][module].numpy().T for task in owners],
                )
            )
        return merged

    def test_is_least_squares_on_what_each_layer_gets(
        self, local_registry: Registry, tmp_path: Path, folders: dict[str, Path], cross: Path
    ):
        merge(local_registry, folders, cross, tmp_path / "out", weights=[1, 2, 0.5])
        assert relative_error(deltas_by_peft(tmp_path / "out"), self.expected(folders, [1, 2, 0.5])) < 1e-4

    def test_is_nearer_to_each_adapters_own_output_than_the_sum_or_the_mean(
        self, local_registry: Registry, tmp_path: Path, folders: dict[str, Path], cross: Path
    ):
        merge(local_registry, folders, cross, tmp_path / "out", parameters={"shrinkage": 0})
        module = "layers.0.q_proj"
        deltas = {task: deltas_by_peft(folder)[module] for task, folder in folders.items()}
        inputs = {task: inputs_by_hand(folder, texts()[task])[module] for task, folder in folders.items()}

        def error(delta: Tensor) -> float:
            return sum(float((inputs[task] @ (delta - deltas[task]).T).square().sum()) for task in folders)

        best = error(deltas_by_peft(tmp_path / "out")[module])
        assert best < min(error(scale * sum(deltas.values())) for scale in np.linspace(0, 1, 21))

    def test_strength_is_lambda_and_only_the_ratio_of_the_weights_counts(
        self, local_registry: Registry, tmp_path: Path, folders: dict[str, Path], cross: Path
    ):
        merge(local_registry, folders, cross, tmp_path / "one", weights=[1, 2, 0.5])
        merge(local_registry, folders, cross, tmp_path / "same", weights=[2, 4, 1], scale=1.3)
        expected = {name: 1.3 * delta for name, delta in deltas_by_peft(tmp_path / "one").items()}
        assert relative_error(deltas_by_peft(tmp_path / "same"), expected) < 1e-5

    def test_a_module_of_one_source_stays_as_it_is(self, local_registry: Registry, tmp_path: Path):
        folders = {
            "news": train(tmp_path / "news", 1),
            "chat": train(tmp_path / "chat", 2, target_modules=["q_proj"]),
        }
        collect(folders).save(tmp_path / "cross.safetensors")
        merge(local_registry, folders, tmp_path / "cross.safetensors", tmp_path / "out", weights=[0.25, 1])
        module = "layers.1.v_proj"
        actual, own = deltas_by_peft(tmp_path / "out")[module], deltas_by_peft(folders["news"])[module]
        assert relative_error({module: actual}, {module: own}) < 1e-6

    def test_sources_stored_in_bfloat16_fit_what_was_collected_in_float32(
        self, local_registry: Registry, tmp_path: Path, folders: dict[str, Path], cross: Path
    ):
        cast = {}
        for task, folder in folders.items():
            tensors = load_file(folder / "adapter_model.safetensors")
            changed = {name: tensor.bfloat16() for name, tensor in tensors.items()}
            cast[task] = change_tensors(copy(folder, tmp_path / f"{task}-bf16"), changed)
        merge(local_registry, cast, cross, tmp_path / "out")
        assert relative_error(deltas_by_peft(tmp_path / "out"), self.expected(folders, [1, 1, 1])) < 0.03

    def test_is_repeated_from_its_recipe_with_that_file_only(
        self, registry: Registry, tmp_path: Path, folders: dict[str, Path], cross: Path
    ):
        for name, folder in folders.items():
            registry.push(folder, name)
        merged = registry.merge(list(folders), MergeOptions(method="regmean"), calibration=cross, name="blend")
        assert merged.provenance.recipe["calibration"]
        assert registry.reproduce("blend", calibration=cross).identical
        with pytest.raises(UsageError, match="calibration is the file with sha256"):
            registry.reproduce("blend")

    @pytest.mark.parametrize("method", ["regmean", "wudi"])
    def test_negative_weights_are_refused(
        self, local_registry: Registry, folders: dict[str, Path], cross: Path, method: str
    ):
        calibration = cross if method == "regmean" else None
        for how in ({"weights": [1, -1, 1]}, {"weights_for": {"q_proj": [1, -1, 1]}}):
            with pytest.raises(UsageError, match=f"a weight is -1: the weights of {method} are relative"):
                local_registry.merge(
                    list(folders.values()), MergeOptions(method=method, **how), calibration=calibration
                )


class TestWhatDoesNotFit:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> dict[str, Path]:
        return adapters(tmp_path)

    @pytest.fixture
    def cross(self, tmp_path: Path, folders: dict[str, Path]) -> Path:
        collect(folders).save(tmp_path / "cross.safetensors")
        return tmp_path / "cross.safetensors"

    def refused(self, registry: Registry, folders: dict[str, Path], cross: Path | None, message: str, **how) -> None:
        with pytest.raises(UsageError, match=message):
            registry.merge(list(folders.values()), MergeOptions(method="regmean", **how), calibration=cross)

    def test_no_file(self, local_registry: Registry, folders: dict[str, Path], tmp_path: Path):
        self.refused(local_registry, folders, None, "regmean merges by what the adapters see of text")
        with pytest.raises(NotFoundError, match="there is no file"):
            merge(local_registry, folders, tmp_path / "none")
        (tmp_path / "text").write_text("no safetensors")
        with pytest.raises(IntegrityError, match="not a safetensors file"):
            merge(local_registry, folders, tmp_path / "text")

    def test_a_file_for_another_method(self, local_registry: Registry, folders: dict[str, Path], cross: Path):
        with pytest.raises(UsageError, match="calibration data fit one adapter"):
            local_registry.merge(list(folders.values()), MergeOptions(method="ties"), calibration=cross)

    def test_moments_of_one_adapter(self, local_registry: Registry, folders: dict[str, Path], tmp_path: Path):
        model = PeftModel.from_pretrained(new_model(), folders["news"])
        with loreg.collect_calibration(model) as moments:
            model(texts()["news"][0])
        moments.save(tmp_path / "one.safetensors")
        self.refused(local_registry, folders, tmp_path / "one.safetensors", "no cross moments: its schema is none")

    def test_another_order_is_named(self, local_registry: Registry, folders: dict[str, Path], cross: Path):
        shuffled = {task: folders[task] for task in ("chat", "code", "news")}
        self.refused(local_registry, shuffled, cross, "another order: news, chat, code")

    def test_another_number(self, local_registry: Registry, folders: dict[str, Path], cross: Path):
        two = {task: folders[task] for task in ("news", "chat")}
        self.refused(local_registry, two, cross, r"of 3 adapters \(news, chat, code\), this merge has 2 sources")

    @pytest.mark.parametrize("how", [{"r": 2, "lora_alpha": 1}, {"r": 5}])
    def test_another_adapter_is_named(
        self, local_registry: Registry, folders: dict[str, Path], cross: Path, tmp_path: Path, how: dict
    ):
        other = {**folders, "code": train(tmp_path / "other", 9, **how)}
        reason = "other differs at layers.0.q_proj" if how["r"] == 2 else "they have 9 rows together, .* have 12"
        self.refused(local_registry, other, cross, f"collected with other adapters: .*{reason}")

    def test_a_later_checkpoint_of_the_same_run(
        self, local_registry: Registry, folders: dict[str, Path], cross: Path, tmp_path: Path
    ):
        name = "base_model.model.layers.1.q_proj.lora_A.weight"
        moved = load_file(folders["chat"] / "adapter_model.safetensors")[name]
        later = change_tensors(copy(folders["chat"], tmp_path / "later"), {name: 1.1 * moved})
        self.refused(local_registry, {**folders, "chat": later}, cross, r"later differs at layers\.1\.q_proj")

    @pytest.mark.parametrize("lost", ["moments.1.layers.0.q_proj", "gram.layers.0.q_proj"])
    def test_a_module_or_task_that_did_not_run(
        self, local_registry: Registry, folders: dict[str, Path], cross: Path, tmp_path: Path, lost: str
    ):
        with safe_open(cross, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(cross)
        del tensors[lost]
        save_file(tensors, tmp_path / "part.safetensors", metadata)
        reason = (
            r"no moments of the task chat \(for chat\) at layers\.0\.q_proj"
            if "moments" in lost
            else r"nothing of the module layers\.0\.q_proj"
        )
        self.refused(local_registry, folders, tmp_path / "part.safetensors", reason)

    def test_dora(self, local_registry: Registry, folders: dict[str, Path], cross: Path, tmp_path: Path):
        dora = train(tmp_path / "dora", 4, r=2, lora_alpha=1, use_dora=True)
        base = write_base(tmp_path / "base")
        with pytest.raises(UsageError, match="dora is a DoRA adapter"):
            local_registry.merge(
                [*list(folders.values())[:2], dora], MergeOptions(method="regmean"), calibration=cross, base=base
            )
