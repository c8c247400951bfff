"""The servers, each asked in a process of its own: which adapters it takes, and what it computes with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import environment
import torch
from safetensors.torch import load_file
from torch import Tensor

from bases import BASES, PROMPT, vocabulary_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Did:
    """What a server did with an adapter: ``numbers`` that it computed, or the words with which it refused."""

    numbers: Tensor | None
    refusal: str = ""


def ask_vllm(bases: Path, base: str, adapters: Mapping[str, Path]) -> dict[str, Did]:
    """vLLM on CPU."""
    asked = {"prompt": PROMPT, "vocabulary": vocabulary_of(bases / base)}
    return _ask(environment.vllm_python(), "in_vllm.py", bases, base, adapters, asked, {})


def ask_old_peft(bases: Path, base: str, adapters: Mapping[str, Path]) -> dict[str, Did]:
    """The oldest PEFT that a profile is of, with the torch and transformers of today."""
    path = {"PYTHONPATH": str(environment.old_peft())}
    asked = {"release": environment.OLD_PEFT, "with": "PeftModel"}
    return _ask(Path(sys.executable), "in_peft.py", bases, base, adapters, asked, path)


def ask_peft(bases: Path, base: str, adapters: Mapping[str, Path]) -> dict[str, Did]:
    """The PEFT of the tests, in a process that has not made the adapters."""
    asked = {"release": version("peft"), "with": "PeftModel"}
    return _ask(Path(sys.executable), "in_peft.py", bases, base, adapters, asked, {})


def ask_transformers(bases: Path, base: str, adapters: Mapping[str, Path]) -> dict[str, Did]:
    """``load_adapter`` of transformers."""
    asked = {"release": version("peft"), "with": "load_adapter"}
    return _ask(Path(sys.executable), "in_peft.py", bases, base, adapters, asked, {})


def ask_llama(bases: Path, base: str, adapters: Mapping[str, Path]) -> dict[str, Did]:
    """llama.cpp: its converter, and its runtime with what that wrote."""
    with tempfile.TemporaryDirectory(prefix="loreg-truth-") as name:
        room = Path(name)
        converted = {adapter: str(room / f"{number}.gguf") for number, adapter in enumerate(adapters)}
        convert = {
            "llama": str(environment.llama_converter()), "base": str(bases / base), "model": str(room / "base.gguf"),
            "adapters": {adapter: str(folder) for adapter, folder in adapters.items()}, "converted": converted,
            "answer": str(room / "converted.json"),
        }  # fmt: skip
        _run(Path(sys.executable), "convert_llama.py", convert, {})
        refusals = json.loads((room / "converted.json").read_text())
        load = {
            "model": convert["model"], "adapters": {a: file for a, file in converted.items() if a not in refusals},
            "prompt": PROMPT, "vocabulary": vocabulary_of(bases / base), "numbers": str(room / "numbers.json"),
            "answer": str(room / "answer.json"),
        }  # fmt: skip
        _run(environment.llama_python(), "in_llama.py", load, {})
        refusals |= json.loads((room / "answer.json").read_text())
        numbers = json.loads((room / "numbers.json").read_text())
    return {
        name: Did(torch.tensor([numbers[name]]) if name in numbers else None, refusals.get(name, ""))
        for name in ["", *adapters]
    }


def _ask(
    python: Path, program: str, bases: Path, base: str, adapters: Mapping[str, Path], more: Mapping[str, Any],
    variables: Mapping[str, str],
) -> dict[str, Did]:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="loreg-truth-") as name:
        numbers, answer = Path(name, "numbers.safetensors"), Path(name, "answer.json")
        asked = {
            "base": str(bases / base), "class": BASES[base].kind.__name__, "task": BASES[base].task,
            "adapters": {name: str(folder) for name, folder in adapters.items()},
            "numbers": str(numbers), "answer": str(answer), **more,
        }  # fmt: skip
        _run(python, program, asked, variables)
        refusals, outputs = json.loads(answer.read_text()), load_file(numbers)
    return {name: Did(outputs.get(name), refusals.get(name, "")) for name in ["", *adapters]}


def _run(python: Path, program: str, asked: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    """The program in a process of its own, with ``asked`` on its standard input. Ends everything if it dies."""
    done = subprocess.run(
        [python, HERE / program], input=json.dumps(asked), capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{program} died ({done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
