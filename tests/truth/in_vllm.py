"""Runs in vLLM's environment: load each adapter into one engine, and compute with it.

Reads JSON on standard input: ``base`` (a folder), ``task``, ``prompt``, ``vocabulary``, ``adapters`` (name → folder),
``numbers`` (a safetensors file to write), ``answer`` (a JSON file to write). What the CPU build of vLLM 0.32 gets wrong
by itself is walked around: one request at a time, one adapter at a time, no prefix cache.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    "VLLM_PLUGINS": "",
}  # fmt: skip

import torch
from safetensors.torch import save_file
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

MAX_LORA_RANK = 16


def engine(asked: dict[str, Any]) -> LLM:
    generates = asked["task"] == "generate"
    return LLM(
        model=asked["base"], dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=2,
        max_num_batched_tokens=64, enable_lora=True, max_loras=1, max_cpu_loras=2, max_lora_rank=MAX_LORA_RANK,
        enable_prefix_caching=False, **({"max_logprobs": -1} if generates else {"runner": "pooling"}),
    )  # fmt: skip


def compute(llm: LLM, asked: dict[str, Any], adapter: LoRARequest | None) -> torch.Tensor:
    prompt = [{"prompt_token_ids": asked["prompt"]}]
    if asked["task"] == "classify":
        (output,) = llm.classify(prompt, lora_request=adapter, use_tqdm=False)
        return torch.tensor([output.outputs.probs])
    if asked["task"] == "embed":
        (output,) = llm.embed(prompt, lora_request=adapter, use_tqdm=False)
        return torch.tensor([output.outputs.embedding])
    parameters = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=-1, logprobs=-1)
    (output,) = llm.generate(prompt, parameters, lora_request=adapter, use_tqdm=False)
    rows = torch.full((len(asked["prompt"]), asked["vocabulary"]), float("nan"))
    for row, logprobs in zip(rows, [*output.prompt_logprobs[1:], *output.outputs[0].logprobs], strict=True):
        for token, logprob in logprobs.items():
            row[token] = logprob.logprob
    return rows


def main() -> None:
    asked = json.load(sys.stdin)
    llm = engine(asked)
    numbers, refusals = {"": compute(llm, asked, None)}, {}
    for number, (name, folder) in enumerate(asked["adapters"].items(), 1):
        request = LoRARequest(name, number, folder)
        try:
            llm.llm_engine.add_lora(request)
        except Exception as error:
            refusals[name] = f"{type(error).__name__}: {error}"
            continue
        numbers[name] = compute(llm, asked, request)
    save_file(numbers, asked["numbers"])
    Path(asked["answer"]).write_text(json.dumps(refusals))


main()
