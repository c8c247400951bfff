"""An adapter out of a fine-tune: what baking put in comes out, and of what training changed the most that can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from deployments import empty_home
from loreg.entities import VersionMetadata
from loreg.errors import ConflictError, MergeError, NotFoundError, UsageError
from loreg.registry import Registry, connect


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def llama(folder: Path, *, tied: bool = False) -> Path:
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=160, tie_word_embeddings=tied, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tune(base: Path, folder: Path, change: Callable[[str], bool], *, rank: int | None = None) -> Path:
    """A fine-tune of ``base``: the parameters that ``change`` chooses by name move, by matrices of ``rank``."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(9)
    for name, parameter in model.named_parameters():
        if change(name):
            move = torch.randn_like(parameter)
            if rank and parameter.ndim == 2:
                move = torch.randn(parameter.shape[0], rank) @ torch.randn(rank, parameter.shape[1])
            parameter.data.add_(0.05 * move)
    model.save_pretrained(folder)
    return folder


def changes(base: Path, tuned: Path) -> dict[str, Tensor]:
    old, new = (load_file(folder / "model.safetensors") for folder in (base, tuned))
    return {name: new[name].double() - old[name].double() for name in new if name in old}


def deltas(folder: Path) -> dict[str, Tensor]:
    tensors = load_file(folder / "adapter_model.safetensors")
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix).removesuffix(".lora_A.weight"): (
            tensors[name.replace("lora_A", "lora_B")].double() @ a.double()
        )
        for name, a in tensors.items()
        if name.endswith(".lora_A.weight")
    }


def logits(model: nn.Module) -> Tensor:
    torch.manual_seed(5)
    with torch.no_grad():
        return model(torch.randint(0, 150, (2, 9))).logits


def baked_equals_tuned(local_registry: Registry, base: Path, adapter: Path, tuned: Path, folder: Path) -> None:
    local_registry.bake([str(adapter)], base, folder)
    expected, actual = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float64) for f in (tuned, folder))
    assert torch.allclose(logits(actual), logits(expected), atol=2e-5)


def test_what_was_baked_in_comes_out(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    ).save_pretrained(tmp_path / "a")
    local_registry.bake([str(tmp_path / "a")], base, tmp_path / "baked")
    result = local_registry.extract(base, tmp_path / "baked", rank=4, folder=tmp_path / "out")
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "a")
    actual = deltas(tmp_path / "out")
    expected = {
        name: module.get_delta_weight("default").double()
        for name, module in peft.base_model.model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert actual.keys() == expected.keys()
    for name, delta in expected.items():
        assert float(torch.linalg.norm(actual[name] - delta) / torch.linalg.norm(delta)) < 1e-5
    assert result.retained > 1 - 1e-6  # the rest is the rounding of the baked model
    assert not result.whole


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_fine_tune_comes_out_whole_at_full_rank(local_registry: Registry, tmp_path: Path, tied: bool):
    """Every parameter moves: norms travel whole, an embedding as factors, a tied one stays tied."""
    base = llama(tmp_path / "base", tied=tied)
    tuned = tune(base, tmp_path / "tuned", lambda name: True)
    result = local_registry.extract(base, tuned, energy=1.0, folder=tmp_path / "out")
    assert {name for name, _ in result.whole} == {
        name for name in load_file(base / "model.safetensors") if "norm" in name
    }
    assert any("kept whole: " in note for note in result.notes)
    baked_equals_tuned(local_registry, base, tmp_path / "out", tuned, tmp_path / "baked")
    baked = json.loads((tmp_path / "baked" / "config.json").read_text())
    assert baked["tie_word_embeddings"] is tied


def test_peft_runs_what_comes_out(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned", lambda name: "proj" in name or "norm" in name or "embed" in name, rank=3)
    local_registry.extract(base, tuned, rank=3, folder=tmp_path / "out")
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out")
    assert torch.allclose(logits(peft), logits(AutoModelForCausalLM.from_pretrained(tuned)), atol=1e-4)


def test_ranks_keep_the_energy_that_a_dense_svd_says(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned", lambda name: "proj" in name)
    result = local_registry.extract(base, tuned, energy=0.8, folder=tmp_path / "out")
    moved = changes(base, tuned)
    actual = deltas(tmp_path / "out")
    for module in result.modules:
        change = moved[f"{module.module}.weight"]
        s = torch.linalg.svdvals(change).square()
        share = s.cumsum(0) / s.sum()
        # Random matrices have the flattest spectrum there is, the hardest case for subspace iteration.
        assert module.rank - (int((share < 0.8).sum()) + 1) in (0, 1)
        assert 0.8 <= module.retained <= float(share[module.rank - 1]) * (1 + 1e-6)
        assert module.retained == pytest.approx(float(share[module.rank - 1]), rel=3e-3)
        assert module.norm == pytest.approx(float(torch.linalg.norm(change)), rel=1e-5)
        lost = float(torch.linalg.norm(change - actual[module.module]) ** 2 / s.sum())
        assert 1 - lost == pytest.approx(module.retained, abs=1e-4)


def test_a_fixed_rank_is_near_the_best_there_is(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned", lambda name: "q_proj" in name)
    local_registry.extract(base, tuned, rank=5, folder=tmp_path / "out")
    moved = changes(base, tuned)
    for name, delta in deltas(tmp_path / "out").items():
        s = torch.linalg.svdvals(moved[f"{name}.weight"]).square()
        lost = float(torch.linalg.norm(moved[f"{name}.weight"] - delta) ** 2)
        assert float(s[5:].sum()) <= lost * (1 + 1e-9)
        assert lost <= 1.02 * float(s[5:].sum())


def test_the_same_call_gives_the_same_bytes(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned", lambda name: "proj" in name)
    for name in ("one", "two"):
        local_registry.extract(base, tuned, rank=4, folder=tmp_path / name)
    one, two = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_gpt2_whose_matrices_lie_transposed(local_registry: Registry, tmp_path: Path):
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=2, vocab_size=160)).save_pretrained(tmp_path / "base")
    tuned = tune(tmp_path / "base", tmp_path / "tuned", lambda name: "c_attn" in name or "c_fc" in name, rank=2)
    local_registry.extract(tmp_path / "base", tuned, rank=2, folder=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    baked_equals_tuned(local_registry, tmp_path / "base", tmp_path / "out", tuned, tmp_path / "baked")


def test_another_dtype_on_either_side(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned", lambda name: "q_proj" in name, rank=2)
    half = {name: t.bfloat16() for name, t in load_file(base / "model.safetensors").items()}
    save_file({n: t.float() for n, t in half.items()}, base / "model.safetensors", {"format": "pt"})
    moved = load_file(tuned / "model.safetensors")
    same = {name: t if "q_proj" in name else half[name] for name, t in moved.items()}
    save_file(same, tuned / "model.safetensors", {"format": "pt"})
    result = local_registry.extract(base, tuned, energy=0.999, folder=tmp_path / "out")
    assert {module.module.rpartition(".")[2] for module in result.modules} == {"q_proj"}


def test_a_resized_vocabulary_travels_whole_with_a_message(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tune(base, tmp_path / "tuned", lambda name: "q_proj" in name, rank=2))
    model.resize_token_embeddings(170)
    model.save_pretrained(tmp_path / "larger")
    result = local_registry.extract(base, tmp_path / "larger", rank=2, folder=tmp_path / "out")
    assert {name for name, _ in result.whole} == {"model.embed_tokens.weight", "lm_head.weight"}
    assert any("its shape was (160, 48), and is (170, 48) now" in note for note in result.notes)
    baked_equals_tuned(local_registry, base, tmp_path / "out", tmp_path / "larger", tmp_path / "baked")


def test_the_real_minilm_with_a_classifier(local_registry: Registry, tmp_path: Path, minilm: Path):
    tuned = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=3)
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "query.weight" in name or "LayerNorm" in name or "query.bias" in name:
            parameter.data.add_(0.02 * torch.randn_like(parameter))
    tuned.save_pretrained(tmp_path / "tuned")
    result = local_registry.extract(minilm, tmp_path / "tuned", energy=1.0, folder=tmp_path / "out")
    assert {module.module.rpartition(".")[2] for module in result.modules} == {"query"}
    assert any("the base has no such tensor" in note for note in result.notes)
    base = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=3)
    peft = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert torch.allclose(logits(peft), logits(tuned.eval()), atol=1e-4)
    local_registry.bake([str(tmp_path / "out")], minilm, tmp_path / "baked")
    baked = AutoModelForSequenceClassification.from_pretrained(tmp_path / "baked").eval()
    assert torch.allclose(logits(baked), logits(tuned), atol=1e-4)


def test_is_pushed_with_its_base(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base")
    tuned = tune(base, tmp_path / "tuned", lambda name: "q_proj" in name)
    version = local_registry.extract(
        base, tuned, rank=2, name="team/tuned", metadata=VersionMetadata(tasks=["chat"])
    ).pushed.version
    assert (version.base.names, version.tasks, version.facts.rank_max) == (("base",), ("chat",), 2)
    assert [match.verdict.kind for match in local_registry.bases.match("team/tuned")] == ["exact"]


class TestRefused:
    def test_whole_tensors_on_request(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base")
        tuned = tune(base, tmp_path / "tuned", lambda name: "q_proj" in name or "norm" in name)
        with pytest.raises(MergeError, match=r"5 tensors cannot be factored: .*norm\.weight: it is no matrix"):
            local_registry.extract(base, tuned, rank=2, whole="refuse", folder=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_the_same_model(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base")
        with pytest.raises(MergeError, match=r"no matrix of .* differs"):
            local_registry.extract(base, base, rank=2, folder=tmp_path / "out")

    def test_a_head_that_peft_cannot_name_apart(self, local_registry: Registry, tmp_path: Path):
        """PEFT's modules_to_save=['output'] is the head of GIT and every attention.output, which have factors here."""
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
        config = GitConfig(**sizes, vocab_size=71, vision_config={**sizes, "image_size": 16, "patch_size": 8})
        GitForCausalLM(config).save_pretrained(tmp_path / "base")
        model = GitForCausalLM.from_pretrained(tmp_path / "base")
        model.git.encoder.layer[0].attention.output.dense.weight.data.mul_(1.5)
        model.resize_token_embeddings(74)
        model.save_pretrained(tmp_path / "tuned")
        with pytest.raises(MergeError, match=r"output changed as a whole, and by that name PEFT .*attention\.output"):
            local_registry.extract(tmp_path / "base", tmp_path / "tuned", rank=2, folder=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_numbers_that_are_not_finite(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base")
        tuned = tune(base, tmp_path / "tuned", lambda name: "q_proj" in name)
        for value in (float("nan"), float("inf")):
            tensors = load_file(tuned / "model.safetensors")
            tensors["model.layers.1.self_attn.q_proj.weight"][3, 3] = value
            save_file(tensors, tuned / "model.safetensors", {"format": "pt"})
            with pytest.raises(MergeError, match=r"layers\.1\.self_attn\.q_proj\.weight has NaN or infinite"):
                local_registry.extract(base, tuned, rank=2, folder=tmp_path / "out")

    def test_calls_that_do_not_say_what_or_where(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base")
        for options in ({}, {"rank": 2, "energy": 0.9}, {"rank": 0}, {"energy": 1.5}):
            with pytest.raises(UsageError):
                local_registry.extract(base, base, folder=tmp_path / "out", **options)
        with pytest.raises(UsageError, match="a name to push to, or a folder"):
            local_registry.extract(base, base, rank=2)
        with pytest.raises(NotFoundError, match="there is no model at"):
            local_registry.extract(base, tmp_path / "nothing", rank=2, folder=tmp_path / "out")
        with pytest.raises(ConflictError):
            local_registry.extract(base, base, rank=2, folder=base)
