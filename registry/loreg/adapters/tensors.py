"""The numbers of an adapter: factors and extras between safetensors files and torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from loreg.adapters.config import CONFIG_NAME, dump_config
from loreg.adapters.keys import factor_key
from loreg.adapters.module_shape import ModuleShape, as_matrices
from loreg.adapters.parameters import file_modules, pattern_name, target_parameters_of
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure
from loreg.algebra.factors import Factors


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter whose tensors are read one at a time, when they are asked for."""

    structure: AdapterStructure
    _file: Any

    def factors(self, module: str) -> Factors:
        """The factors of one module in their own dtype, without the scale: ``b (E, out, r)``, ``a (E, r, in)``."""
        found = self.structure.modules[module]
        if found.shape is None:
            raise ValueError(f"{module} has no form")
        a_part, b_part = found.shape.tensor_names
        a, b = (self._file.get_tensor(found.tensors[part].name) for part in (a_part, b_part))
        return Factors(*as_matrices(found.shape, a, b))

    def scale(self, module: str) -> float:
        """What the product of the factors is multiplied with."""
        return self.structure.modules[module].scale

    def bias(self, module: str) -> Tensor | None:
        """``lora_bias``: what is added to the output beside the factors' product, before the scale."""
        found = self.structure.modules[module].tensors.get("bias")
        return self._file.get_tensor(found.name) if found else None

    def magnitude(self, module: str) -> Tensor:
        """DoRA's magnitude vector (out)."""
        magnitude: Tensor = self._file.get_tensor(self.structure.modules[module].tensors["magnitude"].name)
        return magnitude.flatten()

    def full_tensor(self, name: str) -> Tensor:
        """A whole tensor, or rows of single tokens, by the name that PEFT gives it; any tensor by that in the file."""
        found = self.structure.full_tensors.get(name) or self.structure.token_row_tensors.get(name)
        tensor: Tensor = self._file.get_tensor(found.name if found else name)
        return tensor

    def tokens(self, module: str) -> Tensor:
        """The rows (n, dim) for single tokens of one module, in the order of their indices."""
        rows: Tensor = self._file.get_tensor(self.structure.token_rows[module].tensor.name)
        return rows


@contextlib.contextmanager
def open_adapter(structure: AdapterStructure) -> Iterator[OpenAdapter]:
    """Map the weights of the adapter into memory; nothing is read yet."""
    with safe_open(structure.weights, framework="pt") as file:
        yield OpenAdapter(structure, file)


@dataclass(frozen=True)
class ModuleToWrite:
    """One module to write: ``b (E, out, r)`` and ``a (E, r, in)`` with scale 1, and what form they take."""

    shape: ModuleShape
    factors: Factors
    bias: Tensor | None = None


@dataclass(frozen=True)
class AdapterToWrite:
    """An adapter to write: modules and whole tensors by name, configuration fields."""

    modules: Mapping[str, ModuleToWrite]
    full_tensors: Mapping[str, Tensor]
    fields: Mapping[str, Any]


def write_adapter(folder: Path, adapter: AdapterToWrite) -> None:
    """Write a PEFT LoRA adapter into the existing ``folder``.

    Scales are in the factors already, so ``lora_alpha`` equals ``r`` and ``alpha_pattern`` equals
    ``rank_pattern``: every reader of the format, also one that knows no patterns' details, arrives at scale 1.
    """
    forms = {name: module.shape for name, module in adapter.modules.items()}
    files = file_modules(forms)
    tensors = dict(adapter.full_tensors)
    for name, module in adapter.modules.items():
        for part, tensor in as_file_tensors(module.shape, module.factors).items():
            tensors[factor_key(files[name], part)] = tensor
        if module.bias is not None:
            tensors[factor_key(files[name], "bias")] = module.bias
    ranks = {pattern_name(name, module.shape): module.factors.rank for name, module in adapter.modules.items()}
    r = max(ranks.values())
    # The longest names first: a pattern also matches as the end of a name, and the first that matches wins.
    others = {name: ranks[name] for name in sorted(ranks, key=lambda m: (-len(m), m)) if ranks[name] != r}
    document = {
        "peft_type": "LORA",
        **adapter.fields,
        "r": r,
        "lora_alpha": r,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(name for name, form in forms.items() if not form.parameter),
        "target_parameters": target_parameters_of(forms),
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_files(folder, tensors, document)


def write_files(folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write weights, sorted by name, and configuration into the existing ``folder``."""
    ready = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(ready, folder / WEIGHTS_NAME, {"format": "pt"})
    (folder / CONFIG_NAME).write_bytes(dump_config(document))


def pad_rank(factors: Factors, rank: int) -> Factors:
    """The same delta at a higher rank, with zeros."""
    more = rank - factors.rank
    return Factors(torch.nn.functional.pad(factors.b, (0, more)), torch.nn.functional.pad(factors.a, (0, 0, 0, more)))


def as_file_tensors(form: ModuleShape, factors: Factors) -> dict[str, Tensor]:
    """The two factors as they lie in the file."""
    a_part, b_part = form.tensor_names
    if form.kind == "experts":
        return {a_part: factors.a.flatten(0, 1), b_part: factors.b.permute(1, 2, 0).flatten(1)}
    a, b = factors.a[0], factors.b[0]
    if form.kind == "convolution":
        ones = [1] * (len(form.kernel) - 1)
        return {a_part: a.reshape(-1, *form.kernel), b_part: b.reshape(*b.shape, *ones)}
    return {a_part: a, b_part: b}
