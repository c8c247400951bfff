"""What a user of PEFT writes to merge two adapters: BASE ADAPTER ADAPTER OUT. With ``--base DIR`` it makes a base."""

from __future__ import annotations

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

if sys.argv[1] == "--base":
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[2])
else:
    base, first, second, out = sys.argv[1:]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), first, adapter_name="first")
    model.load_adapter(second, adapter_name="second")
    model.add_weighted_adapter(["first", "second"], [0.5, 0.5], "merged", combination_type="svd", svd_rank=16)
    model.save_pretrained(out, selected_adapters=["merged"])
