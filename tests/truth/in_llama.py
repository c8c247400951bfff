"""Runs in xllamacpp's environment: llama.cpp's own server, each adapter in a process of its own, for some end it.

Reads JSON on standard input: ``model`` and ``adapters`` (name → file), ``prompt``, ``vocabulary``, ``numbers`` (a JSON
file to write: name → log-probabilities of the next token) and ``answer`` (name → words of the refusal).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import xllamacpp

#: What the server's log has before what is said, and another line may have before it.
_BEFORE = re.compile(r"\d+(?:\.\d+){3} [A-Z] ")


def compute(asked: dict[str, Any], adapter: str) -> list[float]:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = asked["model"]
    parameters.n_ctx, parameters.cpuparams.n_threads, parameters.n_gpu_layers = 256, 1, 0
    parameters.warmup = False
    # Flash attention and its cache would compute in half precision.
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if adapter:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    answer = xllamacpp.Server(parameters).handle_completions(
        {
            "prompt": asked["prompt"], "n_predict": 1, "temperature": 0, "n_probs": asked["vocabulary"],
            "cache_prompt": False, "ignore_eos": True,  # there are no numbers where the likeliest token is the end
        }
    )  # fmt: skip
    answer = json.loads(answer) if isinstance(answer, str) else answer
    (token,) = answer["choices"][0]["logprobs"]["content"]
    logprobs = {one["id"]: one["logprob"] for one in token["top_logprobs"]}
    return [logprobs[i] for i in range(asked["vocabulary"])]


def ask(asked: dict[str, Any], adapter: str) -> tuple[list[float] | None, str]:
    """The numbers, or the last words that mean something."""
    command = [sys.executable, __file__, adapter or "none"]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=False,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), ""
    lines = [line for line in done.stderr.splitlines() if "failed" in line or "rror" in line]
    return None, _BEFORE.split(lines[0])[-1] if lines else f"the process ended with {done.returncode}"


def main() -> None:
    asked = json.load(sys.stdin)
    if len(sys.argv) > 1:
        print(json.dumps(compute(asked, sys.argv[1].removeprefix("none"))))
        return
    answers = {name: ask(asked, file) for name, file in {"": "", **asked["adapters"]}.items()}
    numbers = {name: numbers for name, (numbers, _) in answers.items() if numbers is not None}
    Path(asked["numbers"]).write_text(json.dumps(numbers))
    Path(asked["answer"]).write_text(json.dumps({name: refusal for name, (_, refusal) in answers.items() if refusal}))


main()
