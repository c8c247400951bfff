"""export: after it a server's own arithmetic, written down from its source, gives what PEFT gives before it."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from deployments import DORA, MOVIES, SCIENCE, command_line, empty_home
from factories import (
    IN,
    change_config,
    change_tensors,
    copy,
    deltas_by_hand,
    deltas_by_peft,
    new_model,
    relative_error,
    train,
    write_base,
)
from loreg.baking import float_codec
from loreg.errors import CheckFailedError, ConflictError, IntegrityError, NotFoundError, UsageError
from loreg.registry import Registry, connect
from module_kinds import new_model as new_mixed_model
from module_kinds import train as train_everything

PREFIX = "base_model.model."
Made = Callable[[Path], Path]


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def config(folder: Path) -> dict:
    return json.loads((folder / "adapter_config.json").read_text())


def factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of every module, in float64, by the name that the file gives it."""
    tensors = load_file(folder / "adapter_model.safetensors")
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    pair = {n: (tensors[f"{n}.lora_A.weight"].double(), tensors[f"{n}.lora_B.weight"].double()) for n in names}
    return {name.removeprefix(PREFIX): factors for name, factors in pair.items()}


def by_vllm(folder: Path) -> dict[str, Tensor]:
    """PEFTHelper.get_rank_and_scaling."""
    c = config(folder)

    def value(pattern: str, name: str, default: float) -> float:
        values = [v for key, v in c.get(pattern, {}).items() if re.match(rf"(.*\.)?({key})$", name)]
        return values[0] if values else default

    made = {}
    for name, (a, b) in factors(folder).items():
        rank, alpha = value("rank_pattern", name, c["r"]), value("alpha_pattern", name, c["lora_alpha"])
        assert rank == len(a)
        made[name] = alpha / (math.sqrt(rank) if c.get("use_rslora") else rank) * b @ a
    return made


def by_sglang(folder: Path) -> dict[str, Tensor]:
    """LoRAAdapter.scaling, and normalize_qkv_proj, which fails where v is missing beside q."""
    c, tensors = config(folder), factors(folder)
    for name in tensors:
        if name.endswith("q_proj"):
            assert name.replace("q_proj", "v_proj") in tensors
    assert isinstance(c["target_modules"], list)
    return {name: c["lora_alpha"] / c["r"] * b @ a for name, (a, b) in tensors.items()}


def by_lorax(folder: Path, gpus: int = 1, layers: int = 2) -> dict[str, Tensor]:
    """LoraWeights.load, type by type: the padded rank stays in the configuration that the next type reads."""
    c, tensors, made = config(folder), factors(folder), {}
    r = c["r"]
    for kind in ("q_proj", "v_proj"):
        names = [f"layers.{i}.{kind}" for i in range(layers)]
        if not all(name in tensors for name in names):
            continue  # the whole type is dropped
        scale = c["lora_alpha"] / (r**0.5 if c.get("use_rslora") else r)
        made |= {name: scale * tensors[name][1] @ tensors[name][0] for name in names}
        rank = {len(tensors[name][0]) for name in names}
        assert len(rank) == 1, "torch.stack refuses"
        r = max(rank)
        r = 8 * gpus if r <= 8 * gpus else (r + 15) // 16 * 16
    return made


def by_tensorrt(folder: Path) -> dict[str, Tensor]:
    """LoraManager.load_from_hf: the rank of the tensor, one alpha."""
    c = config(folder)
    root = math.sqrt if c.get("use_rslora") else float
    return {name: c["lora_alpha"] / root(len(a)) * b @ a for name, (a, b) in factors(folder).items()}


def by_llama_cpp(folder: Path) -> dict[str, Tensor]:
    """llama_adapter_lora_weight::get_scale."""
    alpha = config(folder)["lora_alpha"]
    return {name: alpha / len(a) * b @ a for name, (a, b) in factors(folder).items()}


def by_ollama(folder: Path) -> dict[str, Tensor]:
    """convert.go, AdapterParameters: an alpha that is no whole number is not read; then llama.cpp."""
    assert isinstance(config(folder)["lora_alpha"], int)
    return by_llama_cpp(folder)


SERVERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "vllm:max_lora_rank=64": by_vllm,
    "sglang": by_sglang,
    "lorax": by_lorax,
    "lorax:tensor_parallel=2": lambda folder: by_lorax(folder, gpus=2),
    "tgi": by_lorax,
    "tensorrt-llm": by_tensorrt,
    "llama.cpp": by_llama_cpp,
    "ollama": by_ollama,
}
ODD: dict[str, Made] = {
    "plain": lambda f: train(f, 1, r=8),
    "rslora": lambda f: train(f, 1, r=6, use_rslora=True),
    "rslora of rank 16": lambda f: train(f, 1, r=16, use_rslora=True),
    "alphas": lambda f: train(f, 1, r=8, alpha_pattern={"v_proj": 3, "layers.0.q_proj": 5}),
    "ranks": lambda f: train(f, 1, r=8, rank_pattern={"layers.0.v_proj": 2, "layers.1.q_proj": 12}),
    "ranks and alphas, rslora": lambda f: train(
        f, 1, r=5, use_rslora=True, rank_pattern={"v_proj": 7}, alpha_pattern={"layers.1.v_proj": 3}
    ),
    "a rank that is padded": lambda f: train(f, 1, r=4),
    "between multiples of 16": lambda f: train(f, 1, r=19),
    "half an alpha": lambda f: change_config(train(f, 1), lora_alpha=12.5),
    "an alpha with a point": lambda f: change_config(train(f, 1), lora_alpha=8.0),
    "a pattern of targets": lambda f: train(f, 1, target_modules=r".*\.(q|v)_proj"),
    "q alone": lambda f: train(f, 1, target_modules=["q_proj"]),
    "v in one layer": lambda f: train(f, 1, target_modules=["q_proj", "layers.1.v_proj"]),
    "bfloat16": lambda f: in_dtype(train(f, 1, r=8, alpha_pattern={"v_proj": 3}), torch.bfloat16),
}


def in_dtype(folder: Path, dtype: torch.dtype) -> Path:
    tensors = load_file(folder / "adapter_model.safetensors")
    return change_tensors(folder, {name: tensor.to(dtype) for name, tensor in tensors.items()})


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("odd", ODD)
def test_what_a_server_computes_is_what_was_trained(local_registry: Registry, tmp_path: Path, server: str, odd: str):
    adapter, base = ODD[odd](tmp_path / "a"), write_base(tmp_path / "base")
    result = local_registry.export(str(adapter), server, tmp_path / "out", base=str(base))
    (report,) = local_registry.check([str(tmp_path / "out")], base=str(base), profiles=[server])
    assert {f.code for f in report.findings if f.severity == "error"} == set()
    trained, served = deltas_by_peft(adapter), SERVERS[server](tmp_path / "out")
    added = {name: delta for name, delta in served.items() if name not in trained}
    assert all(not delta.any() for delta in added.values())
    error = relative_error({name: served[name] for name in trained}, trained)
    assert error <= (4e-3 if odd == "bfloat16" else 1e-7)
    assert result.fitted.worst_epsilon == pytest.approx(error, abs=2e-8)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("server", [*SERVERS, "peft:0.10", "peft"])
def test_peft_loads_what_was_exported_and_computes_the_same(
    local_registry: Registry, tmp_path: Path, server: str, odd: str
):
    adapter, base = ODD[odd](tmp_path / "a"), write_base(tmp_path / "base")
    local_registry.export(str(adapter), server, tmp_path / "out", base=str(base))
    torch.manual_seed(3)
    x = torch.randn(5, IN)
    before, after = (PeftModel.from_pretrained(new_model(), f)(x) for f in (adapter, tmp_path / "out"))
    torch.testing.assert_close(after, before, rtol=0, atol=2e-2 if odd == "bfloat16" else 2e-5)


@pytest.mark.parametrize("odd", ODD)
def test_without_export_the_findings_are_true(local_registry: Registry, tmp_path: Path, odd: str):
    """Said to be wrong is wrong by the own arithmetic of the server; said to be right is right."""
    adapter, base = ODD[odd](tmp_path / "a"), write_base(tmp_path / "base")
    trained = deltas_by_peft(adapter)
    for server, compute in SERVERS.items():
        (report,) = local_registry.check([str(adapter)], base=str(base), profiles=[server], header_only=True)
        minded = [f for f in report.findings if f.severity == "error"]
        try:
            served = compute(adapter)
            right = (
                served.keys() >= trained.keys()
                and relative_error({name: served[name] for name in trained}, trained) <= 1e-6
            )
        except (AssertionError, KeyError):
            right = False
        assert right is (not minded), (server, [f.message for f in minded])


def test_nothing_is_changed_that_need_not_be(local_registry: Registry, tmp_path: Path):
    adapter = train(tmp_path / "a", 1, r=8, use_rslora=True, alpha_pattern={"v_proj": 3}, rank_pattern={"q_proj": 4})
    result = local_registry.export(str(adapter), "vllm", tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()
    (change,) = result.fitted.changes
    assert change.startswith("fields left out of adapter_config.json: ")
    kept = config(tmp_path / "out")
    assert (kept["use_rslora"], kept["alpha_pattern"], kept["rank_pattern"]) == (True, {"v_proj": 3}, {"q_proj": 4})
    assert "lora_dropout" not in kept
    assert result.fitted.moved == 0


def test_lorax_reads_rslora_and_keeps_it(local_registry: Registry, tmp_path: Path):
    local_registry.export(str(train(tmp_path / "a", 1, r=16, use_rslora=True)), "lorax", tmp_path / "out")
    assert config(tmp_path / "out")["use_rslora"] is True
    local_registry.export(str(tmp_path / "a"), "sglang", tmp_path / "plain")
    assert (config(tmp_path / "plain").get("use_rslora"), config(tmp_path / "plain")["lora_alpha"]) == (None, 32)


class TestCuttingDown:
    def test_takes_the_best_approximation_and_states_what_it_lost(self, local_registry: Registry, tmp_path: Path):
        adapter = train(tmp_path / "a", 1, r=12, rank_pattern={"layers.0.v_proj": 4})
        result = local_registry.export(str(adapter), "vllm:max_lora_rank=8", tmp_path / "out")
        trained, served = deltas_by_peft(adapter), by_vllm(tmp_path / "out")
        record = json.loads((tmp_path / "out" / "loreg_export.json").read_text())
        stated = {module["module"]: module for module in record["certificate"]["modules"]}
        assert stated.keys() == trained.keys() - {"layers.0.v_proj"}
        lost = whole = 0.0
        for name, delta in trained.items():
            sigma = torch.linalg.svdvals(delta)
            least = sigma[8:].square().sum()
            error = (served[name] - delta).square().sum()
            assert float(error) == pytest.approx(float(least), rel=1e-6, abs=1e-10)
            if name in stated:
                assert stated[name]["epsilon"] == pytest.approx(float((least / sigma.square().sum()).sqrt()), rel=1e-6)
                assert (stated[name]["rank_in"], stated[name]["rank"]) == (12, 8)
            lost, whole = lost + float(error), whole + float(sigma.square().sum())
        assert result.fitted.epsilon == pytest.approx(math.sqrt(lost / whole), rel=1e-6)
        assert result.fitted.changes[0] == "3 modules cut down to rank 8"

    def test_every_form_can_be_cut(self, local_registry: Registry, tmp_path: Path):
        (tmp_path / "mine.toml").write_text(LIMIT)
        adapter = train_everything(tmp_path / "a", 1, ["words", "image", "sound", "plain"], r=5)
        local_registry.export(str(adapter), str(tmp_path / "mine.toml"), tmp_path / "out")
        model = PeftModel.from_pretrained(new_mixed_model(), tmp_path / "out")
        for name, module in model.base_model.model.named_modules():
            if hasattr(module, "get_delta_weight"):
                delta = module.get_delta_weight("default").detach().double()
                trained = trained_delta(adapter, name)
                flat = trained.T if name == "words" else trained.flatten(1)
                matrix = delta.T if name == "words" else delta.flatten(1)
                best = torch.linalg.svdvals(flat)[2:].square().sum().sqrt()
                assert float(torch.linalg.norm(matrix - flat)) == pytest.approx(float(best), rel=1e-5)

    def test_what_only_makes_a_server_slow_is_left(self, local_registry: Registry, tmp_path: Path):
        result = local_registry.export(str(train(tmp_path / "a", 1, r=144)), "lorax", tmp_path / "out")
        assert config(tmp_path / "out")["r"] == 144
        assert result.fitted.moved == 0


LIMIT = """
name = "mine"
title = "our server"
release = "3"
[[rules]]
code = "MY001"
if = "rank_over"
value = 2
effect = "refuses"
remedy = "ask Ada"
source = "the wiki"
"""


def trained_delta(adapter: Path, name: str) -> Tensor:
    model = PeftModel.from_pretrained(new_mixed_model(), adapter)
    return dict(model.base_model.model.named_modules())[name].get_delta_weight("default").detach().double()


class TestNames:
    @pytest.mark.parametrize(("adapter_prefix", "base_prefix"), [("deep.er.", ""), ("", "vision.text.")])
    def test_become_those_of_the_base(
        self, local_registry: Registry, tmp_path: Path, adapter_prefix: str, base_prefix: str
    ):
        right = train(tmp_path / "right", 1)
        wrong = copy(right, tmp_path / "wrong")
        tensors = load_file(wrong / "adapter_model.safetensors")
        renamed = {name.replace(PREFIX, PREFIX + adapter_prefix): tensor for name, tensor in tensors.items()}
        save_file(renamed, wrong / "adapter_model.safetensors", {"format": "pt"})
        (tmp_path / "base").mkdir()
        state = {base_prefix + name: tensor for name, tensor in new_model().state_dict().items()}
        save_file(state, tmp_path / "base" / "model.safetensors")
        result = local_registry.export(str(wrong), "vllm", tmp_path / "out", base=str(tmp_path / "base"))
        old, new = f"{adapter_prefix}layers.0.q_proj", f"{base_prefix}layers.0.q_proj"
        assert result.fitted.changes[0] == f"4 modules renamed as in the base, e.g. {old} → {new}"
        served = {name.removeprefix(base_prefix): delta for name, delta in by_vllm(tmp_path / "out").items()}
        assert relative_error(served, deltas_by_peft(right)) == 0

    def test_of_another_model_are_refused(self, local_registry: Registry, tmp_path: Path):
        (tmp_path / "base").mkdir()
        save_file({"other.weight": torch.ones(3, 3)}, tmp_path / "base" / "model.safetensors")
        with pytest.raises(CheckFailedError, match=r"cannot be exported: LB001 the base has no layers\.0"):
            local_registry.export(str(train(tmp_path / "a", 1)), "vllm", tmp_path / "out", base=str(tmp_path / "base"))
        assert not (tmp_path / "out").exists()


class TestMissingModules:
    def test_of_layers_that_only_the_base_has(self, local_registry: Registry, tmp_path: Path):
        adapter = train(tmp_path / "a", 1, r=8, target_modules=["layers.0.q_proj", "layers.0.v_proj"])
        base = write_base(tmp_path / "base")
        result = local_registry.export(str(adapter), "lorax", tmp_path / "out", base=str(base))
        assert result.fitted.changes[0] == "2 modules added with zero factors, e.g. layers.1.q_proj"
        served = by_lorax(tmp_path / "out")
        assert (
            relative_error({n: served[n] for n in ("layers.0.q_proj", "layers.0.v_proj")}, deltas_by_peft(adapter))
            < 1e-12
        )

    def test_of_a_shape_that_nobody_knows_are_refused(self, local_registry: Registry, tmp_path: Path):
        adapter = train(tmp_path / "a", 1, target_modules=["q_proj"])
        with pytest.raises(CheckFailedError, match=r"zero factors for layers\.0\.v_proj cannot be added") as error:
            local_registry.export(str(adapter), "sglang", tmp_path / "out")
        assert error.value.hint == "--base names the model that it was trained on"
        assert not (tmp_path / "out").exists()

    def test_are_shaped_like_k_where_no_base_is_known(self, local_registry: Registry, tmp_path: Path):
        adapter = copy(SCIENCE, tmp_path / "a")
        tensors = load_file(adapter / "adapter_model.safetensors")
        as_k = {name.replace("v_proj", "k_proj"): tensor for name, tensor in tensors.items()}
        save_file(as_k, adapter / "adapter_model.safetensors", {"format": "pt"})
        change_config(adapter, target_modules=["q_proj", "k_proj"])
        local_registry.export(str(adapter), "sglang", tmp_path / "out")
        assert factors(tmp_path / "out")["model.layers.7.self_attn.v_proj"][1].shape == (192, 8)


@pytest.mark.parametrize(
    ("server", "adapter", "code"),
    [
        ("vllm", lambda f: copy(DORA, f), "VL002"),
        ("sglang", lambda f: copy(MOVIES, f), "SG005"),
        ("lorax", lambda f: train(f, 1, bias="all"), "LX006"),
        ("tgi", lambda f: train_everything(f, 1, ["words"]), "TG010"),
        ("tensorrt-llm", lambda f: train(f, 1, lora_bias=True), "TR003"),
        ("llama.cpp", lambda f: change_config(train(f, 1), init_lora_weights="pissa"), "LC009"),
        ("peft:0.10", lambda f: train_everything(f, 1, [], target_parameters=["experts.down_proj"]), "PE0"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_mended_is_refused_and_nothing_is_written(
    local_registry: Registry, tmp_path: Path, server: str, adapter: Made, code: str
):
    with pytest.raises(CheckFailedError, match=code) as error:
        local_registry.export(str(adapter(tmp_path / "a")), server, tmp_path / "out")
    assert "loreg bake" in error.value.hint
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("a", "home")] == []


def test_one_safetensors_file_is_left_and_the_card_travels(local_registry: Registry, tmp_path: Path):
    adapter = copy(SCIENCE, tmp_path / "a")
    save_file({"x": torch.ones(1)}, adapter / "more.safetensors")
    (adapter / "README.md").write_text("what it is for")
    (adapter / "adapter_model.bin").write_bytes(b"pickle")
    local_registry.export(str(adapter), "sglang", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "loreg_export.json",
    ]  # fmt: skip
    assert relative_error(deltas_by_hand_of(tmp_path / "out"), deltas_by_hand(SCIENCE)) == 0


def deltas_by_hand_of(folder: Path) -> dict[str, Tensor]:
    return deltas_by_hand(change_config(folder, rank_pattern={}, alpha_pattern={}))


def test_another_dtype(local_registry: Registry, tmp_path: Path):
    result = local_registry.export(str(SCIENCE), "vllm", tmp_path / "out", dtype="bfloat16")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert 1e-4 < result.fitted.epsilon < 4e-3
    error = relative_error(deltas_by_hand_of(tmp_path / "out"), deltas_by_hand(SCIENCE))
    assert result.fitted.worst_epsilon == pytest.approx(error, rel=1e-6)
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        local_registry.export(str(SCIENCE), "vllm", tmp_path / "again", dtype="int8")


def test_files_are_laid_out_as_safetensors_lays_them_out(local_registry: Registry, tmp_path: Path):
    adapter = train(tmp_path / "a", 1, r=8, head=True, rank_pattern={"layers.0.v_proj": 2})
    tensors = load_file(adapter / "adapter_model.safetensors")
    kinds = (torch.bfloat16, torch.float32, torch.float16, torch.float64)
    mixed = {name: tensor.to(kinds[i % 4]) for i, (name, tensor) in enumerate(sorted(tensors.items()))}
    change_tensors(adapter, mixed)
    local_registry.export(str(adapter), "peft", tmp_path / "out")
    written = tmp_path / "out" / "adapter_model.safetensors"
    save_file(load_file(written), tmp_path / "again", {"format": "pt"})
    assert written.read_bytes() == (tmp_path / "again").read_bytes()


def test_an_alpha_of_zero_beside_others_is_a_b_of_zeros(local_registry: Registry, tmp_path: Path):
    adapter = train(tmp_path / "a", 1, r=8, lora_alpha=0, alpha_pattern={"layers.1.v_proj": 4})
    local_registry.export(str(adapter), "sglang", tmp_path / "out")
    assert relative_error(by_sglang(tmp_path / "out"), deltas_by_peft(adapter)) < 1e-7


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_become_sixteen_exactly(local_registry: Registry, tmp_path: Path, kind: torch.dtype):
    adapter = in_dtype(train(tmp_path / "a", 1, r=8), kind)
    local_registry.export(str(adapter), "peft", tmp_path / "out", dtype="bfloat16")
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "out"))
    assert all(torch.equal(before[name].to(torch.bfloat16), tensor) for name, tensor in after.items())


def test_a_path_of_one_machine_does_not_travel(local_registry: Registry, tmp_path: Path):
    adapter = change_config(train(tmp_path / "a", 1), base_model_name_or_path="/home/ada/llama")
    local_registry.export(str(adapter), "vllm", tmp_path / "out")
    assert config(tmp_path / "out")["base_model_name_or_path"] is None


def test_a_folder_that_is_not_empty_is_left_alone(local_registry: Registry, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConflictError, match="is not empty"):
        local_registry.export(str(SCIENCE), "vllm", tmp_path / "out")


def test_the_real_minilm_classifier_says_the_same(local_registry: Registry, tmp_path: Path, minilm: Path):
    """vLLM takes a classifier whole; PEFT loads what is left of the configuration."""
    adapter = change_config(copy(MOVIES, tmp_path / "a"), use_rslora=True)
    local_registry.export(str(adapter), "vllm", tmp_path / "out", base=str(minilm))
    outputs = []
    for folder in (adapter, tmp_path / "out"):
        base = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=2)
        model = PeftModel.from_pretrained(base, folder).eval()
        with torch.no_grad():
            outputs.append(model(input_ids=torch.arange(100, 120).reshape(2, 10)).logits)
    assert torch.equal(*outputs)


class TestPulling:
    def test_for_a_server_is_made_once_and_then_needs_no_torch(self, local_registry: Registry, tmp_path: Path):
        version = local_registry.push(train(tmp_path / "a", 1, r=6, use_rslora=True), "team/a").version
        first = local_registry.pull("team/a", tmp_path / "one", profile="sglang")
        assert first.fitted.server == "SGLang 0.5.23"
        assert "lora_alpha is" in first.fitted.changes[0]
        code = f"""
import sys
sys.modules["torch"] = None
from loreg.registry import connect
here = connect(home={str(tmp_path / "home")!r})
print(here.pull("team/a", {str(tmp_path / "two")!r}, profile="sglang").fitted.moved)
"""
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"
        names = {path.name for path in (tmp_path / "one").iterdir()}
        assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "loreg_export.json"}
        for name in names:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert local_registry.pull("team/a", tmp_path / "one", profile="sglang").downloaded == 0
        assert local_registry.versions("team/a").items == (version,)

    def test_another_profile_or_parameter_makes_other_files(self, local_registry: Registry, tmp_path: Path):
        local_registry.push(train(tmp_path / "a", 1, r=12), "a")
        ranks = {}
        for limit in (8, 16):
            local_registry.pull("a", tmp_path / str(limit), profile=f"vllm:max_lora_rank={limit}")
            ranks[limit] = config(tmp_path / str(limit))["r"]
        assert ranks == {8: 8, 16: 12}
        (tmp_path / "mine.toml").write_text(LIMIT)
        local_registry.pull("a", tmp_path / "mine", profile=str(tmp_path / "mine.toml"))
        assert config(tmp_path / "mine")["r"] == 2
        with pytest.raises(ConflictError, match="is not empty and is not a:v1"):
            local_registry.pull("a", tmp_path / "8", profile="vllm:max_lora_rank=16")

    def test_the_base_that_it_was_pushed_with_is_looked_at(self, local_registry: Registry, tmp_path: Path):
        base = write_base(tmp_path / "base")
        local_registry.push(train(tmp_path / "a", 1, target_modules=["q_proj"]), "a", base=str(base))
        local_registry.pull("a", tmp_path / "out", profile="sglang")
        assert len(factors(tmp_path / "out")) == 4

    def test_is_refused_where_export_is(self, local_registry: Registry, tmp_path: Path):
        local_registry.push(DORA, "dora")
        with pytest.raises(CheckFailedError, match="VL002"):
            local_registry.pull("dora", tmp_path / "out", profile="vllm")
        with pytest.raises(NotFoundError, match="there is no profile 'nobody'"):
            local_registry.pull("dora", tmp_path / "out", profile="nobody")
        assert not (tmp_path / "out").exists()


def test_by_command_line(tmp_path: Path):
    loreg = command_line({"LOREG_HOME": str(tmp_path / "home")})
    train(tmp_path / "a", 1, r=6, use_rslora=True, alpha_pattern={"v_proj": 3})
    outcome = loreg("export", tmp_path / "a", "--profile", "sglang", "--to", tmp_path / "out")
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert lines[:2] == [f"exported a to {tmp_path / 'out'}", "for SGLang 0.5.23:"]
    assert lines[2] == "  lora_alpha is 19.5959 for all; B of 2 modules has the rest of its scale"
    assert re.fullmatch(r"  2 deltas moved: ε = \d\.\de-0[89] in all, \d\.\de-08 at layers\.\d\.v_proj", lines[-1])
    shutil.rmtree(tmp_path / "out")
    outcome = loreg("export", tmp_path / "a", "--profile", "sglang", "--to", tmp_path / "out", "--format", "json")
    assert json.loads(outcome.stdout)["fitted"]["server"] == "SGLang 0.5.23"
    loreg("push", tmp_path / "a", "a")
    outcome = loreg("pull", "a", tmp_path / "pulled", "--profile", "vllm")
    assert "for vLLM 0.33:" in outcome.stdout
    assert "every delta is the same, to the last bit" in outcome.stdout
    outcome = loreg("export", DORA, "--profile", "vllm", "--to", tmp_path / "dora")
    assert outcome.exit_code == 5
    assert outcome.stderr.startswith("error: ")


@pytest.mark.parametrize("server", ["vllm", "peft:0.10"])
def test_a_file_that_is_cut_off_while_it_is_read_makes_no_export(
    local_registry: Registry, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
):
    adapter = train(tmp_path / "a", 1, use_rslora=True)
    monkeypatch.setattr(float_codec.os, "preadv", lambda *arguments: 0)
    with pytest.raises(IntegrityError, match="ended while it was read"):
        local_registry.export(str(adapter), server, tmp_path / "out")
    assert not (tmp_path / "out").exists()
