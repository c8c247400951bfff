"""Adapters baked into a model: PEFT's merge_and_unload in float64 is the oracle, and the model that runs."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    MixtralConfig,
    MixtralForCausalLM,
)

from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE, empty_home
from factories import change_config, change_tensors, write_base
from factories import train as train_plain
from loreg.entities import MergeOptions
from loreg.errors import CheckFailedError, ConflictError, IntegrityError, LoregError, MergeError, UsageError
from loreg.registry import Registry, connect
from module_kinds import FORMS, new_model, train

HALF_STEP = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
ARITHMETIC = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 3e-6, torch.bfloat16: 3e-6}


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def write_everything(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    folder.mkdir()
    save_file({name: t.to(dtype) for name, t in new_model().state_dict().items()}, folder / "model.safetensors")
    return folder


def merged_by_peft(base: Path, adapters: Sequence[Path], weights: Sequence[float]) -> dict[str, Tensor]:
    """In float64: the base plus the weighted differences that merging each adapter alone makes."""
    tensors = {name: t.double() for name, t in load_file(base / "model.safetensors").items()}
    expected = dict(tensors)
    for adapter, weight in zip(adapters, weights, strict=True):
        model = new_model().double()
        model.load_state_dict(tensors)
        peft = PeftModel.from_pretrained(model, adapter).double()
        for name, tensor in peft.merge_and_unload().state_dict().items():
            expected[name] = expected[name] + weight * (tensor.detach() - tensors[name])
    return expected


def check(folder: Path, expected: dict[str, Tensor]) -> None:
    actual = load_file(folder / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        allowed = HALF_STEP[actual[name].dtype] * tensor.abs() + ARITHMETIC[actual[name].dtype] * tensor.abs().max()
        assert bool(((actual[name].double() - tensor).abs() <= allowed).all()), name


VARIANTS: dict[str, tuple[list[str], dict[str, Any]]] = {
    **FORMS,
    "rank and alpha patterns": (["plain", "image"], {"rank_pattern": {"image": 2}, "alpha_pattern": {"plain": 9}}),
    "dora": (["plain"], {"use_dora": True}),
    "dora, rslora": (["plain"], {"use_dora": True, "use_rslora": True}),
    "dora on a transposed layer": (["old"], {"use_dora": True, "fan_in_fan_out": True}),
    "dora on a convolution": (["image", "sound"], {"use_dora": True}),
    "dora on an embedding": (["words"], {"use_dora": True}),
    "whole modules": (["old"], {"fan_in_fan_out": True, "modules_to_save": ["plain"]}),
    "full biases": (["plain", "image"], {"bias": "all"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_what_peft_makes_of_it(local_registry: Registry, tmp_path: Path, variant: str):
    targets, options = VARIANTS[variant]
    adapter, base = train(tmp_path / "a", 1, targets, **options), write_everything(tmp_path / "base")
    result = local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True)
    check(tmp_path / "baked", merged_by_peft(base, [adapter], [1]))
    assert result.changed + result.copied == len(new_model().state_dict())
    assert result.verified == min(16, result.changed) + min(16, result.copied)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["mixed", "transposed", "experts, nested", "dora on a transposed layer"])
def test_is_rounded_once_to_the_dtype_of_the_base(
    local_registry: Registry, tmp_path: Path, variant: str, dtype: torch.dtype
):
    targets, options = VARIANTS[variant]
    adapter, base = train(tmp_path / "a", 1, targets, **options), write_everything(tmp_path / "base", dtype)
    local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True)
    assert {t.dtype for t in load_file(tmp_path / "baked" / "model.safetensors").values()} == {dtype}
    check(tmp_path / "baked", merged_by_peft(base, [adapter], [1]))


@pytest.mark.parametrize("variant", ["mixed", "with biases", "experts, nested", "dora", "dora on a transposed layer"])
def test_several_adapters_are_their_weighted_sum(local_registry: Registry, tmp_path: Path, variant: str):
    targets, options = VARIANTS[variant]
    adapters = [train(tmp_path / f"{i}", i, targets, **{**options, "r": 2 + i}) for i in range(2)]
    base = write_everything(tmp_path / "base")
    local_registry.bake(
        [str(a) for a in adapters], base, tmp_path / "baked", MergeOptions(weights=[0.7, -0.4], scale=0.5)
    )
    check(tmp_path / "baked", merged_by_peft(base, adapters, [0.35, -0.2]))


def test_weights_for_modules(local_registry: Registry, tmp_path: Path):
    adapters = [train(tmp_path / f"{i}", i, ["plain", "words"]) for i in range(2)]
    base = write_everything(tmp_path / "base")
    local_registry.bake(
        [str(a) for a in adapters],
        base,
        tmp_path / "baked",
        MergeOptions(weights=[1, 0], weights_for={"plain": [0, 2]}),
    )
    first, second = merged_by_peft(base, adapters, [1, 0]), merged_by_peft(base, adapters, [0, 2])
    check(tmp_path / "baked", {**first, "plain.weight": second["plain.weight"]})


def test_other_methods_bake_what_merging_writes(local_registry: Registry, tmp_path: Path):
    adapters = [str(train(tmp_path / f"{i}", i, ["plain", "image"])) for i in range(2)]
    base = write_everything(tmp_path / "base")
    how = {"method": "ties", "parameters": {"density": 0.5}, "rank": 3}
    local_registry.merge(adapters, MergeOptions(weights=[0.7, 0.3], **how), folder=tmp_path / "merged")
    local_registry.bake(adapters, base, tmp_path / "baked", MergeOptions(weights=[0.7, 0.3], **how))
    check(tmp_path / "baked", merged_by_peft(base, [tmp_path / "merged"], [1]))


def test_pissa_is_baked_with_its_initial_adapter(local_registry: Registry, tmp_path: Path):
    model = new_model()
    peft = get_peft_model(model, LoraConfig(target_modules=["plain"], r=3, init_lora_weights="pissa"))
    peft.save_pretrained(tmp_path / "initial")
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data.add_(0.1)
    peft.save_pretrained(tmp_path / "trained")
    base, trained = write_everything(tmp_path / "base"), str(tmp_path / "trained")
    with pytest.raises(MergeError, match="init_lora_weights is 'pissa'") as error:
        local_registry.bake([trained], base, tmp_path / "baked")
    assert "--initial DIR" in error.value.hint
    local_registry.bake([trained], base, tmp_path / "baked", MergeOptions(initial=[str(tmp_path / "initial")]))
    actual = load_file(tmp_path / "baked" / "model.safetensors")["plain.weight"]
    assert torch.allclose(actual, peft.merge_and_unload().plain.weight, atol=1e-5)


def test_another_dtype_is_for_every_number_and_says_so(local_registry: Registry, tmp_path: Path):
    adapter, base = train(tmp_path / "a", 1, ["plain"]), write_everything(tmp_path / "base")
    (base / "config.json").write_text(json.dumps({"dtype": "float32", "model_type": "x"}))
    local_registry.bake([str(adapter)], base, tmp_path / "baked", dtype="bfloat16", verify=True)
    actual = load_file(tmp_path / "baked" / "model.safetensors")
    assert {tensor.dtype for tensor in actual.values()} == {torch.bfloat16}
    expected = merged_by_peft(base, [adapter], [1])
    check(tmp_path / "baked", expected)
    assert json.loads((tmp_path / "baked" / "config.json").read_text())["dtype"] == "bfloat16"
    for name in set(expected) - {"plain.weight"}:
        assert torch.equal(actual[name], load_file(base / "model.safetensors")[name].bfloat16())


# ── models that run ────────────────────────────────────────────────────────────────────────────────────────────────


def llama(folder: Path, *, tied: bool = True, shard: str = "1GB", dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=160, tie_word_embeddings=tied, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def adapt(base: Path, folder: Path, seed: int = 1, **options: Any) -> Path:
    """An adapter on the model in ``base`` with random factors, written by PEFT."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, lora_alpha=8, **options))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save.default" in name:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def logits(model: nn.Module, seed: int = 5) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(torch.randint(0, 150, (2, 9))).logits


def runs_like_base_and_adapter(base: Path, adapter: Path, baked: Path, dtype: torch.dtype = torch.float64) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    expected = logits(PeftModel.from_pretrained(model, adapter).to(dtype))
    baked_model, loading = AutoModelForCausalLM.from_pretrained(baked, dtype=dtype, output_loading_info=True)
    assert not loading["missing_keys"], loading
    assert not loading["unexpected_keys"], loading
    assert float((logits(baked_model) - expected).abs().max()) < 1e-5 * float(expected.abs().max())


ATTENTION = ["q_proj", "v_proj"]


class TestLlama:
    def test_runs_like_base_and_adapter(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", tied=False)
        adapter = adapt(base, tmp_path / "a", target_modules="all-linear")
        local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True)
        runs_like_base_and_adapter(base, adapter, tmp_path / "baked")

    @pytest.mark.parametrize(
        ("options", "stays"),
        [
            ({"target_modules": ATTENTION}, True),
            ({"target_modules": [*ATTENTION, "embed_tokens"]}, False),
            ({"target_modules": [*ATTENTION, "lm_head"]}, False),
            ({"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]}, False),
            ({"target_modules": ATTENTION, "modules_to_save": ["lm_head"]}, False),
        ],
    )
    def test_tied_weights_stay_tied_or_it_is_said(
        self, local_registry: Registry, tmp_path: Path, options: Any, stays: bool
    ):
        base = llama(tmp_path / "base")
        adapter = adapt(base, tmp_path / "a", **options)
        result = local_registry.bake([str(adapter)], base, tmp_path / "baked")
        config = json.loads((tmp_path / "baked" / "config.json").read_text())
        assert config["tie_word_embeddings"] is stays
        assert ("lm_head.weight" in load_file(tmp_path / "baked" / "model.safetensors")) is not stays
        assert any("they are two now" in note for note in result.notes) is not stays
        runs_like_base_and_adapter(base, adapter, tmp_path / "baked")

    def test_shards_keep_their_names_and_what_lies_beside_comes_along(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", shard="60KB")
        for name in ("tokenizer.json", "chat_template.jinja", "README.md", "pytorch_model.bin", ".hidden"):
            (base / name).write_text("{}")
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
        local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True)
        names = {path.name for path in (tmp_path / "baked").iterdir()}
        left = {"README.md", "pytorch_model.bin", ".hidden"}
        assert names == {path.name for path in base.iterdir()} - left | {"loreg_bake.json"}
        index, before = (
            json.loads((folder / "model.safetensors.index.json").read_text()) for folder in (tmp_path / "baked", base)
        )
        assert index["weight_map"] == before["weight_map"]
        assert index["metadata"]["total_size"] == before["metadata"]["total_size"]
        runs_like_base_and_adapter(base, adapter, tmp_path / "baked")

    def test_a_larger_vocabulary_replaces_both_tables(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", tied=False)
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(170)
        options = {"target_modules": ATTENTION, "modules_to_save": ["embed_tokens", "lm_head"]}
        get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, **options)).save_pretrained(tmp_path / "a")
        result = local_registry.bake([str(tmp_path / "a")], base, tmp_path / "baked")
        assert any("the vocabulary has 170 tokens now" in note for note in result.notes)
        baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
        peft = PeftModel.from_pretrained(model, tmp_path / "a")
        assert torch.allclose(logits(baked), logits(peft), atol=1e-5)

    def test_a_larger_tied_vocabulary_stays_tied(self, local_registry: Registry, tmp_path: Path):
        """PEFT saves the resized embedding beside the factors by itself: it is the base's, not a trained copy."""
        base = llama(tmp_path / "base")
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(170)
        options = {"target_modules": ATTENTION, "init_lora_weights": False}
        get_peft_model(model, LoraConfig(r=4, **options)).save_pretrained(tmp_path / "a")
        assert any("embed_tokens" in name for name in load_file(tmp_path / "a" / "adapter_model.safetensors"))
        local_registry.bake([str(tmp_path / "a")], base, tmp_path / "baked")
        baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
        assert baked.config.tie_word_embeddings
        fresh = AutoModelForCausalLM.from_pretrained(base)
        fresh.resize_token_embeddings(170)
        assert torch.allclose(logits(baked), logits(PeftModel.from_pretrained(fresh, tmp_path / "a")), atol=1e-5)

    def test_a_vocabulary_of_two_sizes_is_refused(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", tied=False)
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION, modules_to_save=["embed_tokens"])
        name = "base_model.model.model.embed_tokens.weight"
        change_tensors(adapter, {name: torch.zeros(170, 48)})
        with pytest.raises(MergeError, match=r"embed_tokens\.weight would have 170 rows and lm_head\.weight 160"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")

    @pytest.mark.parametrize("tied", [True, False])
    def test_no_hint_asks_for_what_cannot_help(self, local_registry: Registry, tmp_path: Path, tied: bool):
        """BART and its kin pad a buffer with the vocabulary, and no adapter of PEFT can hold one."""
        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "pad_token_id": 1}
        config = MarianConfig(
            **sizes, **heads, vocab_size=71, decoder_vocab_size=71, decoder_start_token_id=1, tie_word_embeddings=tied
        )
        MarianMTModel(config).save_pretrained(tmp_path / "base")
        model = MarianMTModel.from_pretrained(tmp_path / "base")
        model.resize_token_embeddings(74)
        options = {"target_modules": ATTENTION[:2], "modules_to_save": ["embed_tokens", "lm_head"]}
        get_peft_model(model, LoraConfig(r=4, **options)).save_pretrained(tmp_path / "a")
        with pytest.raises(MergeError, match=r"final_logits_bias is .*74 tokens now") as refused:
            local_registry.bake([str(tmp_path / "a")], tmp_path / "base", tmp_path / "baked")
        assert refused.value.hint == "serve it as an adapter"

    def test_ensured_tying_is_kept(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base")
        targets = [*ATTENTION, "embed_tokens"]
        adapter = adapt(base, tmp_path / "a", target_modules=targets, ensure_weight_tying=True)
        local_registry.bake([str(adapter)], base, tmp_path / "baked")
        assert "lm_head.weight" not in load_file(tmp_path / "baked" / "model.safetensors")
        runs_like_base_and_adapter(base, adapter, tmp_path / "baked")

    def test_unchanged_tensors_are_the_same_bytes(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", dtype=torch.bfloat16)
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
        local_registry.bake([str(adapter)], base, tmp_path / "baked")
        before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "baked"))
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {f"model.layers.{i}.self_attn.{p}.weight" for i in range(3) for p in ATTENTION}


def test_gpt2_whose_matrices_lie_transposed(local_registry: Registry, tmp_path: Path):
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=2, vocab_size=160)).save_pretrained(tmp_path / "base")
    adapter = adapt(tmp_path / "base", tmp_path / "a", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    local_registry.bake([str(adapter)], tmp_path / "base", tmp_path / "baked", verify=True)
    runs_like_base_and_adapter(tmp_path / "base", adapter, tmp_path / "baked")


def test_experts_that_are_stored_one_by_one(local_registry: Registry, tmp_path: Path):
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=160, num_local_experts=3,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    assert any(".experts.0.w1" in name for name in load_file(tmp_path / "base" / "model.safetensors"))
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = adapt(tmp_path / "base", tmp_path / "a", target_modules=ATTENTION, target_parameters=parameters)
    local_registry.bake([str(adapter)], tmp_path / "base", tmp_path / "baked", verify=True)
    runs_like_base_and_adapter(tmp_path / "base", adapter, tmp_path / "baked", torch.float32)


@pytest.mark.parametrize("width", [48, 32])
def test_experts_that_are_stored_together_and_transposed(local_registry: Registry, tmp_path: Path, width: int):
    """As in gpt-oss; where a matrix is square, only the kind of model says which way it lies."""
    torch.manual_seed(0)
    config = GptOssConfig(
        hidden_size=32, intermediate_size=width, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=160, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    GptOssForCausalLM(config).save_pretrained(tmp_path / "base")
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = adapt(tmp_path / "base", tmp_path / "a", target_modules=ATTENTION, target_parameters=parameters)
    local_registry.bake([str(adapter)], tmp_path / "base", tmp_path / "baked", verify=True)
    runs_like_base_and_adapter(tmp_path / "base", adapter, tmp_path / "baked", torch.float32)


@pytest.mark.parametrize(
    "odd", [{"architectures": 5}, {"architectures": "x"}, {"text_config": None}, {"tie_word_embeddings": "yes"}]
)
def test_an_odd_configuration_does_no_harm(local_registry: Registry, tmp_path: Path, odd: dict[str, Any]):
    base = llama(tmp_path / "base", tied=False)
    adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
    local_registry.bake([str(adapter)], base, tmp_path / "plain")
    (base / "config.json").write_text(json.dumps({**json.loads((base / "config.json").read_text()), **odd}))
    local_registry.bake([str(adapter)], base, tmp_path / "baked")
    both = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "baked")]
    assert both[0] == both[1]


@pytest.mark.parametrize(("adapter", "labels"), [(NEWS, 5), (MOVIES, 2)])
def test_the_real_minilm_becomes_a_classifier(
    local_registry: Registry, tmp_path: Path, minilm: Path, adapter: Path, labels: int
):
    result = local_registry.bake([str(adapter)], minilm, tmp_path / "baked", verify=True)
    assert any("BertForSequenceClassification" in note for note in result.notes)
    base = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=labels, dtype=torch.float64)
    expected = logits(PeftModel.from_pretrained(base, adapter).double())
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "baked", dtype=torch.float64, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert torch.allclose(logits(model), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_real_adapters_on_the_shapes_of_smollm2(local_registry: Registry, tmp_path: Path, dtype: torch.dtype):
    """The weights of SmolLM2 are not here; its shapes are, and the adapters are real."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=2000, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(tmp_path / "base")
    real = ((SCIENCE, 0.6), (HISTORY, 0.4), (DORA, 0.5))
    sources, weights = [str(adapter) for adapter, _ in real], [weight for _, weight in real]
    local_registry.bake(sources, tmp_path / "base", tmp_path / "baked", MergeOptions(weights=weights), verify=True)
    actual = load_file(tmp_path / "baked" / "model.safetensors")
    tensors = {name: t.double() for name, t in load_file(tmp_path / "base" / "model.safetensors").items()}
    expected = dict(tensors)
    for adapter, weight in real:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float64)
        merged = PeftModel.from_pretrained(model, adapter).double().merge_and_unload().state_dict()
        for name, tensor in tensors.items():
            expected[name] = expected[name] + weight * (merged[name] - tensor)
    for name, tensor in expected.items():
        allowed = HALF_STEP[dtype] * tensor.abs() + 3e-6 * tensor.abs().max()
        assert bool(((actual[name].double() - tensor).abs() <= allowed).all()), name


# ── bases that do not fit ──────────────────────────────────────────────────────────────────────────────────────────


class TestBase:
    def push(self, local_registry: Registry, tmp_path: Path) -> tuple[Path, Path]:
        base, adapter = write_base(tmp_path / "base"), train_plain(tmp_path / "a", 1)
        local_registry.push(adapter, "a", base=str(base))
        return base, adapter

    def test_that_is_known_by_content_is_exact(self, local_registry: Registry, tmp_path: Path):
        base, _ = self.push(local_registry, tmp_path)
        result = local_registry.bake(["a"], base, tmp_path / "baked")
        assert [verdict.kind for verdict in result.verdicts] == ["exact"]
        record = json.loads((tmp_path / "baked" / "loreg_bake.json").read_text())
        assert record["base"]["content"] == local_registry.bases.show("base").base.digest
        assert record["sources"][0]["label"] == "a:v1"

    def test_of_other_weights_is_refused(self, local_registry: Registry, tmp_path: Path):
        self.push(local_registry, tmp_path)
        other = write_base(tmp_path / "other", {"layers.0.q_proj.weight": torch.zeros(24, 20)})
        with pytest.raises(CheckFailedError, match=r"a:v1 does not fit other .*it was trained on other weights"):
            local_registry.bake(["a"], other, tmp_path / "baked")
        digest = local_registry.bases.add(other, ["other"]).base.digest
        local_registry.bases.relate(digest, "base", "finetuned_from")
        with pytest.raises(CheckFailedError) as error:
            local_registry.bake(["a"], other, tmp_path / "baked")
        assert error.value.hint == "--allow-derived bakes it all the same"
        result = local_registry.bake(["a"], other, tmp_path / "baked", MergeOptions(allow_derived=True))
        assert result.verdicts[0].kind == "declared-derived"

    def test_of_another_shape_is_refused(self, local_registry: Registry, tmp_path: Path):
        _, adapter = self.push(local_registry, tmp_path)
        other = write_base(tmp_path / "other", {"layers.0.q_proj.weight": torch.zeros(24, 21)})
        with pytest.raises(CheckFailedError, match=r"q_proj is \(24, 20\) in the adapter, this base has \(24, 21\)"):
            local_registry.bake([str(adapter)], other, tmp_path / "baked")
        assert not (tmp_path / "baked").exists()
        assert not list(tmp_path.glob(".*baking"))

    @pytest.mark.parametrize("kind", ["gptq", "bitsandbytes", "fp8"])
    def test_that_is_quantised_is_refused_with_the_way_out(self, local_registry: Registry, tmp_path: Path, kind: str):
        _, adapter = self.push(local_registry, tmp_path)
        quantised = write_base(tmp_path / kind, {"layers.0.q_proj.weight": torch.zeros(24, 20, dtype=torch.uint8)})
        if kind != "fp8":
            (quantised / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": kind}}))
        with pytest.raises((MergeError, CheckFailedError), match=r"quantised|no tensor") as error:
            local_registry.bake([str(adapter)], quantised, tmp_path / "baked")
        if kind != "fp8":
            assert "the model that it was quantised from" in error.value.hint
            local_registry.bases.add(quantised, ["small"])
            local_registry.bases.relate("small", "base", "quantized_from", {"bits": 8})
            with pytest.raises(MergeError, match=f"is quantised \\({kind}\\).*It was made from base"):
                local_registry.bake([str(adapter)], quantised, tmp_path / "baked")

    def test_with_a_missing_shard_or_an_index_that_lies_is_refused(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", shard="60KB")
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
        index = base / "model.safetensors.index.json"
        document = json.loads(index.read_text())
        name = next(iter(document["weight_map"]))
        index.write_text(json.dumps({**document, "weight_map": {**document["weight_map"], name: "other"}}))
        with pytest.raises(LoregError, match="the shard other is missing"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")
        shard = max(base.glob("*.safetensors"))
        index.write_text(json.dumps({**document, "weight_map": {**document["weight_map"], name: shard.name}}))
        with pytest.raises(IntegrityError, match="does not tell the truth"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")
        index.write_text(json.dumps(document))
        shard.write_bytes(shard.read_bytes()[:-8])
        with pytest.raises(IntegrityError, match="cut short"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")
        assert not (tmp_path / "baked").exists()

    def test_without_the_bias_that_lora_bias_needs_is_refused(self, local_registry: Registry, tmp_path: Path):
        adapter, base = train(tmp_path / "a", 1, ["plain"], lora_bias=True), write_everything(tmp_path / "base")
        tensors = load_file(base / "model.safetensors")
        del tensors["plain.bias"]
        save_file(tensors, base / "model.safetensors")
        with pytest.raises(MergeError, match="lora_bias is true, and plain has no bias in the base"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")

    def test_without_a_head_that_the_adapter_has_is_refused(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", tied=False)
        adapter = adapt(base, tmp_path / "a", target_modules=["lm_head"])
        tensors = load_file(base / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors, base / "model.safetensors")
        with pytest.raises(CheckFailedError, match=r"has no tensor lm_head\.weight"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")


# ── what is left behind ────────────────────────────────────────────────────────────────────────────────────────────


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


KILLED = """
import os, signal, sys
from pathlib import Path
import loreg
base, adapter, target, after = sys.argv[1:]
replace, done = Path.replace, 0
def counted(self, to):
    global done
    if Path(to).suffix == ".safetensors":
        if done == int(after):
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
    return replace(self, to)
Path.replace = counted
with loreg.connect(home=str(Path(target).parent / "home")) as registry:
    registry.bake([adapter], base, target)
"""


class TestInterrupted:
    def test_a_kill_at_any_shard_is_gone_on_from(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", shard="60KB")
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
        local_registry.bake([str(adapter)], base, tmp_path / "whole")
        shards = len(list(base.glob("*.safetensors")))
        assert shards > 3
        for after in range(shards):
            target = tmp_path / f"killed-{after}"
            command = [sys.executable, "-c", KILLED, base, adapter, target, str(after)]
            assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
            assert not target.exists()
            result = local_registry.bake([str(adapter)], base, target)
            assert result.resumed == after
            assert contents(target) == contents(tmp_path / "whole")
            assert not list(tmp_path.glob(".*baking"))

    def test_what_was_begun_with_other_inputs_is_not_gone_on_with(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", shard="60KB")
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
        command = [sys.executable, "-c", KILLED, base, adapter, tmp_path / "baked", "2"]
        subprocess.run(command, check=False)
        with pytest.raises(ConflictError, match="an unfinished bake of other inputs lies in") as error:
            local_registry.bake([str(adapter)], base, tmp_path / "baked", MergeOptions(weights=[0.5]))
        assert error.value.hint.startswith("rm -r ")
        assert local_registry.bake([str(adapter)], base, tmp_path / "baked").resumed == 2

    def test_a_full_disk_leaves_nothing_under_the_name(self, local, tmp_path: Path):
        base = llama(tmp_path / "base", shard="60KB")
        adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        arguments = ("bake", adapter, "--base", base, "--to", tmp_path / "baked")
        local("ls")  # the catalog is there before
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
            done = local(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert done.exit_code == 1
        assert len(done.stderr.strip().splitlines()) <= 2
        assert "File too large" in done.stderr
        assert "the same command goes on where this one stopped" in done.stderr
        assert not (tmp_path / "baked").exists()
        again = local(*arguments)
        assert again.exit_code == 0, again.stderr
        runs_like_base_and_adapter(base, adapter, tmp_path / "baked")

    def test_a_folder_that_is_not_empty_is_refused(self, local_registry: Registry, tmp_path: Path):
        adapter, base = train(tmp_path / "a", 1, ["plain"]), write_everything(tmp_path / "base")
        (tmp_path / "baked").mkdir()
        (tmp_path / "baked" / "mine").write_text("x")
        with pytest.raises(ConflictError, match="is not empty; nothing was changed"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked")
        assert contents(tmp_path / "baked") == {"mine": b"x"}

    def test_what_does_not_fit_into_half_precision_leaves_nothing(self, local_registry: Registry, tmp_path: Path):
        adapter, base = train(tmp_path / "a", 1, ["plain"]), write_everything(tmp_path / "base", torch.float16)
        with pytest.raises(MergeError, match=r"plain\.weight has numbers over 65504"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked", MergeOptions(weights=[1e6]))
        with pytest.raises(MergeError, match=r"plain\.weight has NaN or infinite numbers"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked", MergeOptions(weights=[1e60]))
        assert not list(tmp_path.glob("*baked")) + list(tmp_path.glob(".*baking"))


class TestVerify:
    def test_finds_a_flipped_bit(self, local_registry: Registry, tmp_path: Path):
        adapter, base = train(tmp_path / "a", 1, ["plain", "words"]), write_everything(tmp_path / "base")
        local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True)
        assert local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True).verified == len(
            new_model().state_dict()
        )
        file = tmp_path / "baked" / "model.safetensors"
        for name in ("plain.weight", "image.weight"):
            tensors = load_file(file)
            tensors[name].view(torch.int32).view(-1)[3] ^= 1 << 20
            save_file(tensors, file)
            with pytest.raises(IntegrityError, match=f"{name} has a number in row"):
                local_registry.bake([str(adapter)], base, tmp_path / "baked", verify=True)
            tensors[name].view(torch.int32).view(-1)[3] ^= 1 << 20
            save_file(tensors, file)

    def test_of_another_bake_is_refused(self, local_registry: Registry, tmp_path: Path):
        adapter, base = train(tmp_path / "a", 1, ["plain"]), write_everything(tmp_path / "base")
        local_registry.bake([str(adapter)], base, tmp_path / "baked")
        with pytest.raises(ConflictError, match="is the result of another bake"):
            local_registry.bake([str(adapter)], base, tmp_path / "baked", MergeOptions(weights=[0.5]), verify=True)


def test_bad_calls_are_refused(local_registry: Registry, tmp_path: Path):
    adapter, base = str(train(tmp_path / "a", 1, ["plain"])), write_everything(tmp_path / "base")
    with pytest.raises(UsageError, match="there is no dtype 'int4'"):
        local_registry.bake([adapter], base, tmp_path / "baked", dtype="int4")
    with pytest.raises(UsageError, match="1 adapters and 2 weights"):
        local_registry.bake([adapter], base, tmp_path / "baked", MergeOptions(weights=[1, 2]))
    with pytest.raises(UsageError, match="not all finite"):
        local_registry.bake([adapter], base, tmp_path / "baked", MergeOptions(weights=[float("nan")]))
    with pytest.raises(MergeError, match="alora_invocation_tokens is set"):
        change_config(Path(adapter), alora_invocation_tokens=[1, 2])
        local_registry.bake([adapter], base, tmp_path / "baked")
