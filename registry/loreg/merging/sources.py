"""Open the adapters that go into a merge, as factors whose product is the delta on the base that all share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from loreg.adapters.dtypes import DTYPES, FLOATS
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.tensors import OpenAdapter, open_adapter
from loreg.algebra.factors import Factors
from loreg.algebra.sketch import randomized_svd
from loreg.bases import names
from loreg.bases.affected_tensors import build_lookup, target_tensors
from loreg.bases.model import Model, read_model
from loreg.errors import MergeError
from loreg.merging.inputs import MergeInput

#: Floating-point types by safetensors' names. Integers and 8-bit floats are quantised: alone they are not the factors.
TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, DTYPES[name].torch_name) for name in FLOATS}


@dataclass(frozen=True)
class OpenBase:
    """An open model: ``files`` has the file of each tensor, ``raw`` the tensor of each canonical name."""

    model: Model
    files: Mapping[str, Any]
    raw: Mapping[str, str]

    def weight(self, source: MergeInput, module: str, shape: tuple[int, int]) -> Tensor:
        """Return the weight (out, in) of a module on which an adapter was trained.

        Raises MergeError if the base has none, one of another shape, or one that may or may not be transposed.
        """
        alone = {module: source.structure.modules[module]}
        lookup = build_lookup(source.structure, self.raw, self.model.config)
        (target,) = target_tensors(replace(source.structure, modules=alone), lookup)
        if target.base_tensor is None or target.why_not:
            why = target.why_not or f"has no tensor {target.name}"
            raise _not_the_base(f"the base {source.base} {why}, on which {source.label} was trained")
        tensor: Tensor = self.files[self.raw[target.base_tensor]].get_tensor(self.raw[target.base_tensor])
        if target.row_chunk is not None:
            tensor = tensor.chunk(target.row_chunk[1])[target.row_chunk[0]]
        if (transposed := target.is_stored_transposed(tuple(tensor.shape))) is None:
            raise MergeError(
                f"{source.label} cannot be merged: {target.name} is square, and the class of {source.base} "
                "is not known",
                hint="save the model with its config.json: model.save_pretrained(DIR)",
            )
        weight = tensor.T if transposed else tensor
        if tuple(weight.shape) != shape:
            raise _not_the_base(
                f"base mismatch: module {module} is {shape} in {source.label}, {tuple(weight.shape)} in the base"
            )
        return weight


def open_base(stack: contextlib.ExitStack, path: Path) -> OpenBase:
    """Map the shards of the model at ``path`` into memory; no tensor is read yet."""
    model = read_model(path)
    files = [stack.enter_context(safe_open(shard, framework="pt")) for shard in model.shards]
    file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (a safetensors file is no mapping)
    return OpenBase(model, file_of, names.by_canonical_name({name: name for name in file_of}))


def _not_the_base(message: str) -> MergeError:
    return MergeError(message, hint="--base names the folder of the model that the adapter was trained on")


@dataclass
class OpenSource:
    """One open source. ``lost`` collects, for each module that was converted, (‖delta‖², what was lost of it)."""

    input: MergeInput
    adapter: OpenAdapter
    initial: OpenAdapter | None
    base: OpenBase | None
    least_rank: int
    lost: dict[str, tuple[float, float]] = field(default_factory=dict)

    @functools.cached_property
    def modules(self) -> Mapping[str, ModuleShape]:
        """The shape of each module."""
        return {name: module.shape for name, module in self.adapter.structure.modules.items() if module.shape}

    def rank(self, module: str) -> int:
        """Return the rank of the factors that :meth:`factors` returns."""
        shape = self.modules[module]
        if self._is_dora(module):
            return min(max(2 * shape.rank, self.least_rank), shape.out, shape.in_)
        return shape.rank + (self.initial.structure.modules[module].rank if self.initial else 0)

    def dtype(self, module: str) -> torch.dtype:
        """Return the widest dtype of the two factors in the file."""
        tensors = self.adapter.structure.modules[module].tensors
        return widest_dtype([TORCH_DTYPES[tensors[name].dtype] for name in self.modules[module].tensor_names])

    def factors(self, module: str, device: torch.device) -> Factors:
        """Return ``b (E, out, r)`` and ``a (E, r, in)`` in float64 on ``device``, with √scale in each."""
        shape, rank = self.modules[module], self.rank(module)
        target = Factors(
            torch.empty(shape.matrices, shape.out, rank, dtype=torch.float64, device=device),
            torch.empty(shape.matrices, rank, shape.in_, dtype=torch.float64, device=device),
        )
        self.copy_factors(module, target)
        return target

    def copy_factors(self, module: str, target: Factors) -> None:
        """Copy what :meth:`factors` returns into ``target``, which has its shape; subtracts an initial adapter."""
        if self._is_dora(module):
            _copy_scaled(self._convert_dora(module, target.b.device), 1.0, target)
            return
        rank = self.modules[module].rank
        trained = Factors(target.b[..., :rank], target.a[..., :rank, :])
        _copy_scaled(self.adapter.factors(module), self.adapter.scale(module), trained)
        if self.initial:
            initial = Factors(target.b[..., rank:], target.a[..., rank:, :])
            _copy_scaled(self.initial.factors(module), self.initial.scale(module), initial)
            initial.b.neg_()

    def _is_dora(self, module: str) -> bool:
        return "magnitude" in self.adapter.structure.modules[module].tensors

    def _convert_dora(self, module: str, device: torch.device) -> Factors:
        """Return the best factors of DoRA's delta (Liu et al. 2024, arXiv 2402.09353), ``m·(W + BA)/‖W + BA‖ − W``."""
        factors = self.adapter.factors(module)
        b, a = (x[0].to(device, torch.float64) for x in (factors.b, factors.a))
        weight, magnitude = self._weight(module, factors.shape).to(b), self.adapter.magnitude(module).to(b)
        trained = weight + self.adapter.scale(module) * b @ a
        delta = trained * (magnitude / torch.linalg.vector_norm(trained, dim=1)).unsqueeze(-1) - weight
        rank = self.rank(module)
        u, s, v, energy = randomized_svd(lambda: [(0, delta)], factors.shape, rank, delta.device)
        u, s, v = u[:, :rank], s[:rank], v[:, :rank]
        self.lost[module] = float(energy), float((energy - s.square().sum()).clamp_min(0))
        return Factors((u * s.sqrt()).unsqueeze(0), (v * s.sqrt()).T.unsqueeze(0))

    def _weight(self, module: str, shape: tuple[int, int]) -> Tensor:
        assert self.base is not None  # noqa: S101  refused before where an adapter needs one
        return self.base.weight(self.input, module, shape)

    def refuse_non_finite(self, module: str) -> None:
        """Raise MergeError if a tensor of the module has NaN or infinite numbers, naming it."""
        for tensor in self.adapter.structure.modules[module].tensors.values():
            if not self.adapter.full_tensor(tensor.name).isfinite().all():
                raise MergeError(
                    f"{self.input.label} cannot be merged: tensor {tensor.name} has NaN or infinite numbers",
                    hint="train again with a lower learning rate, or merge an earlier checkpoint",
                )


@contextlib.contextmanager
def open_sources(inputs: Sequence[MergeInput], least_rank: int) -> Iterator[list[OpenSource]]:
    """Open every source; what has to be converted to factors keeps rank ``least_rank`` at least."""
    with contextlib.ExitStack() as stack:
        paths = {source.base for source in inputs if source.base is not None}
        bases = {path: open_base(stack, path) for path in paths}
        yield [
            OpenSource(
                source,
                stack.enter_context(open_adapter(source.structure)),
                stack.enter_context(open_adapter(source.initial)) if source.initial else None,
                bases[source.base] if source.base else None,
                least_rank,
            )
            for source in inputs
        ]


def describe_conversions(sources: Sequence[OpenSource]) -> list[str]:
    """Say which sources had to be converted, and what that lost, in words for the user."""
    notes = []
    for source in sources:
        if source.lost:
            whole, lost = (sum(column) for column in zip(*source.lost.values(), strict=True))
            error = (lost / whole) ** 0.5 if whole else 0.0
            ranks = {source.rank(module) for module in source.lost}
            notes.append(f"{source.input.label}: DoRA converted to factors of rank {max(ranks)}, ε = {error:.2g}")
        if source.initial:
            notes.append(
                f"{source.input.label}: its initial adapter is subtracted; the result is for the original base"
            )
    return notes


def _copy_scaled(factors: Factors, scale: float, target: Factors) -> None:
    """Copy with √scale in each factor, so that neither side is favoured by a method that looks at one of them."""
    for source, destination in ((factors.b, target.b), (factors.a, target.a)):
        if destination.device.type == "cuda":  # in its own dtype, out of pinned memory, without waiting
            source = source.pin_memory().to(destination.device, non_blocking=True)  # noqa: PLW2901
        destination.copy_(source)
        if scale != 1:
            destination.mul_(scale**0.5)


def widest_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """Return the narrowest dtype that holds all of these."""
    return functools.reduce(torch.promote_types, dtypes)
