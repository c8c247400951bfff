"""LoRA on the parameters of experts: as PEFT targets them without their owner, and stacked as Megatron exports them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    JetMoeConfig,
    JetMoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from cases.building import (
    PREFIX,
    VOCABULARY,
    WEIGHTS,
    agree,
    answers,
    codes,
    of_adapter,
    of_baked,
    refused_everywhere,
    save,
    trained,
    write,
)
from loreg.adapters.structure import read_structure
from loreg.entities import MergeOptions
from loreg.errors import LoregError
from loreg.registry import Registry

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4,
}  # fmt: skip
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK = {
    "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 8,
    "q_lora_rank": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "qk_nope_head_dim": 8,
}  # fmt: skip
JETMOE = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}


def made(build: Callable[[], PreTrainedModel]) -> Callable[[], PreTrainedModel]:
    def model() -> PreTrainedModel:
        torch.manual_seed(1)
        return build().eval()

    return model


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "mixtral": made(lambda: MixtralForCausalLM(MixtralConfig(**SIZES, **LOCAL))),
    "qwen3_moe": made(
        lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**SIZES, head_dim=8, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2)
        )
    ),
    "olmoe": made(lambda: OlmoeForCausalLM(OlmoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2))),
    "deepseek_v3": made(
        lambda: DeepseekV3ForCausalLM(
            DeepseekV3Config(**SIZES, **DEEPSEEK, moe_intermediate_size=12, num_experts_per_tok=2)
        )
    ),
    "gpt_oss": made(lambda: GptOssForCausalLM(GptOssConfig(**SIZES, **LOCAL, head_dim=8))),
    "granitemoe": made(lambda: GraniteMoeForCausalLM(GraniteMoeConfig(**SIZES, **LOCAL))),
    "jetmoe": made(lambda: JetMoeForCausalLM(JetMoeConfig(**JETMOE, **LOCAL, num_key_value_heads=2, kv_channels=8))),
}
BOTH = ["experts.gate_up_proj", "experts.down_proj"]
BARE = [(name, targets) for name, targets in (
    ("mixtral", "all-linear"), ("mixtral", ["q_proj", "w1", "w2", "w3"]),
    ("qwen3_moe", "all-linear"), ("qwen3_moe", ["q_proj", "gate_proj", "up_proj", "down_proj"]),
    ("qwen3_moe", ["q_proj", "gate_proj", "up_proj"]), ("olmoe", ["q_proj", "down_proj"]),
    ("olmoe", "all-linear"), ("deepseek_v3", "all-linear"),
)]  # fmt: skip
NAMED = [
    ("mixtral", {"target_parameters": BOTH}),
    ("mixtral", {"target_parameters": ["down_proj"]}),
    ("mixtral", {"target_parameters": ["experts.gate_up_proj"], "rank_pattern": {"experts.gate_up_proj": 2}}),
    ("gpt_oss", {"target_parameters": ["experts.gate_up_proj", "experts.gate_up_proj_bias", "experts.down_proj"]}),
    ("gpt_oss", {"target_parameters": ["router.weight"]}),
    ("granitemoe", {"target_parameters": BOTH}),
    ("jetmoe", {"target_parameters": ["input_linear.weight", "output_linear.weight"], "target_modules": []}),
]  # fmt: skip


def wrapped(peft: PeftModel) -> Iterator[tuple[str, str, LoraLayer]]:
    """Every module with LoRA: what loreg calls it, the tensor that it acts on, PEFT's layer."""
    for name, layer in peft.base_model.model.named_modules():
        if isinstance(layer, ParamWrapper):
            owner, parameter = name.replace(".base_layer", ""), layer.parameter_name
            yield owner if parameter == "weight" else f"{owner}.{parameter}", f"{owner}.{parameter}", layer
        elif isinstance(layer, LoraLayer):
            yield name, f"{name}.weight", layer


def expected_layout(peft: PeftModel) -> dict[str, tuple[Any, ...]]:
    return {
        name: (weight, layer.r["default"], layer.scaling["default"], getattr(layer, "num_experts", 1),
               layer.out_features, layer.in_features)
        for name, weight, layer in wrapped(peft)
    }  # fmt: skip


def found_layout(folder: Path) -> dict[str, tuple[Any, ...]]:
    return {
        name: (m.weight, m.rank, m.scale, m.shape.matrices, m.shape.out, m.shape.in_)
        for name, m in read_structure(folder).modules.items()
        if m.shape is not None
    }


def deltas(model: PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    """What PEFT adds to each tensor for an adapter, in float64."""
    peft = PeftModel.from_pretrained(model, folder).double()
    return {weight: layer.get_delta_weight("default").detach() for _, weight, layer in wrapped(peft)}


@pytest.mark.parametrize(("name", "targets"), BARE)
def test_parameters_without_owner_are_read_as_peft_applies_them(
    local_registry: Registry, tmp_path: Path, name: str, targets: list[str] | str
):
    peft = trained(MODELS[name](), targets)
    folder = save(peft, tmp_path / "a")
    assert not all(
        "." in target for target in json.loads((folder / "adapter_config.json").read_text())["target_parameters"]
    )
    assert found_layout(folder) == expected_layout(peft)
    assert codes(local_registry, folder) == []


@pytest.mark.parametrize(("name", "options"), NAMED)
def test_so_are_those_with_an_owner(local_registry: Registry, tmp_path: Path, name: str, options: dict):
    peft = trained(MODELS[name](), **{"target_modules": ["q_proj"], **options})
    folder = save(peft, tmp_path / "a")
    assert found_layout(folder) == expected_layout(peft)
    assert codes(local_registry, folder) == []


@pytest.mark.parametrize(("name", "targets"), BARE)
def test_they_fit_their_base_and_bake_to_what_was_trained(
    local_registry: Registry, tmp_path: Path, name: str, targets: list[str] | str
):
    peft = trained(MODELS[name](), targets)
    folder, base = save(peft, tmp_path / "a"), save(MODELS[name](), tmp_path / "base")
    assert codes(local_registry, folder, base=str(base)) == ["LB003"]
    local_registry.bake([str(folder)], base=str(base), folder=tmp_path / "baked")
    agree(of_baked(tmp_path / "baked"), answers(peft))


@pytest.mark.parametrize(("name", "targets"), BARE[:5])
def test_two_merge_to_the_sum_of_what_peft_adds(
    local_registry: Registry, tmp_path: Path, name: str, targets: list[str] | str
):
    sources = [
        save(trained(MODELS[name](), targets, size, r=r), tmp_path / f"{r}") for size, r in ((0.05, 4), (0.1, 2))
    ]
    local_registry.merge(
        [str(source) for source in sources], MergeOptions(weights=[0.6, -0.4]), folder=tmp_path / "merged"
    )
    assert codes(local_registry, tmp_path / "merged") == []
    actual = deltas(MODELS[name](), tmp_path / "merged")
    one, other = (deltas(MODELS[name](), source) for source in sources)
    assert actual.keys() == one.keys()
    for weight, delta in actual.items():
        agree(delta, 0.6 * one[weight] - 0.4 * other[weight])


def test_adapters_of_different_parameters_of_one_module_merge(local_registry: Registry, tmp_path: Path):
    """Alone the factors of either lie at the same place in the file, and only the configuration tells them apart."""
    sources = [
        save(trained(MODELS["mixtral"](), ["q_proj"], target_parameters=[target]), tmp_path / f"{number}")
        for number, target in enumerate(BOTH)
    ]
    local_registry.merge(
        [str(source) for source in sources], MergeOptions(weights=[0.6, 0.5]), folder=tmp_path / "merged"
    )
    actual = deltas(MODELS["mixtral"](), tmp_path / "merged")
    up, down = (deltas(MODELS["mixtral"](), source) for source in sources)
    assert actual.keys() == up.keys() | down.keys()
    for weight, delta in actual.items():
        agree(delta, sum(w * d[weight] for w, d in ((0.6, up), (0.5, down)) if weight in d))


def test_modules_beside_them_are_still_checked(local_registry: Registry, tmp_path: Path):
    for fields, expected in (
        ({"target_modules": ["k_proj"]}, ["LR006"]),
        ({"r": 8}, ["LR003"]),
        ({"use_dora": True}, ["LR007"]),
    ):
        folder = save(trained(MODELS["mixtral"](), ["q_proj"], target_parameters=BOTH), tmp_path / expected[0])
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        assert codes(local_registry, folder) == expected


def test_a_rank_of_which_the_rows_are_no_multiple_is_refused(local_registry: Registry, tmp_path: Path):
    folder = save(trained(MODELS["mixtral"](), ["q_proj"], target_parameters=BOTH), tmp_path / "a")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "rank_pattern": {"experts.gate_up_proj": 3}}))
    assert codes(local_registry, folder) == ["LR003"]
    path.write_text(json.dumps({**config, "rank_pattern": {"experts.gate_up_proj": 2}}))  # eight experts, and four
    assert codes(local_registry, folder) == ["LR003"]


class TestStacked:
    """SkyRL#1852: A (E, r, in) and B (E, out, r) for each projection."""

    OUT_IN: Mapping[str, tuple[int, int]] = {
        "gate_up_proj": (96, 32), "down_proj": (32, 48), "gate_proj": (48, 32), "up_proj": (48, 32), "w1": (48, 32),
        "w3": (48, 32), "w2": (32, 48),
    }  # fmt: skip

    def adapter(self, folder: Path, projections: list[str], experts: int = 4, rank: int = 4) -> Path:
        peft = trained(MODELS["mixtral"](), ["q_proj"], r=rank, lora_alpha=2 * rank, lora_dropout=0.1)
        tensors = load_file(save(peft, folder) / WEIGHTS)
        generator = torch.Generator().manual_seed(0)
        for layer in (0, 1):
            for projection in projections:
                out, in_ = self.OUT_IN[projection]
                name = f"{PREFIX}model.layers.{layer}.mlp.experts.{projection}.lora"
                tensors[f"{name}_A.weight"] = torch.randn(experts, rank, in_, generator=generator) * 0.05
                tensors[f"{name}_B.weight"] = torch.randn(experts, out, rank, generator=generator) * 0.05
        path = folder / "adapter_config.json"
        config = {**json.loads(path.read_text()), "target_modules": ["q_proj", *projections]}
        path.write_text(json.dumps(config))
        return write(folder, tensors)

    def by_hand(self, folder: Path) -> dict[str, Tensor]:
        """What the factors of every expert add to its projection, at the scale of 2."""
        tensors = load_file(folder / WEIGHTS)
        stacked = [name for name, tensor in tensors.items() if tensor.ndim == 3 and "lora_A" in name]
        return {
            name.removeprefix(PREFIX).removesuffix(".lora_A.weight"): 2
            * tensors[name.replace("lora_A", "lora_B")].double()
            @ tensors[name].double()
            for name in stacked
        }

    @pytest.mark.parametrize("rank", [4, 3])
    def test_are_refused_and_exported_as_parameters(self, local_registry: Registry, tmp_path: Path, rank: int):
        adapter = self.adapter(tmp_path / "a", ["gate_up_proj", "down_proj"], rank=rank)
        base = save(MODELS["mixtral"](), tmp_path / "base")
        assert codes(local_registry, adapter) == ["LR019"]
        refused_everywhere(
            local_registry, adapter, base, tmp_path / "out", "LR019", "loreg export DIR --profile peft --to NEW"
        )
        local_registry.export(str(adapter), "peft", tmp_path / "new")
        assert codes(local_registry, tmp_path / "new") == []
        actual, expected = deltas(MODELS["mixtral"](), tmp_path / "new"), self.by_hand(adapter)
        assert {name for name in actual if "experts" in name} == expected.keys()
        for name, delta in expected.items():
            agree(actual[name], delta)
        local_registry.push(str(tmp_path / "new"), "team/a")

    @pytest.mark.parametrize("projections", [["gate_proj", "up_proj", "down_proj"], ["w1", "w2", "w3"], ["up_proj"]])
    def test_gate_and_up_become_one_parameter(self, local_registry: Registry, tmp_path: Path, projections: list[str]):
        adapter = self.adapter(tmp_path / "a", projections)
        local_registry.export(str(adapter), "peft", tmp_path / "new")
        actual, parts = deltas(MODELS["mixtral"](), tmp_path / "new"), self.by_hand(adapter)
        for layer in (0, 1):
            experts = f"model.layers.{layer}.mlp.experts"
            halves = [torch.zeros(4, 48, 32), torch.zeros(4, 48, 32)]
            for half, names in enumerate((("gate_proj", "w1"), ("up_proj", "w3"))):
                halves[half] = next((parts[f"{experts}.{n}"] for n in names if f"{experts}.{n}" in parts), halves[half])
            agree(actual[f"{experts}.gate_up_proj"], torch.cat(halves, dim=1))
            for down in ("down_proj", "w2"):
                if f"{experts}.{down}" in parts:
                    agree(actual[f"{experts}.down_proj"], parts[f"{experts}.{down}"])
        of_adapter(MODELS["mixtral"](), tmp_path / "new")

    def test_as_many_experts_as_ranks_are_no_other_form(self, tmp_path: Path):
        structure = read_structure(self.adapter(tmp_path / "a", ["gate_up_proj"], experts=4, rank=4))
        form = structure.modules["model.layers.0.mlp.experts.gate_up_proj"].shape
        assert form is not None
        assert (form.kind, form.matrices, form.rank, form.out, form.in_) == ("experts", 4, 4, 96, 32)
        assert form.stacked

    def test_halves_of_different_experts_are_refused(self, local_registry: Registry, tmp_path: Path):
        adapter = self.adapter(tmp_path / "a", ["gate_proj", "up_proj"])
        tensors = load_file(adapter / WEIGHTS)
        write(adapter, {n: t[:3] if ".1.mlp.experts.up_proj" in n else t for n, t in tensors.items()})
        with pytest.raises(LoregError, match="experts"):
            local_registry.export(str(adapter), "peft", tmp_path / "new")
