"""Making adapters: PEFT writes them, and where PEFT would not write such a thing an edit of its files does."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from bases import BASES, fresh, numbers
from loreg.checking.profile import read_profile

Document = dict[str, Any]
Tensors = dict[str, Tensor]
Edit = Callable[[Document, Tensors], tuple[Document, Tensors]]
PREFIX = "base_model.model."


@dataclass(frozen=True)
class Case:
    """An adapter on a base. ``trained_on`` is another base where it is served on one that it was not made for.

    ``rules`` has, by code, words of the server's refusal, or nothing for what it gets wrong. ``edited`` says that the
    edit spoils the files: right are then the numbers from before it.
    ``servers`` has those that are asked, if not all. ``real`` is a folder to copy.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = "untied"
    trained_on: str = ""
    edit: Edit | None = None
    edited: bool = False
    rules: Mapping[str, str] = field(default_factory=dict)
    servers: tuple[str, ...] = ()
    real: Path | None = None
    saving: Mapping[str, Any] = field(default_factory=dict)


def on(*targets: str, **more: Any) -> Case:
    return Case({"target_modules": list(targets), **more})


def fields(**changed: Any) -> Edit:
    return lambda document, tensors: ({**document, **changed}, tensors)


def without(*names: str) -> Edit:
    return lambda document, tensors: ({n: v for n, v in document.items() if n not in names}, tensors)


def as_old(*more: str) -> Edit:
    """The fields that PEFT 0.10 knows, and ``more``."""
    known = (*(read_profile("peft:0.10").reads or ()), *more)
    return lambda document, tensors: ({name: value for name, value in document.items() if name in known}, tensors)


def renamed(old: str, new: str) -> Edit:
    return lambda document, tensors: (document, {name.replace(old, new): t for name, t in tensors.items()})


def in_dtype(dtype: torch.dtype) -> Edit:
    return lambda document, tensors: (document, {name: tensor.to(dtype) for name, tensor in tensors.items()})


def with_tensors(**shapes: tuple[int, ...]) -> Edit:
    return lambda document, tensors: (
        document,
        tensors
        | {PREFIX + name.replace("__", "."): 1 + torch.arange(float(s[0])) / s[0] for name, s in shapes.items()},
    )


@dataclass(frozen=True)
class Made:
    """What is ``right`` for an adapter: what PEFT computes of its files, None where PEFT does not load them."""

    right: Tensor | None


def make(name: str, case: Case, bases: Path, folder: Path) -> Made:
    """Write the adapter into ``folder``. Raises SystemExit if PEFT does not load what it has just saved as it was."""
    if case.real is not None:
        shutil.copytree(case.real, folder)
        return Made(by_peft(bases / case.base, case.base, folder))
    trained_on = case.trained_on or case.base
    kind = BASES[trained_on].kind
    defaults = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    if BASES[trained_on].task == "generate":
        defaults["task_type"] = "CAUSAL_LM"
    config = LoraConfig(**{**defaults, **case.options})
    model = _filled(get_peft_model(fresh(bases / trained_on, kind), config), zlib.crc32(name.encode()))
    model.save_pretrained(folder, **case.saving)
    (folder / "README.md").unlink()
    trained = numbers(model, BASES[trained_on].task)
    if case.edit is not None:
        _edit(folder, case.edit)
    right = trained if case.edited else by_peft(bases / case.base, case.base, folder)
    if case.edit is None and not case.trained_on and (right is None or float((right - trained).abs().max()) > 1e-5):
        raise SystemExit(f"PEFT does not compute with {name!r} what it was trained to")
    return Made(right)


def by_peft(base: Path, name: str, folder: Path) -> Tensor | None:
    """What PEFT computes with the files; None where it refuses them."""
    try:
        model = PeftModel.from_pretrained(fresh(base, BASES[name].kind), folder).eval()
    except Exception:
        return None
    return numbers(model, BASES[name].task)


def _filled(model: PeftModel, seed: int) -> PeftModel:
    """Every trainable tensor gets numbers, as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if "lora_" in name and "magnitude" not in name:
                parameter.normal_(0, 0.15 if "_A" in name else 0.08)
            elif "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def _edit(folder: Path, edit: Edit) -> None:
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    document, tensors = edit(json.loads(config.read_text()), load_file(weights))
    config.write_text(json.dumps(document, indent=1))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights, {"format": "pt"})
