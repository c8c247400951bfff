"""Read and write the numbers of an adapter: factors and full tensors between safetensors files and torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from loreg.adapters.config import CONFIG_NAME, dump_config
from loreg.adapters.keys import factor_key
from loreg.adapters.module_shape import ModuleKind, ModuleShape, as_matrices
from loreg.adapters.parameters import module_names_in_file, pattern_name, target_parameters_of
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure
from loreg.algebra.factors import Factors


class _TensorFile(Protocol):
    """What safetensors' ``safe_open`` gives; it has no types of its own."""

    def get_tensor(self, name: str, /) -> Tensor: ...


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter whose tensors are read one at a time, when they are asked for."""

    structure: AdapterStructure
    _file: _TensorFile

    def factors(self, module: str) -> Factors:
        """Return the factors of one module in their own dtype, without the scale: ``b (E, out, r)``, ``a (E, r, in)``.

        E is 1, or how many experts there are. Raises ValueError for a module without a shape.
        """
        shape, tensors = self.structure.modules[module].shape, self.structure.modules[module].tensors
        if shape is None:
            raise ValueError(f"{module} has no form")
        a, b = (self._file.get_tensor(tensors[part].name) for part in shape.tensor_names)
        return Factors(*as_matrices(shape, a, b))

    def scale(self, module: str) -> float:
        """Return the number that the product of the factors is multiplied with."""
        return self.structure.modules[module].scale

    def bias(self, module: str) -> Tensor | None:
        """Return the ``lora_bias`` (out), added beside the factors' product before the scale; None if it has none."""
        bias = self.structure.modules[module].tensors.get("bias")
        return self._file.get_tensor(bias.name) if bias else None

    def magnitude(self, module: str) -> Tensor:
        """Return DoRA's magnitude vector (out)."""
        return self._file.get_tensor(self.structure.modules[module].tensors["magnitude"].name).flatten()

    def full_tensor(self, name: str) -> Tensor:
        """Return a full tensor or rows of tokens by the name that PEFT gives it, any other by its name in the file."""
        tensor = self.structure.full_tensors.get(name) or self.structure.token_row_tensors.get(name)
        return self._file.get_tensor(tensor.name if tensor else name)


@contextlib.contextmanager
def open_adapter(structure: AdapterStructure) -> Iterator[OpenAdapter]:
    """Map the weights of the adapter into memory, until the context ends; nothing is read yet.

    >>> from loreg.adapters.structure import read_structure
    >>> with open_adapter(read_structure(Path("science"))) as adapter:
    ...     factors = adapter.factors("layers.0.q_proj")
    ...     (adapter.scale("layers.0.q_proj") * factors.b @ factors.a).diagonal(dim1=1, dim2=2).tolist()
    [[2.0, 2.0, 0.0, 0.0]]
    """
    with safe_open(structure.weights, framework="pt") as file:
        yield OpenAdapter(structure, file)


@dataclass(frozen=True)
class ModuleToWrite:
    """One module to write: ``b (E, out, r)`` and ``a (E, r, in)`` with scale 1, and how they lie in the file."""

    shape: ModuleShape
    factors: Factors
    bias: Tensor | None = None


@dataclass(frozen=True)
class AdapterToWrite:
    """An adapter to write: modules and full tensors by PEFT's names, and ``fields`` of the configuration."""

    modules: Mapping[str, ModuleToWrite]
    full_tensors: Mapping[str, Tensor]
    fields: Mapping[str, object]


def write_adapter(folder: Path, adapter: AdapterToWrite) -> None:
    """Write a PEFT LoRA adapter into the existing ``folder``.

    Scales are in the factors already, so ``lora_alpha`` equals ``r`` and ``alpha_pattern`` equals
    ``rank_pattern``: every reader of the format, also one that knows no patterns' details, arrives at scale 1.
    """
    shapes = {name: module.shape for name, module in adapter.modules.items()}
    names_in_file = module_names_in_file(shapes)
    tensors = dict(adapter.full_tensors)
    for name, module in adapter.modules.items():
        for part, tensor in to_file_tensors(module.shape, module.factors).items():
            tensors[factor_key(names_in_file[name], part)] = tensor
        if module.bias is not None:
            tensors[factor_key(names_in_file[name], "bias")] = module.bias
    ranks = {pattern_name(name, module.shape): module.factors.rank for name, module in adapter.modules.items()}
    r = max(ranks.values())
    # The longest names first: a pattern also matches as the end of a name, and the first that matches wins.
    rank_pattern = {name: ranks[name] for name in sorted(ranks, key=lambda m: (-len(m), m)) if ranks[name] != r}
    document = {
        "peft_type": "LORA",
        **adapter.fields,
        "r": r,
        "lora_alpha": r,
        "rank_pattern": rank_pattern,
        "alpha_pattern": rank_pattern,
        "target_modules": sorted(name for name, shape in shapes.items() if not shape.parameter),
        "target_parameters": target_parameters_of(shapes),
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_files(folder, tensors, document)


def write_files(folder: Path, tensors: Mapping[str, Tensor], document: Mapping[str, object]) -> None:
    """Write weights, sorted by name, and configuration into the existing ``folder``."""
    sorted_tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(sorted_tensors, folder / WEIGHTS_NAME, {"format": "pt"})
    (folder / CONFIG_NAME).write_bytes(dump_config(document))


def pad_rank(factors: Factors, rank: int) -> Factors:
    """Return the same delta at the higher ``rank``, padded with zeros: ``b (…, out, rank)``, ``a (…, rank, in)``."""
    missing = rank - factors.rank
    b = torch.nn.functional.pad(factors.b, (0, missing))
    a = torch.nn.functional.pad(factors.a, (0, 0, 0, missing))
    return Factors(b, a)


def to_file_tensors(shape: ModuleShape, factors: Factors) -> dict[str, Tensor]:
    """Return the factors ``b (E, out, r)``, ``a (E, r, in)`` by part as they lie in the file (:class:`ModuleShape`)."""
    a_part, b_part = shape.tensor_names
    if shape.kind == ModuleKind.EXPERTS:
        return {a_part: factors.a.flatten(0, 1), b_part: factors.b.permute(1, 2, 0).flatten(1)}
    a, b = factors.a[0], factors.b[0]
    if shape.kind == ModuleKind.CONVOLUTION:
        ones = [1] * (len(shape.kernel) - 1)
        return {a_part: a.reshape(-1, *shape.kernel), b_part: b.reshape(*b.shape, *ones)}
    return {a_part: a, b_part: b}
