"""Tiny models of transformers, adapters that PEFT trains on them, and what each of these answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
)

from loreg.entities import MergeOptions

PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
VOCABULARY = 96
#: Float32 through two ways of adding the same numbers.
CLOSE = 1e-5


def llama(tied: bool = False, **options: Any) -> LlamaForCausalLM:
    """The same numbers every time, however the head is."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=4, tie_word_embeddings=tied, **{**sizes, **options})
    return LlamaForCausalLM(config).eval()


def gpt2(tied: bool = True) -> GPT2LMHeadModel:
    torch.manual_seed(1)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(tie_word_embeddings=tied, bos_token_id=1, eos_token_id=1, **sizes)).eval()


def mamba() -> MambaForCausalLM:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "expand": 2, "time_step_rank": 4}
    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, use_mambapy=False, **sizes)).eval()


def trained(
    model: PreTrainedModel, targets: Any = ("q_proj", "v_proj"), size: float = 0.05, **options: Any
) -> PeftModel:
    """The model with LoRA whose numbers are random, as after training."""
    targets = list(targets) if isinstance(targets, tuple) else targets
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": targets, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens_delta")):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return peft.eval()


def save(model: Any, folder: Path, **options: Any) -> Path:
    """Save a model or adapter, without what PEFT and transformers say of it; returns ``folder``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **options)
    return folder


def renamed(
    folder: Path, rename: Callable[[str], str], change: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor
) -> Path:
    """The adapter in ``folder`` with other names, and other tensors, in its file; returns ``folder``."""
    tensors = load_file(folder / WEIGHTS)
    write(folder, {rename(name): change(name, tensor) for name, tensor in tensors.items()})
    return folder


def write(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Put these tensors into the adapter in ``folder``; returns ``folder``."""
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"}
    )
    return folder


def answers(model: Any, tokens: int = VOCABULARY) -> Tensor:
    """What the model makes of its whole vocabulary."""
    with torch.no_grad():
        logits: Tensor = model(torch.arange(tokens)[None]).logits
    return logits


def of_adapter(model: PreTrainedModel, folder: Path, tokens: int = VOCABULARY) -> Tensor:
    """What the model answers with the adapter as PEFT loads it; nothing may be missing or left over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected) adapter keys.*")
        return answers(PeftModel.from_pretrained(model, folder).eval(), tokens)


def of_baked(folder: Path, tokens: int = VOCABULARY) -> Tensor:
    """What the baked model answers as transformers loads it; nothing may be missing, left over or of another size."""
    model, loaded = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), loaded
    return answers(model.eval(), tokens)


def agree(actual: Tensor, expected: Tensor) -> None:
    """The two answers are the same but for rounding, relative to the largest number."""
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= CLOSE * float(expected.abs().max())


def codes(registry: Any, folder: Path, **options: Any) -> list[str]:
    """The codes of the findings on an adapter."""
    (report,) = registry.check([str(folder)], **options)
    return sorted({finding.code for finding in report.findings})


def everything_that_takes_it(registry: Any, adapter: Path, base: Path, target: Path) -> list[Callable[[], Any]]:
    """Every verb that could store or use an adapter, as something to call."""
    return [
        lambda: registry.push(str(adapter), "team/a"),
        lambda: registry.merge([str(adapter)], MergeOptions(weights=[1.0]), folder=target / "merged"),
        lambda: registry.bake([str(adapter)], base=str(base), folder=target / "baked"),
    ]


def refused_everywhere(registry: Any, adapter: Path, base: Path, target: Path, match: str, hint: str) -> None:
    """Push, merge and bake refuse the adapter in these words, with this hint, and leave nothing behind."""
    from loreg.errors import LoregError

    for attempt in everything_that_takes_it(registry, adapter, base, target):
        with pytest.raises(LoregError, match=match) as error:
            attempt()
        assert hint in error.value.hint
    assert not target.exists() or not any(target.iterdir())
