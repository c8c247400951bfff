"""Runs with the PEFT that comes first on ``PYTHONPATH``: load each adapter, and compute with it.

Reads JSON on standard input: ``base``, ``class``, ``task``, ``adapters`` (name → folder), ``numbers``, ``answer``, as
``in_vllm.py`` does; the ``release`` that PEFT must be of; and what to load it ``with``, PeftModel or load_adapter.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import save_file

from bases import fresh, numbers


def load(model: Any, folder: str, with_: str) -> Any:
    if with_ == "PeftModel":
        return peft.PeftModel.from_pretrained(model, folder).eval()
    model.load_adapter(folder)
    return model.eval()


def main() -> None:
    asked = json.load(sys.stdin)
    assert peft.__version__ == asked["release"], peft.__version__
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    base, kind = Path(asked["base"]), getattr(transformers, asked["class"])
    outputs, refusals = {"": numbers(fresh(base, kind), asked["task"])}, {}
    for name, folder in asked["adapters"].items():
        try:
            outputs[name] = numbers(load(fresh(base, kind), folder, asked["with"]), asked["task"])
        except Exception as error:
            refusals[name] = f"{type(error).__name__}: {error}"
    save_file(outputs, asked["numbers"])
    Path(asked["answer"]).write_text(json.dumps(refusals))


main()
