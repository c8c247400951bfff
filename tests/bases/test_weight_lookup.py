"""Which tensors of a base's files hold the weight that an adapter names: real classes, and bases without one."""

from __future__ import annotations

from loreg.bases.architecture import Architecture, find_architecture
from loreg.bases.weight_lookup import WeightLookup

QUERY = "encoder.layer.0.attention.self.query.weight"


def lookup(tensors: list[str], **config: object) -> WeightLookup:
    return WeightLookup(tensors, find_architecture(config), config)


def names_of(base: WeightLookup, weight: str) -> list[str]:
    return [location.name for location in base.find(weight)]


def architecture_of(name: str, model_type: str) -> Architecture:
    architecture = find_architecture({"architectures": [name], "model_type": model_type})
    assert architecture is not None
    return architecture


def test_an_adapter_finds_its_tensor_under_the_name_of_another_class():
    alone = lookup([QUERY, "embeddings.word_embeddings.weight"])
    assert names_of(alone, f"bert.{QUERY}") == [QUERY]
    wrapped = lookup([f"bert.{QUERY}", "bert.embeddings.word_embeddings.weight"])
    assert names_of(wrapped, QUERY) == [f"bert.{QUERY}"]
    assert names_of(wrapped, QUERY.removeprefix("encoder.")) == []


def test_a_head_that_is_not_there_is_the_embedding_it_is_tied_to():
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    embedding = "model.embed_tokens.weight"
    tied = lookup([embedding], **config, tie_word_embeddings=True)
    assert [(location.name, location.tied) for location in tied.find("lm_head.weight")] == [(embedding, True)]
    assert names_of(lookup([embedding], **config), "lm_head.weight") == []
    assert names_of(lookup([embedding, "lm_head.weight"], **config), "lm_head.weight") == ["lm_head.weight"]
    assert names_of(lookup([embedding]), "lm_head.weight") == [embedding]  # of no class: most are tied


def test_a_name_that_could_be_two_tensors_is_neither():
    assert names_of(lookup(["text.q.weight", "vision.q.weight"]), "q.weight") == []


def test_a_head_that_the_files_call_otherwise_is_found_and_is_not_the_embedding():
    tensors = ["gpt_neox.embed_in.weight", "embed_out.weight"]
    base = lookup(tensors, architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox")
    assert names_of(base, "lm_head.weight") == ["embed_out.weight"]
    assert base.tied_group_of("lm_head.weight") is None


def test_every_weight_that_one_flag_ties_is_one_group():
    (tie,) = architecture_of("BartForConditionalGeneration", "bart").active_ties({})
    embeddings = {f"model.{part}.weight" for part in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")}
    assert [set(group) for group in tie.groups] == [{"lm_head.weight", *embeddings}]
    (tie,) = architecture_of("BertForMaskedLM", "bert").active_ties({})
    assert {"cls.predictions.decoder.bias", "cls.predictions.bias"} in [set(group) for group in tie.groups]


def test_the_flag_of_a_configuration_inside_is_read_where_the_class_reads_it():
    blip = architecture_of("Blip2ForConditionalGeneration", "blip-2")
    assert {tie.flag for tie in blip.all_ties} == {"text_config"}
    assert blip.active_ties({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}})
    llava = architecture_of("LlavaForConditionalGeneration", "llava")  # takes over what its language model says
    assert llava.active_ties({"text_config": {"tie_word_embeddings": True}})
    assert not llava.active_ties({"text_config": {"tie_word_embeddings": False}})


def test_experts_of_a_file_are_the_parts_of_one_parameter():
    tensors = [
        f"model.layers.0.block_sparse_moe.experts.{e}.{w}.weight" for e in (0, 1, 10) for w in ("w1", "w2", "w3")
    ]
    experts = lookup(tensors, architectures=["MixtralForCausalLM"], model_type="mixtral")
    locations = experts.find("model.layers.0.mlp.experts.gate_up_proj")
    assert [(location.part.expert, location.part.source) for location in locations] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (10, 0), (10, 1),
    ]  # fmt: skip
    assert all(location.is_one_expert and not location.why_not for location in locations)


def name_of(config: dict[str, object], *adapter: str, has_full_modules: bool = False) -> str | None:
    architecture = find_architecture(config, *adapter, has_full_modules=has_full_modules)
    return architecture.name if architecture else None


def test_a_model_without_a_head_has_that_of_the_adapter():
    config = {"architectures": ["LlamaModel"], "model_type": "llama"}
    assert name_of(config) == "LlamaModel"
    assert name_of(config, "CAUSAL_LM") == "LlamaForCausalLM"
    assert name_of(config, "", "LlamaForTokenClassification") == "LlamaForTokenClassification"


def test_a_model_with_a_head_keeps_it_unless_the_adapter_brings_another():
    """What was trained without the head does not take away that the saved class ties it."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    assert name_of(config, "SEQ_CLS") == name_of(config, "FEATURE_EXTRACTION", "LlamaModel") == "LlamaForCausalLM"
    assert name_of(config, "FEATURE_EXTRACTION", "LlamaModel", has_full_modules=True) == "LlamaForCausalLM"
    assert name_of(config, "SEQ_CLS", has_full_modules=True) == "LlamaForSequenceClassification"


def test_a_configuration_that_names_no_class_may_be_that_of_a_tied_model():
    assert name_of({"model_type": "llama"}) == "LlamaForCausalLM"
    assert name_of({"model_type": "vit"}) == "ViTModel"


def test_a_class_that_the_table_lacks_is_not_known():
    assert name_of({"architectures": ["LlamaForCausalLM"], "model_type": "another"}) is None
    assert name_of({"architectures": ["OfTomorrow"], "model_type": "llama"}, "CAUSAL_LM", "LlamaForCausalLM") is None
    assert name_of({}) is None
