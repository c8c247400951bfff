"""The adapters that go into a merge, as factors whose product is the delta on the base that all share."""

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

from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.structure import AdapterStructure
from loreg.adapters.tensors import OpenAdapter, open_adapter
from loreg.algebra.factors import Factors
from loreg.algebra.sketch import largest_singular
from loreg.bases import names
from loreg.bases.affected_tensors import build_lookup, target_tensors
from loreg.bases.model import Model, read_model
from loreg.errors import MergeError

#: Floating-point types by safetensors' names. Integers and 8-bit floats are quantised: alone they are not the factors.
TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class MergeInput:
    """What is given for one source: ``initial`` is the adapter that its training started from, where that changed
    the base (PiSSA, OLoRA, CorDA, LoRA-GA); ``base`` the model, where the delta depends on it (DoRA)."""

    structure: AdapterStructure
    label: str
    digest: str
    initial: AdapterStructure | None = None
    base: Path | None = None


@dataclass(frozen=True)
class OpenBase:
    """An open model: its files by tensor, and its tensors by canonical name."""

    model: Model
    files: Mapping[str, Any]
    raw: Mapping[str, str]

    def weight(self, given: MergeInput, module: str, shape: tuple[int, int]) -> Tensor:
        """The weight (out, in) of a module on which an adapter was trained.

        Raises MergeError where the base has none, one of another shape, or one of which nothing says how it lies.
        """
        one = {module: given.structure.modules[module]}
        lookup = build_lookup(given.structure, self.raw, self.model.config)
        (part,) = target_tensors(replace(given.structure, modules=one), lookup)
        if part.place is None or part.why_not:
            why = part.why_not or f"has no tensor {part.name}"
            raise _not_the_base(f"the base {given.base} {why}, on which {given.label} was trained")
        tensor: Tensor = self.files[self.raw[part.place]].get_tensor(self.raw[part.place])
        if part.into is not None:
            tensor = tensor.chunk(part.into[1])[part.into[0]]
        if (transposed := part.lies_transposed(tuple(tensor.shape))) is None:
            raise MergeError(
                f"{given.label} cannot be merged: {part.name} is square, and the class of {given.base} is not known",
                hint="save the model with its config.json: model.save_pretrained(DIR)",
            )
        weight = tensor.T if transposed else tensor
        if tuple(weight.shape) != shape:
            raise _not_the_base(
                f"base mismatch: module {module} is {shape} in {given.label}, {tuple(weight.shape)} in the base"
            )
        return weight


def open_base(stack: contextlib.ExitStack, path: Path) -> OpenBase:
    """Map the shards of the model at ``path`` into memory; nothing is read yet."""
    model = read_model(path)
    files = [stack.enter_context(safe_open(shard, framework="pt")) for shard in model.shards]
    by_name = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (a safetensors file is no mapping)
    return OpenBase(model, by_name, names.by_canonical_name({name: name for name in by_name}))


def _not_the_base(message: str) -> MergeError:
    return MergeError(message, hint="--base names the folder of the model that the adapter was trained on")


@dataclass
class OpenSource:
    """One open source. ``lost`` collects, for a converted adapter, (‖delta‖², what the conversion lost of it)."""

    input: MergeInput
    adapter: OpenAdapter
    initial: OpenAdapter | None
    base: OpenBase | None
    least_rank: int
    lost: dict[str, tuple[float, float]] = field(default_factory=dict)

    @functools.cached_property
    def modules(self) -> Mapping[str, ModuleShape]:
        """The form of each module."""
        return {name: module.shape for name, module in self.adapter.structure.modules.items() if module.shape}

    def rank(self, module: str) -> int:
        """The rank of the factors that :meth:`factors` gives."""
        found = self.adapter.structure.modules[module]
        form = self.modules[module]
        if "magnitude" in found.tensors:
            return min(max(2 * form.rank, self.least_rank), form.out, form.in_)
        return form.rank + (self.initial.structure.modules[module].rank if self.initial else 0)

    def dtype(self, module: str) -> torch.dtype:
        """The widest dtype of the two factors in the file."""
        parts = self.adapter.structure.modules[module].tensors
        return widest_dtype([TORCH_DTYPES[parts[part].dtype] for part in self.modules[module].tensor_names])

    def factors(self, module: str, device: torch.device) -> Factors:
        """``b (E, out, r)`` and ``a (E, r, in)`` in float64 with √scale in each, on ``device``."""
        form, rank = self.modules[module], self.rank(module)
        into = Factors(
            torch.empty(form.matrices, form.out, rank, dtype=torch.float64, device=device),
            torch.empty(form.matrices, rank, form.in_, dtype=torch.float64, device=device),
        )
        self.copy_factors(module, into)
        return into

    def copy_factors(self, module: str, into: Factors) -> None:
        """Write the factors into the place that is made for them."""
        if "magnitude" in self.adapter.structure.modules[module].tensors:
            _put(self._converted(module, into.b.device), 1.0, into)
            return
        rank = self.modules[module].rank
        _put(
            self.adapter.factors(module), self.adapter.scale(module), Factors(into.b[..., :rank], into.a[..., :rank, :])
        )
        if self.initial:
            before = Factors(into.b[..., rank:], into.a[..., rank:, :])
            _put(self.initial.factors(module), self.initial.scale(module), before)
            before.b.neg_()

    def _converted(self, module: str, device: torch.device) -> Factors:
        """DoRA (Liu et al. 2024, arXiv 2402.09353): ``m·(W + BA)/‖W + BA‖ − W``, its best approximation in factors."""
        plain = self.adapter.factors(module)
        b, a = (x[0].to(device, torch.float64) for x in (plain.b, plain.a))
        weight, magnitude = self._weight(module, plain.shape).to(b), self.adapter.magnitude(module).to(b)
        trained = weight + self.adapter.scale(module) * b @ a
        delta = trained * (magnitude / torch.linalg.vector_norm(trained, dim=1)).unsqueeze(-1) - weight
        rank = self.rank(module)
        u, s, v, energy = largest_singular(lambda: [(0, delta)], plain.shape, rank, delta.device)
        u, s, v = u[:, :rank], s[:rank], v[:, :rank]
        self.lost[module] = float(energy), float((energy - s.square().sum()).clamp_min(0))
        return Factors((u * s.sqrt()).unsqueeze(0), (v * s.sqrt()).T.unsqueeze(0))

    def _weight(self, module: str, shape: tuple[int, int]) -> Tensor:
        assert self.base is not None  # noqa: S101  refused before where an adapter needs one
        return self.base.weight(self.input, module, shape)

    def refuse_what_is_not_finite(self, module: str) -> None:
        """Raise MergeError if a tensor of the module has NaN or infinite numbers, naming it."""
        for tensor in self.adapter.structure.modules[module].tensors.values():
            if not self.adapter.full_tensor(tensor.name).isfinite().all():
                raise MergeError(
                    f"{self.input.label} cannot be merged: tensor {tensor.name} has NaN or infinite numbers",
                    hint="train again with a lower learning rate, or merge an earlier checkpoint",
                )


@contextlib.contextmanager
def open_sources(inputs: Sequence[MergeInput], least_rank: int) -> Iterator[list[OpenSource]]:
    """Open every source; a conversion keeps ``least_rank`` at least."""
    with contextlib.ExitStack() as stack:
        bases = {path: open_base(stack, path) for path in {given.base for given in inputs if given.base is not None}}
        yield [
            OpenSource(
                given,
                stack.enter_context(open_adapter(given.structure)),
                stack.enter_context(open_adapter(given.initial)) if given.initial else None,
                bases[given.base] if given.base else None,
                least_rank,
            )
            for given in inputs
        ]


def conversion_notes(sources: Sequence[OpenSource]) -> list[str]:
    """What to tell a person of the sources that had to be converted."""
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


def _put(factors: Factors, scale: float, into: Factors) -> None:
    """Copy with √scale in each factor, so that neither side is favoured by a method that looks at one of them."""
    for tensor, place in ((factors.b, into.b), (factors.a, into.a)):
        if place.device.type == "cuda":  # in its own dtype, out of pinned memory, without waiting
            tensor = tensor.pin_memory().to(place.device, non_blocking=True)  # noqa: PLW2901
        place.copy_(tensor)
        if scale != 1:
            place.mul_(scale**0.5)


def widest_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The narrowest dtype that holds all of these."""
    return functools.reduce(torch.promote_types, dtypes)
