"""The adapters that every server is asked about: sound ones of every kind, and at least one for each rule."""

from __future__ import annotations

from pathlib import Path

import torch

from adapters import PREFIX, Case, as_old, fields, in_dtype, on, renamed, with_tensors, without

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
SEVEN = [*ATTENTION, *MLP]

#: What PEFT's users save, and every server that can is to compute as PEFT does.
SOUND: dict[str, Case] = {
    "q and v": Case(rules={"PE001": "unexpected keyword argument"}),
    **{f"only {name}": on(name) for name in SEVEN},
    "attention": on(*ATTENTION),
    "mlp": on(*MLP),
    "all seven": on(*SEVEN),
    "all-linear": Case({"target_modules": "all-linear"}),
    "a pattern of targets": Case({"target_modules": r".*layers\.[13]\.(self_attn\.(q|o)_proj|mlp\.up_proj)"}),
    "one layer": Case({"layers_to_transform": [2]}),
    "embedding": on("q_proj", "embed_tokens"),
    "head": on("q_proj", "lm_head"),
    "embedding and head": on("embed_tokens", "lm_head"),
    "embedding, its base beside": Case(on("q_proj", "embed_tokens").options, saving={"save_embedding_layers": True}),
    **{f"rank {r}": on(*SEVEN, r=r) for r in (1, 2, 3, 8, 12, 15, 16)},
    **{f"alpha {alpha}": on("q_proj", "up_proj", lora_alpha=alpha) for alpha in (1, 3, 7.5, 64)},
    **{f"rsLoRA, rank {r}": on(*SEVEN, r=r, use_rslora=True, lora_alpha=8) for r in (1, 4, 9)},
    "rsLoRA, rank 16": Case({"target_modules": SEVEN, "r": 16, "use_rslora": True}, rules={"LC002": ""}),
    "ranks": on(*SEVEN, rank_pattern={"q_proj": 4, "model.layers.1.self_attn.v_proj": 16, "up_proj": 2}),
    "ranks, anchored": on(*SEVEN, rank_pattern={r"model\.layers\.0\.mlp\.up_proj": 3, "v_proj": 5}),
    "alphas": Case(
        {"target_modules": SEVEN, "alpha_pattern": {"q_proj": 40, "layers.1.self_attn.v_proj": 3, "up_proj": 1.5}},
        rules={"LC003": ""},
    ),
    "ranks and alphas": on(*SEVEN, rank_pattern={"q_proj": 4}, alpha_pattern={"q_proj": 4, "v_proj": 5}),
    "ranks, alphas, rsLoRA": on(
        *SEVEN, use_rslora=True, rank_pattern={r"layers\.[01]\.self_attn\.[qk]_proj": 4},
        alpha_pattern={r"layers\.[23]\.self_attn\..*": 5, "down_proj": 9},
    ),
    "rsLoRA, alphas": on(*ATTENTION, use_rslora=True, alpha_pattern={"o_proj": 3}),
    "patterns for nothing": Case(edit=fields(rank_pattern={"z_proj": 4}, alpha_pattern={"z_proj": 4})),
    "dropout": Case({"lora_dropout": 0.5}),
    "excluded": on(*SEVEN, exclude_modules=["k_proj"]),
    **{f"{name}": Case(edit=in_dtype(getattr(torch, name))) for name in ("bfloat16", "float16", "float64")},
    **{f"started with {name}": Case({"init_lora_weights": name}) for name in ("gaussian", "orthogonal")},
    **{f"labelled {name}": Case(edit=fields(init_lora_weights=name)) for name in ("eva", "mica", "lora_ga")},
    "empty alora": Case(edit=fields(alora_invocation_tokens=[])),
    "old PEFT": Case(edit=without("lora_bias", "use_qalora", "use_bdlora", "exclude_modules", "target_parameters")),
    "no base named": Case(edit=fields(base_model_name_or_path=None)),
    "more targets than it has": Case(edit=fields(target_modules=["q_proj", "v_proj", "z_proj"])),
    **{f"{name}, tied": Case({"target_modules": t}, "tied") for name, t in {
        "q and v": ["q_proj", "v_proj"], "all seven": SEVEN, "embedding": ["q_proj", "embed_tokens"],
        "rsLoRA": ["o_proj"],
    }.items()},
    "head, tied": Case({"target_modules": ["q_proj", "lm_head"]}, "tied", rules={"LC013": ""}),
    "tied together": Case({"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}, "tied"),
    **{f"{name}, biased": Case({"target_modules": t, **o}, "biased") for name, t, o in (
        ("q and v", ["q_proj", "v_proj"], {}), ("all seven", SEVEN, {"r": 16}), ("rsLoRA", SEVEN, {"use_rslora": True}),
    )},
    **{f"{name}, Qwen3": Case({"target_modules": t, **o}, "qwen3") for name, t, o in (
        ("q and v", ["q_proj", "v_proj"], {}), ("all seven", SEVEN, {"use_rslora": True}),
        ("alphas", SEVEN, {"alpha_pattern": {"k_proj": 2}}), ("embedding and head", ["embed_tokens", "lm_head"], {}),
    )},
    "classifier, no head": Case(base="classifier"),
    "classifier, its head whole": Case({"task_type": "SEQ_CLS"}, "classifier"),
    "classifier, all seven": Case({"target_modules": SEVEN, "task_type": "SEQ_CLS", "use_rslora": True}, "classifier"),
}  # fmt: skip

#: Words of refusals: of llama.cpp's converter, and of vLLM.
_UNEXPECTED = "Unexpected name"
_FEATURES = "only supports modules_to_save being either None or"
_WEIGHT = "is unsupported LoRA weight"
#: What some server refuses or gets wrong, by whichever rule, and what looks as if it did.
ODD: dict[str, Case] = {
    "rank 32": Case({"r": 32}, rules={"VL001": "LoRA rank 32 is greater than max_lora_rank 16"}),
    "rank 32 in a pattern": Case({"rank_pattern": {"q_proj": 32}}, rules={"VL001": "LoRA rank 32 is greater"}),
    "rank 64, every tensor 8": Case(
        {"r": 64, "rank_pattern": {"q_proj": 8, "v_proj": 8}}, rules={"VL001": "LoRA rank 64 is greater"}
    ),
    "rank 64 for nothing": Case(edit=fields(rank_pattern={"k_proj": 64}), rules={"VL001": "LoRA rank 64 is greater"}),
    "DoRA": Case({"use_dora": True}, rules={"VL002": "does not yet support DoRA", "LC004": _UNEXPECTED, "TF001": ""}),
    "DoRA, not said": Case({"use_dora": True}, edit=fields(use_dora=False), rules={"VL002": _WEIGHT}),
    "whole head": Case({"modules_to_save": ["lm_head"]}, rules={"VL003": _FEATURES, "LC005": _UNEXPECTED}),
    "whole embedding": Case({"modules_to_save": ["embed_tokens"]}, rules={"VL003": _FEATURES}),
    "whole norm": Case({"modules_to_save": ["norm"]}, rules={"VL003": _FEATURES, "LC010": ""}),
    "whole norm, not said": Case(
        {"modules_to_save": ["norm"]}, edit=fields(modules_to_save=None), rules={"VL003": _WEIGHT}
    ),
    "whole embeddings, not said": Case(saving={"save_embedding_layers": True}, rules={"VL003": _WEIGHT}),
    "all biases": Case({"bias": "all"}, "biased", rules={"VL004": "Adapter bias is not supported"}),
    "biases beside": Case({"bias": "lora_only"}, "biased", rules={"VL004": "Adapter bias is not supported"}),
    "biases of LoRA": Case(
        {"lora_bias": True}, "biased", rules={"VL004": "does not support LoRA bias", "LC006": _UNEXPECTED}
    ),
    "all biases, not said": Case({"bias": "all"}, "biased", edit=fields(bias="none"), rules={"VL004": _WEIGHT}),
    "biases of LoRA, not said": Case(
        {"lora_bias": True}, "biased", edit=fields(lora_bias=False), rules={"VL004": _WEIGHT}
    ),
    **{f"labelled {name}": Case(edit=fields(init_lora_weights=name), rules={
        "VL005": f"does not support init_lora_weights={name!r}",
        **({"LC009": ""} if name in ("pissa", "olora") else {}),
    }) for name in ("pissa", "olora", "loftq", "corda", "PiSSA", "true")},
    # PEFT starts it at random, each time that it loads it.
    "labelled pissa_niter_4": Case(
        edit=fields(init_lora_weights="pissa_niter_4"), servers=("vLLM",),
        rules={"VL005": "does not support init_lora_weights='pissa_niter_4'"},
    ),
    "aLoRA": Case({"alora_invocation_tokens": [5, 133]}, rules={"VL006": "Activated LoRA", "TF002": "", "LC011": ""}),
    "replication": Case({"layer_replication": [[0, 3], [1, 4]]}, rules={"VL006": "layer_replication"}),
    "QALoRA": Case(edit=fields(use_qalora=True), rules={"VL006": "QALoRA"}),
    "BD-LoRA": Case(edit=fields(use_bdlora={"nblocks": 2}), rules={"VL006": "BD-LoRA"}),
    "the names of a wrapper": Case(
        edit=renamed(f"{PREFIX}model.", f"{PREFIX}model.language_model."), edited=True,
        rules={"VL007": "", "PE021": "", "TF003": ""}
    ),
    "the names of an old wrapper": Case(
        edit=renamed(f"{PREFIX}model.", f"{PREFIX}language_model.model."), edited=True, rules={"VL007": ""}
    ),
    "the names of AutoModel": Case(
        edit=renamed(f"{PREFIX}model.", PREFIX), edited=True, rules={"VL007": "", "PE021": ""}
    ),
    "the names of torch.compile": Case(
        edit=renamed(f"{PREFIX}model.", f"{PREFIX}_orig_mod.model."), edited=True
    ),
    "the names of DDP": Case(
        edit=renamed(f"{PREFIX}model.", f"{PREFIX}module.model."), edited=True
    ),
    "the names of FSDP": Case(
        edit=renamed("self_attn.", "self_attn._fsdp_wrapped_module."), edited=True
    ),
    "the names of GPT-2": Case(edit=renamed("model.layers.", "transformer.h."), edited=True, rules={"VL007": ""}),
    "a layer that the base has not": Case(edit=renamed("layers.3.", "layers.7."), edited=True, rules={"VL007": ""}),
    "PEFT upon PEFT": Case(edit=renamed(f"{PREFIX}model.", f"{PREFIX}{PREFIX}model."), edited=True),
    "tokens": Case({"trainable_token_indices": [5, 9, 22]}, rules={"VL009": _WEIGHT, "LC007": _UNEXPECTED}),
    "tokens, not said": Case(
        {"trainable_token_indices": [5, 9]}, edit=fields(trainable_token_indices=None), rules={"VL009": _WEIGHT}
    ),
    "biases for nothing": Case(edit=fields(bias="lora_only"), rules={"VL010": "Adapter bias is not supported"}),
    "null for biases": Case(edit=fields(bias=None), rules={"VL010": "Adapter bias is not supported"}),
    "biases of LoRA for nothing": Case(edit=fields(lora_bias=True), rules={"VL010": "does not support LoRA bias"}),
    "a whole head for nothing": Case(
        {"task_type": "SEQ_CLS"}, "classifier", edit=fields(modules_to_save=["classifier", "score", "lm_head"]),
        rules={"VL010": _FEATURES},
    ),
    "no targets": Case(edit=without("target_modules"), rules={"VL011": "Missing required configuration fields"}),
    "no rank": Case(edit=without("r"), rules={"VL011": "Missing required configuration fields"}),
    "no alpha": Case(
        {"lora_alpha": 8}, edit=without("lora_alpha"),
        rules={"VL011": "Missing required configuration fields", "LC012": "KeyError: 'lora_alpha'"},
    ),
    "a norm's base beside": Case(
        edit=with_tensors(model__norm__base_layer__weight=(128,)), rules={"VL012": _WEIGHT}
    ),
    "a classifier that is not named": Case(
        {"task_type": "SEQ_CLS"}, "classifier", edit=fields(modules_to_save=None), rules={"VL013": ""}
    ),
    "experts": Case(
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
        "experts", rules={"LC008": "experts"},
    ),
    "beside experts": Case({"target_modules": ["q_proj", "v_proj"]}, "experts"),
    "a rank in a group, for PEFT 0.10": Case(
        {"rank_pattern": {r"model\.layers\.[01]\.self_attn\.q_proj": 4}},
        edit=as_old(),
        rules={"PE005": "size mismatch"},
    ),
    "ranks and alphas, for PEFT 0.10": Case(
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.0.self_attn.q_proj": 64}}, edit=as_old(),
        rules={"PE006": ""},
    ),
    "started with eva, for PEFT 0.10": Case(
        edit=lambda d, t: as_old()({**d, "init_lora_weights": "eva"}, t), rules={"PE007": "Unknown initialization"}
    ),
    "labelled pissa, for PEFT 0.10": Case(
        edit=lambda d, t: as_old()({**d, "init_lora_weights": "pissa"}, t), rules={"PE009": "Unknown initialization"}
    ),
    "the names of a wrapper, for PEFT 0.10": Case(
        edit=lambda d, t: as_old()(*renamed(f"{PREFIX}model.", f"{PREFIX}model.language_model.")(d, t)), edited=True,
        rules={"PE008": ""},
    ),
    "experts, for PEFT 0.10": Case(
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]}, "experts",
        edit=as_old("target_parameters"), rules={"PE002": "target_parameters"},
    ),
    "tokens, for PEFT 0.10": Case(
        {"trainable_token_indices": [5]}, edit=as_old("trainable_token_indices"),
        rules={"PE003": "trainable_token_indices"},
    ),
    "biases of LoRA, for PEFT 0.10": Case(
        {"lora_bias": True}, "biased", edit=as_old("lora_bias"), rules={"PE004": "lora_bias"}
    ),
    **{f"{name}, for PEFT 0.10": Case(options, edit=as_old()) for name, options in {
        "q and v": {}, "DoRA": {"use_dora": True}, "a whole head": {"modules_to_save": ["lm_head"]},
        "ranks": {"rank_pattern": {"q_proj": 4, "model.layers.1.self_attn.v_proj": 2}},
        "alphas": {"alpha_pattern": {"model.layers.0.self_attn.q_proj": 4}, "use_rslora": True},
    }.items()},
    "of a bigger base": Case({"target_modules": SEVEN}, trained_on="bigger"),
    "of a model without a head": Case(base="headless"),
    # PEFT is given a class, and vLLM takes its own.
    "of a model with a head": Case(
        base="headless", edit=renamed(PREFIX, f"{PREFIX}model."), edited=True, servers=("vLLM",)
    ),
}  # fmt: skip

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "adapters"
#: Adapters that were trained on data, on real models.
REAL: dict[str, Case] = {
    "real, science": Case(base="smollm2", real=_EXAMPLES / "smollm2-science-r8"),
    "real, history": Case(base="smollm2", real=_EXAMPLES / "smollm2-history-r8"),
    "real, DoRA": Case(
        base="smollm2",
        real=_EXAMPLES / "smollm2-movies-dora-r8",
        rules={"VL002": "does not yet support DoRA", "LC004": _UNEXPECTED, "TF001": ""},
    ),
    "real, topics": Case(base="minilm, 5", real=_EXAMPLES / "minilm-news-topics-r8"),
    "real, sentiment": Case(base="minilm, 2", real=_EXAMPLES / "minilm-movie-sentiment-r8"),
}
