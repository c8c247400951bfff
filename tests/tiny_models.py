"""Language models of a few thousand random numbers with their tokenizers, and adapters for them that PEFT writes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

WORDS = 96
LLAMA = LlamaConfig(
    vocab_size=WORDS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, max_position_embeddings=256, tie_word_embeddings=False,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4, n_positions=256)


def write_model(folder: Path, kind: type, config: Any) -> Path:
    """Write a random model whose tokens are the words w0 to w95; returns ``folder``."""
    torch.manual_seed(5)
    model = kind(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, seed: int, **options: Any) -> Path:
    """Write, with PEFT, an adapter of the model ``base`` whose factors are random; returns ``folder``."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(task_type="CAUSAL_LM", **options)
    )
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.15)
    model.save_pretrained(folder)
    return folder


def count_on(step: int, texts: int, seed: int) -> list[list[int]]:
    """Return texts of 51 tokens in which each word is ``step`` words after the one before it."""
    draw = random.Random(seed)
    return [[(start + step * i) % WORDS for i in range(51)] for start in (draw.randrange(WORDS) for _ in range(texts))]


def teach(folder: Path, base: Path, step: int, rank: int = 12) -> Path:
    """Train, with PEFT, two directions of a module to count on by ``step``; those up to ``rank`` are next to nothing.

    Returns ``folder``.
    """
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=4 * rank, target_modules=["q_proj", "v_proj", "up_proj"]),
    )
    torch.manual_seed(step)
    factors = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for name, parameter in factors.items():
            parameter[2:] *= 1e-3 if "lora_A" in name else 1
    optimizer = torch.optim.AdamW(factors.values(), lr=2e-2)
    for number in range(40):
        ids = torch.tensor(count_on(step, 16, 1000 * step + number))
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        for name, parameter in factors.items():
            assert parameter.grad is not None
            (parameter.grad[2:] if "lora_A" in name else parameter.grad[:, 2:]).zero_()
        optimizer.step()
    with torch.no_grad():
        for name, parameter in factors.items():
            if "lora_B" in name:
                parameter[:, 2:].normal_(0, 1e-2)
    model.save_pretrained(folder)
    return folder
