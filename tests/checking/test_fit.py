"""Rules on an adapter and a base: what is missing, what does not fit, what may be another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BartConfig, BartForConditionalGeneration

from deployments import empty_home
from factories import change_config, change_tensors, new_model, train, write_base
from loreg.checking.rules import RULES
from loreg.entities import Finding
from loreg.registry import Registry, connect

PREFIX = "base_model.model."


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def check_on(local_registry: Registry, adapter: Path, base: Path) -> list[Finding]:
    (report,) = local_registry.check([str(adapter)], base=str(base))
    return [finding for finding in report.findings if finding.code != "LB003"]


def test_an_adapter_on_its_own_base_is_only_not_known_to_be_right(local_registry: Registry, tmp_path: Path):
    adapter, base = train(tmp_path / "a", 1), write_base(tmp_path / "base")
    (report,) = local_registry.check([str(adapter)], base=str(base))
    assert [(finding.code, finding.severity) for finding in report.findings] == [("LB003", "warning")]
    local_registry.push(adapter, "a", base=str(base))
    (report,) = local_registry.check(["a"], base="base")
    assert report.findings == ()


def test_missing_modules_are_named(local_registry: Registry, tmp_path: Path):
    (tmp_path / "base").mkdir()
    save_file({"other.weight": torch.ones(3, 3)}, tmp_path / "base" / "model.safetensors")
    findings = check_on(local_registry, train(tmp_path / "a", 1), tmp_path / "base")
    assert {finding.code for finding in findings} == {"LB001"}
    assert findings[0].message == "the base has no layers.0.q_proj.weight"
    assert findings[-1].message == "and 1 more modules that the base does not have"


@pytest.mark.parametrize(
    ("base_prefix", "adapter_prefix", "message"),
    [
        ("vision.text.", "", "4 modules differ only by the prefix `vision.text.`, which only the base has"),
        ("", "deep.er.", "4 modules differ only by the prefix `deep.er.`, which only the adapter has"),
    ],
)
def test_a_near_miss_is_named(
    local_registry: Registry, tmp_path: Path, base_prefix: str, adapter_prefix: str, message: str
):
    adapter = train(tmp_path / "a", 1)
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace(PREFIX, PREFIX + adapter_prefix): tensor for name, tensor in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    (tmp_path / "base").mkdir()
    state = {base_prefix + name: tensor for name, tensor in new_model().state_dict().items()}
    save_file(state, tmp_path / "base" / "model.safetensors")
    assert [finding.message for finding in check_on(local_registry, adapter, tmp_path / "base")] == [message]


def test_other_shapes_are_told_with_both(local_registry: Registry, tmp_path: Path):
    base = write_base(tmp_path / "base", {"layers.0.q_proj.weight": torch.ones(24, 21)})
    (finding,) = check_on(local_registry, train(tmp_path / "a", 1), base)
    assert (finding.code, finding.severity) == ("LB002", "error")
    assert finding.message == "layers.0.q_proj is (24, 20) in the adapter, this base has (24, 21)"


def tied(folder: Path) -> Path:
    folder.mkdir()
    save_file({**new_model().state_dict(), "embed_tokens.weight": torch.ones(9, 4)}, folder / "model.safetensors")
    return folder


def test_another_vocabulary_is_a_warning(local_registry: Registry, tmp_path: Path):
    adapter = change_config(train(tmp_path / "a", 1), modules_to_save=["embed_tokens", "lm_head"])
    both = {f"{PREFIX}{name}.weight": torch.ones(11, 4) for name in ("embed_tokens", "lm_head")}
    findings = check_on(local_registry, change_tensors(adapter, both), tied(tmp_path / "base"))
    assert [finding.code for finding in findings] == ["LB004", "LB004"]
    assert findings[0].message == "embed_tokens.weight has 11 rows, the base has 9"


def test_one_of_two_tied_matrices_is_a_warning(local_registry: Registry, tmp_path: Path):
    adapter = change_config(train(tmp_path / "a", 1), modules_to_save=["lm_head"])
    change_tensors(adapter, {f"{PREFIX}lm_head.weight": torch.ones(9, 4)})
    (finding,) = check_on(local_registry, adapter, tied(tmp_path / "base"))
    assert (finding.code, finding.severity) == ("LB005", "warning")
    ensured = change_config(adapter, ensure_weight_tying=True)  # PEFT ties only what is called as in its own list
    assert "LB005" in {finding.code for finding in check_on(local_registry, ensured, tied(tmp_path / "again"))}
    both = change_tensors(ensured, {f"{PREFIX}embed_tokens.weight": torch.ones(9, 4)})
    assert "LB005" not in {finding.code for finding in check_on(local_registry, both, tied(tmp_path / "third"))}


def test_weights_that_one_flag_ties_in_an_architecture(local_registry: Registry, tmp_path: Path):
    """BART ties its head and both embeddings to one matrix, whose name in memory says nothing of it."""
    config = BartConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "base")
    targets = ["q_proj", "lm_head"]
    get_peft_model(model, LoraConfig(target_modules=targets, init_lora_weights=False)).save_pretrained(tmp_path / "a")
    (finding,) = [f for f in check_on(local_registry, tmp_path / "a", tmp_path / "base") if f.code == "LB005"]
    others = "model.decoder.embed_tokens.weight, model.encoder.embed_tokens.weight, model.shared.weight"
    assert finding.message == f"lm_head.weight changes, and {others}, tied to it, do not"


def test_a_base_of_a_class_that_is_not_known_is_a_warning(local_registry: Registry, tmp_path: Path):
    base = write_base(tmp_path / "base")
    (base / "config.json").write_text('{"model_type": "of_tomorrow", "architectures": ["OfTomorrowModel"]}')
    (finding,) = check_on(local_registry, train(tmp_path / "a", 1), base)
    assert (finding.code, finding.severity) == ("LB006", "warning")
    assert "the class OfTomorrowModel is none of transformers" in finding.message


def test_every_rule_of_this_kind_is_shown_to_find_something():
    """By the tests above."""
    assert {code for code in RULES if code.startswith("LB")} == {f"LB00{number}" for number in range(1, 7)}
