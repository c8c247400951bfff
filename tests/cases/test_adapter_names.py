"""State dicts written raw: the adapter's name in the keys, PEFT's own copies, a whole model in the adapter's file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PhiConfig,
    PhiForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from cases.building import (
    PREFIX,
    VOCABULARY,
    WEIGHTS,
    agree,
    answers,
    codes,
    llama,
    of_adapter,
    of_baked,
    refused_everywhere,
    save,
    trained,
    write,
)
from loreg.adapters.structure import read_structure
from loreg.errors import LoregError
from loreg.registry import Registry


def state(peft: PeftModel) -> dict[str, Tensor]:
    """What many scripts save: everything that was trained, by its name in memory."""
    return {
        name: tensor
        for name, tensor in peft.state_dict().items()
        if any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens_delta"))
    }


def called(adapter: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {
        name.replace(".default.", f".{adapter}.")
        .replace("_A.default", f"_A.{adapter}")
        .replace("_B.default", f"_B.{adapter}"): tensor
        for name, tensor in tensors.items()
    }


def lora_plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LoRA keys as PEFT writes them, the whole module as the state dict has it."""
    return {name.replace(".default.weight", ".weight") if "lora_" in name else name: t for name, t in tensors.items()}


def whole_plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round."""
    return {name.replace(".modules_to_save.default.", "."): tensor for name, tensor in tensors.items()}


RAW: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "raw": dict,
    "of a name": called("my-adapter"),
    "half": lora_plain,
    "half, of a name": lambda tensors: called("policy")(lora_plain(tensors)),
    "the other half": whole_plain,
}
OPTIONS = {
    "linear": {"modules_to_save": ["lm_head"]},
    "dora": {"modules_to_save": ["lm_head"], "use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"], "modules_to_save": ["lm_head"]},
    "with biases": {"modules_to_save": ["lm_head"], "lora_bias": True, "target_modules": ["q_proj"]},
}


def model(options: str) -> object:
    return llama(attention_bias=options == "with biases")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", RAW)
def test_is_refused_and_exported_as_it_was_trained(
    local_registry: Registry, tmp_path: Path, base: Path, name: str, options: str
):
    peft = trained(model(options), **OPTIONS[options])
    adapter = write(save(peft, tmp_path / "a"), RAW[name](state(peft)))
    expected = save(peft, tmp_path / "plain", save_embedding_layers=False)
    assert "LR019" in codes(local_registry, adapter)
    refused_everywhere(
        local_registry, adapter, base, tmp_path / "out", "LR019", "loreg export DIR --profile peft --to NEW"
    )
    local_registry.export(str(adapter), "peft", tmp_path / "new")
    assert load_file(tmp_path / "new" / WEIGHTS).keys() == load_file(expected / WEIGHTS).keys()
    agree(of_adapter(model(options), tmp_path / "new"), answers(peft))
    assert codes(local_registry, tmp_path / "new") == []


def test_the_trained_copy_is_read_and_what_it_was_before_is_not(tmp_path: Path):
    peft = trained(llama(), modules_to_save=["lm_head"])
    tensors = {name: tensor for name, tensor in peft.state_dict().items() if "lora_" in name or "lm_head" in name}
    structure = read_structure(write(save(peft, tmp_path / "a"), tensors))
    assert {name: tensor.name for name, tensor in structure.full_tensors.items()} == {
        f"{PREFIX}lm_head.weight": f"{PREFIX}lm_head.modules_to_save.default.weight"
    }
    assert structure.naming.adapter == "default"
    assert structure.naming.dropped == (f"{PREFIX}lm_head.original_module.weight",)


def test_rows_of_tokens_are_read_too(local_registry: Registry, tmp_path: Path):
    peft = trained(llama(), trainable_token_indices=[1, 90])
    adapter = write(save(peft, tmp_path / "a"), state(peft))
    local_registry.export(str(adapter), "peft", tmp_path / "new")
    agree(of_adapter(llama(), tmp_path / "new"), answers(peft))


def test_several_adapters_in_one_file_are_refused_by_name(local_registry: Registry, tmp_path: Path, base: Path):
    peft = trained(llama())
    peft.add_adapter("reference", LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    adapter = write(save(peft, tmp_path / "a"), state(peft))
    shutil.rmtree(adapter / "reference")
    refused_everywhere(
        local_registry, adapter, base, tmp_path / "out", "2 adapters: default, reference", "selected_adapters="
    )


class TestTheWholeModel:
    """The state dict of all of a PeftModel, as FSDP's full state dict is."""

    def adapter(self, peft: PeftModel, folder: Path) -> Path:
        tensors = {name.replace(".default.weight", ".weight"): t for name, t in peft.state_dict().items()}
        return write(save(peft, folder), tensors)

    def test_is_told_of_and_stored(self, local_registry: Registry, tmp_path: Path):
        adapter = self.adapter(trained(llama()), tmp_path / "a")
        (report,) = local_registry.check([str(adapter)])
        (finding,) = report.findings
        assert (finding.code, finding.severity) == ("LR020", "warning")
        assert "21 whole tensors" in finding.message
        assert any("21 whole tensors" in note for note in local_registry.push(str(adapter), "team/a").notes)

    def test_bakes_to_what_was_trained(self, local_registry: Registry, tmp_path: Path, base: Path):
        peft = trained(llama())
        local_registry.bake([str(self.adapter(peft, tmp_path / "a"))], base=str(base), folder=tmp_path / "baked")
        agree(of_baked(tmp_path / "baked"), answers(peft))


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": "all-linear"},
    ],
)
def test_nothing_is_told_of_what_peft_itself_saves(local_registry: Registry, tmp_path: Path, options: dict):
    peft = trained(llama(attention_bias="bias" in options), **options)
    assert codes(local_registry, save(peft, tmp_path / "a")) == []
    with_embeddings = codes(local_registry, save(peft, tmp_path / "b", save_embedding_layers=True))
    assert set(with_embeddings) <= {"LR021"}


def phi() -> PhiForCausalLM:
    """Its head has a bias."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return PhiForCausalLM(PhiConfig(vocab_size=VOCABULARY, **sizes))


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["q_proj", "embed_tokens", "lm_head"], ["q_proj"]])
def test_nothing_is_told_of_a_head_with_a_bias(local_registry: Registry, tmp_path: Path, targets: list[str]):
    assert codes(local_registry, save(trained(phi(), targets), tmp_path / "a", save_embedding_layers=True)) == []


def roberta() -> RobertaForSequenceClassification:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return RobertaForSequenceClassification(RobertaConfig(vocab_size=VOCABULARY, **sizes))


def distilbert() -> DistilBertForSequenceClassification:
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=VOCABULARY, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
    )


def test_nothing_is_told_of_biases_that_peft_itself_saves_twice(local_registry: Registry, tmp_path: Path):
    folder = save(trained(roberta(), ["query", "value"], task_type="SEQ_CLS", bias="all"), tmp_path / "a")
    assert len(read_structure(folder).naming.dropped) == 4
    assert codes(local_registry, folder) == []


def test_nothing_is_told_of_a_module_whose_name_ends_as_one_that_is_saved(local_registry: Registry, tmp_path: Path):
    """PEFT saves pre_classifier for classifier."""
    folder = save(trained(distilbert(), ["q_lin", "v_lin"], task_type="SEQ_CLS"), tmp_path / "a")
    assert any("pre_classifier" in name for name in read_structure(folder).full_tensors)
    assert codes(local_registry, folder) == []


def test_a_base_saved_with_lora_in_it_is_refused_by_name(local_registry: Registry, tmp_path: Path):
    peft = trained(llama())
    folder = save(llama(), tmp_path / "base")
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in peft.state_dict().items()}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    adapter = save(trained(llama()), tmp_path / "a")
    with pytest.raises(LoregError, match="LoRA"):
        local_registry.bake([str(adapter)], base=str(folder), folder=tmp_path / "baked")
    with pytest.raises(LoregError, match="LoRA"):
        local_registry.bases.add(str(folder))
