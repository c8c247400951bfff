"""Adapters that cannot be of one base are not merged, and a merge says what its sources share."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from deployments import empty_home
from factories import change_config, deltas_by_peft, relative_error, train, weighted_sum, write_base
from loreg.entities import MergeOptions
from loreg.errors import CheckFailedError, MergeError
from loreg.registry import Registry, connect

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def test_a_llama_and_a_bert_are_refused(local_registry: Registry, tmp_path: Path):
    llama = get_peft_model(LlamaForCausalLM(LlamaConfig(**SIZES)), LoraConfig(target_modules=["q_proj"]))
    bert = get_peft_model(BertModel(BertConfig(**SIZES)), LoraConfig(target_modules=["query"]))
    llama.save_pretrained(tmp_path / "llama")
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(MergeError, match=r"different bases: llama on llama and bert on bert, by what PEFT wrote"):
        local_registry.merge([str(tmp_path / "llama"), str(tmp_path / "bert")], folder=tmp_path / "merged")
    for name in ("llama", "bert"):
        change_config(tmp_path / name, auto_mapping=None)
    with pytest.raises(MergeError, match=r"bert has no module in common|llama has no module in common") as error:
        local_registry.merge([str(tmp_path / "llama"), str(tmp_path / "bert")], folder=tmp_path / "merged")
    assert error.value.hint.startswith("--base DIR")
    assert not (tmp_path / "merged").exists()


def test_adapters_without_a_common_module_merge_where_their_base_is_given(local_registry: Registry, tmp_path: Path):
    sources = [train(tmp_path / "q", 1, target_modules=["q_proj"]), train(tmp_path / "v", 2, target_modules=["v_proj"])]
    base = write_base(tmp_path / "base")
    with pytest.raises(MergeError, match="q has no module in common with the others: it has q_proj"):
        local_registry.merge([str(source) for source in sources], folder=tmp_path / "merged")
    result = local_registry.merge(
        [str(source) for source in sources], MergeOptions(weights=[0.5, 2]), base=base, folder=tmp_path / "merged"
    )
    expected = weighted_sum([deltas_by_peft(source) for source in sources], [0.5, 2])
    assert relative_error(deltas_by_peft(tmp_path / "merged"), expected) < 1e-6
    assert "0 of 4 modules are in all 2 sources; the others merge as they are" in result.notes
    assert "2 modules are in q alone: q_proj, e.g. layers.0.q_proj" in result.notes


def test_adapters_without_a_common_module_merge_where_both_were_pushed_on_one_base(
    local_registry: Registry, tmp_path: Path
):
    base = write_base(tmp_path / "base")
    for name, target in (("q", "q_proj"), ("v", "v_proj")):
        local_registry.push(train(tmp_path / name, 1, target_modules=[target]), name, base=str(base))
    assert local_registry.merge(["q", "v"]).provenance.certificate["total"]["retention"] == [pytest.approx(1)] * 2


def test_a_base_that_does_not_fit_is_refused_before_anything_is_merged(local_registry: Registry, tmp_path: Path):
    sources = [str(train(tmp_path / name, 1)) for name in ("a", "b")]
    other = LlamaForCausalLM(LlamaConfig(**SIZES))
    other.save_pretrained(tmp_path / "llama")
    with pytest.raises(CheckFailedError, match=r"base mismatch: a does not fit .*has no tensor layers\.0\.q_proj"):
        local_registry.merge(sources, base=tmp_path / "llama", folder=tmp_path / "merged")


def test_one_module_under_two_names_is_refused(local_registry: Registry, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    from loreg.adapters.structure import WEIGHTS_NAME

    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "plain")
    get_peft_model(LlamaForCausalLM(LlamaConfig(**SIZES)), LoraConfig(target_modules=["q_proj"])).save_pretrained(
        tmp_path / "wrapped"
    )
    file = tmp_path / "wrapped" / WEIGHTS_NAME
    inner = {name.replace(".model.layers", ".model.language_model.layers"): t for name, t in load_file(file).items()}
    save_file(inner, file, {"format": "pt"})
    with pytest.raises(MergeError, match="are one module under two names"):
        local_registry.merge([str(tmp_path / "plain"), str(tmp_path / "wrapped")], folder=tmp_path / "merged")


def test_the_flag_for_transposed_layers_does_not_part_adapters_of_one_base(local_registry: Registry, tmp_path: Path):
    """PEFT writes that of the module which it made last: GPT-2 with its head says false, without it true."""
    sources = [str(train(tmp_path / name, i)) for i, name in enumerate(("a", "b"))]
    change_config(tmp_path / "a", fan_in_fan_out=True)
    local_registry.merge(sources, MergeOptions(weights=[1, 1]), folder=tmp_path / "merged")
    expected = weighted_sum([deltas_by_peft(tmp_path / name) for name in ("a", "b")], [1, 1])
    change_config(tmp_path / "merged", fan_in_fan_out=False)
    assert relative_error(deltas_by_peft(tmp_path / "merged"), expected) < 1e-6
