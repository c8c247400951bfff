"""Resolve what acts on each module of an adapter: its tensors, rank, alpha and scale.

Source: PEFT 0.21, ``peft/tuners/lora/model.py`` (``_create_and_replace``) and ``lora/layer.py`` (``update_layer``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from loreg.adapters.config import LoraConfig
from loreg.adapters.header import Tensor
from loreg.adapters.module_shape import ModuleShape, are_stacked, infer_shape, is_convolution
from loreg.adapters.parameters import find_parameter, owner_of, parameter_name
from loreg.errors import AdapterFormatError


@dataclass
class Module:
    """One module and the tensors that act on it, by part: ``A`` (r, in), ``B`` (out, r), ``magnitude``, ….

    ``rank``, ``alpha`` and ``scale`` are what PEFT applies when it loads the adapter, whose ``config`` is beside them.
    LoRA on a ``parameter`` (``target_parameters``) counts as a module that is called as the parameter.
    Treat it as frozen: it is not, for there are hundreds in an adapter and a frozen one takes thrice as long to make.
    """

    name: str
    tensors: Mapping[str, Tensor]
    rank: int
    alpha: float
    scale: float
    config: LoraConfig = field(repr=False)
    parameter: str = ""

    @cached_property
    def shape(self) -> ModuleShape | None:
        """The shape of the matrices that the tensors are; None if they do not fit together."""
        return infer_shape(self.tensors, self.rank, self.parameter)

    @property
    def why_unreadable(self) -> str:
        """Why the tensors are not factors that loreg can apply, in words; empty if they are."""
        if self.shape is not None:
            return ""
        a, b = (self.tensors[part].shape if part in self.tensors else () for part in ("A", "B"))
        if len(a) > 2 and len(a) == len(b) and b[1] and a[0] % b[1] == 0 and b[1] < a[0]:
            return f"module {self.name} is a convolution in {a[0] // b[1]} groups (A {a}, B {b})"
        shapes = ", ".join(f"{part} {tensor.shape}" for part, tensor in sorted(self.tensors.items()))
        return f"module {self.name} has {shapes}, expected A (r, in) and B (out, r)"

    @property
    def weight(self) -> str:
        """The name of the tensor of the base that the factors change."""
        return f"{owner_of(self.name, self.parameter)}.{self.parameter or 'weight'}"

    @property
    def type(self) -> str:
        """The last part of the name, e.g. ``q_proj``."""
        return self.name.rpartition(".")[2]


def build_modules(weights: Path, factors: Mapping[str, Mapping[str, Tensor]], config: LoraConfig) -> dict[str, Module]:
    """Return the modules by name; ``factors`` are their tensors by name in the file and part.

    Raises AdapterFormatError for a module that is there twice, or a pattern of the configuration that is invalid.
    """
    modules: dict[str, Module] = {}
    for name, tensors in sorted(factors.items()):
        module = _build_module(name, tensors, config, factors.keys())
        if module.name in modules:
            raise AdapterFormatError(
                f"{weights} has the factors of {module.name} twice, the second time at {name}",
                hint="save the adapter again with model.save_pretrained(DIR)",
            )
        modules[module.name] = module
    return dict(sorted(modules.items()))


def _build_module(
    name: str, tensors: Mapping[str, Tensor], config: LoraConfig, names_in_file: Collection[str]
) -> Module:
    """Resolve rank, alpha and scale of one module as PEFT does: the first pattern that matches wins."""
    parameter, looked_up = "", name
    stacked_rank = _stacked_rank(name, tensors)
    if stacked_rank:
        parameter = name.rpartition(".")[2]
    elif (owner_and_parameter := find_parameter(name, config, names_in_file)) is not None:
        parameter, looked_up = owner_and_parameter[1], ".".join(owner_and_parameter)
        name = parameter_name(*owner_and_parameter)
    promised_rank = configured_rank(config, looked_up)
    # Experts lie side by side in one tensor: how many there are, only the configured rank can tell.
    rank = stacked_rank or (promised_rank if parameter else _rank_in_tensors(tensors) or promised_rank)
    alpha = config.alpha_pattern.first(looked_up, config.lora_alpha)
    scale = alpha / (math.sqrt(rank) if config.use_rslora else rank)
    return Module(name, tensors, rank, alpha, scale, config, parameter)


def configured_rank(config: LoraConfig, module: str) -> int:
    """Return the rank that the configuration promises for ``module``. Raises AdapterFormatError for a bad pattern."""
    return config.rank_pattern.first(module, config.r)


def _stacked_rank(module: str, tensors: Mapping[str, Tensor]) -> int:
    """Return the rank of factors that are stacked, one pair for each expert (A (E, r, in), B (E, out, r)); else 0."""
    if "A" not in tensors or "B" not in tensors:
        return 0
    a, b = tensors["A"].shape, tensors["B"].shape
    if not are_stacked(a, b) or (is_convolution(a, b) and "expert" not in module):
        return 0
    return a[1]


def _rank_in_tensors(tensors: Mapping[str, Tensor]) -> int:
    """Return the rank of factors that are not stacked; 0 if there are none with that axis."""
    for part, axis in (("A", 0), ("B", 1), ("embedding_A", 0), ("embedding_B", 1)):
        if part in tensors and len(tensors[part].shape) > axis:
            return tensors[part].shape[axis]
    return 0
