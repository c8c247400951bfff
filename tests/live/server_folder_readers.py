"""What servers do with a folder of adapters, written from their published code and documentation.

Each reader opens the files that its server opens, needs the fields that it needs, and finds the names that it finds.
None of them is the server: ``make truth-live`` has vLLM itself read such a folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class ReadAdapter:
    """What a server would compute with."""

    config: dict[str, Any]
    tensors: dict[str, NDArray[Any]]

    def is_same(self, other: ReadAdapter) -> bool:
        """Whether both have the same scale on the same modules, and the same numbers."""
        fields = ("r", "lora_alpha", "base_model_name_or_path", "peft_type")
        return (
            all(self.config[name] == other.config[name] for name in fields)
            and {*self.config["target_modules"]} == {*other.config["target_modules"]}
            and self.tensors.keys() == other.tensors.keys()
            and all(np.array_equal(tensor, other.tensors[name]) for name, tensor in self.tensors.items())
        )


def read_peft(folder: Path) -> ReadAdapter:
    """Read a folder as PEFT writes it."""
    return ReadAdapter(json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS))


def read_as_vllm(root: Path, model: str, base: str) -> ReadAdapter | None:
    """vLLM 0.32, vllm/plugins/lora_resolvers/filesystem_resolver.py: the name is a path below the folder.

    An adapter is what has an ``adapter_config.json`` with peft_type LORA and the base that is served, letter by letter.
    """
    config = root / model / CONFIG
    if not config.exists():
        return None
    document = json.loads(config.read_text())
    is_for_base = document["peft_type"] == "LORA" and document["base_model_name_or_path"] == base
    return read_peft(root / model) if is_for_base else None


def list_as_nim(root: Path) -> dict[str, ReadAdapter]:
    """NVIDIA NIM for LLMs, "Fine-Tuning with LoRA", Expected adapter layout under NIM_PEFT_SOURCE.

    Each folder directly below is an adapter under its own name, if it has ``adapter_config.json`` and
    ``adapter_model.safetensors`` or ``.bin``; "only valid, readable adapter directories are loaded". That hidden ones
    are left out is not said, so they are looked at here.
    """
    return {path.name: read_peft(path) for path in root.iterdir() if path.is_dir() and (path / CONFIG).is_file()}


def read_as_sglang(argument: str) -> tuple[str, ReadAdapter]:
    """SGLang, ``--lora-paths NAME=PATH``: sglang/srt/lora/lora_config.py and its loader of safetensors.

    ``target_modules``, ``r`` and ``lora_alpha`` must be there; ``added_tokens.json`` may be; all ``*.safetensors`` are
    read.
    """
    name, _, path = argument.partition("=")
    assert Path(path).is_dir(), "what is no folder is taken for a repository of the Hub"
    config = json.loads(Path(path, CONFIG).read_text())
    assert {"target_modules", "r", "lora_alpha"} <= config.keys()
    tensors = {key: tensor for file in Path(path).glob("*.safetensors") for key, tensor in load_file(file).items()}
    return name, ReadAdapter(config, tensors)


def read_as_lorax(adapter_id: str, hub_cache: Path) -> ReadAdapter:
    """LoRAX, ``adapter_source: local``: lorax_server/utils/sources/local.py.

    An absolute path is itself, and any other is below the cache of the Hub. All ``*.safetensors`` are read.
    """
    assert len(adapter_id) >= 5
    folder = Path(adapter_id) if Path(adapter_id).is_absolute() else hub_cache / adapter_id
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(adapter_id)
    tensors = {key: tensor for file in files for key, tensor in load_file(file).items()}
    return ReadAdapter(json.loads((folder / CONFIG).read_text()), tensors)
