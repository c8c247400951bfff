"""Tell how the factors of one module lie in the file, and which matrices they are.

Source: PEFT 0.21, ``peft/tuners/lora/layer.py``: Linear, Embedding, _ConvNd, ParamWrapper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self, TypeVar

from loreg.adapters.header import Tensor


class _Array(Protocol):
    """An array of NumPy or torch."""

    def reshape(self, first: int, second: int, third: int, /) -> Self: ...
    def swapaxes(self, axis0: int, axis1: int, /) -> Self: ...


ArrayT = TypeVar("ArrayT", bound=_Array)


class ModuleKind(StrEnum):
    """What a module is, and so how its factors lie in the file."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    CONVOLUTION = "convolution"
    EXPERTS = "experts"


@dataclass(frozen=True)
class ModuleShape:
    """The shape of one module: its deltas are ``matrices`` matrices (out, in) of rank ``rank``.

    ``kind`` is linear (A (r, in), B (out, r)), embedding (A (r, tokens), B (dim, r), the delta transposed),
    convolution (A (r, *kernel), B (out, r, 1, …), the kernel with its channels) or experts (A (r·E, in), B (out, r·E)),
    which is LoRA on the ``parameter`` of that name. Experts can be ``stacked`` in the file, as Megatron exports them:
    A (E, r, in), B (E, out, r).
    """

    kind: ModuleKind
    rank: int
    out: int
    in_: int
    matrices: int = 1
    kernel: tuple[int, ...] = ()
    parameter: str = ""
    stacked: bool = field(default=False, compare=False)

    @property
    def tensor_names(self) -> tuple[str, str]:
        """The names of the two factors: A first."""
        return ("embedding_A", "embedding_B") if self.kind == ModuleKind.EMBEDDING else ("A", "B")


def infer_shape(tensors: Mapping[str, Tensor], rank: int, parameter: str) -> ModuleShape | None:
    """Return the shape of a module with these ``tensors``; None if they do not fit together.

    ``rank`` tells how many experts lie side by side. ``parameter`` is the one that the tensors act on, empty for a
    module itself.
    """
    a, b = _shape_of(tensors, "A"), _shape_of(tensors, "B")
    if a is None or b is None:
        a, b = _shape_of(tensors, "embedding_A"), _shape_of(tensors, "embedding_B")
        if a is None or b is None or len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            return None
        return ModuleShape(ModuleKind.EMBEDDING, a[0], b[0], a[1])
    if 0 in (*a, *b):
        return None
    if parameter and are_stacked(a, b):
        return ModuleShape(ModuleKind.EXPERTS, a[1], b[1], a[2], matrices=a[0], parameter=parameter, stacked=True)
    if len(a) < 2 or len(a) != len(b) or a[0] != b[1]:
        return None
    if len(a) > 2:
        if set(b[2:]) != {1}:
            return None
        return ModuleShape(ModuleKind.CONVOLUTION, a[0], b[0], math.prod(a[1:]), kernel=a[1:])
    if parameter:
        if a[0] % rank:
            return None
        return ModuleShape(ModuleKind.EXPERTS, rank, b[0], a[1], matrices=a[0] // rank, parameter=parameter)
    return ModuleShape(ModuleKind.LINEAR, a[0], b[0], a[1])


def are_stacked(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether the shapes are those of factors A (E, r, in) and B (E, out, r), one pair for each expert."""
    return len(a) == len(b) == 3 and a[0] == b[0] and a[1] == b[2]


def is_convolution(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether the shapes are those of a convolution's factors: A (r, in, *kernel) and B (out, r, 1, …).

    Of a convolution in groups B is (out, r/groups, 1, …).
    """
    return len(a) == len(b) > 2 and set(b[2:]) == {1} and b[1] > 0 and a[0] % b[1] == 0


def as_matrices(shape: ModuleShape, a: ArrayT, b: ArrayT) -> tuple[ArrayT, ArrayT]:
    """Return the factors of the file, arrays of NumPy or torch, as ``b (E, out, r)`` and ``a (E, r, in)``.

    E is 1, or how many experts there are; a convolution's kernel counts as input.
    """
    if shape.stacked:
        return b, a
    if shape.kind == ModuleKind.EXPERTS:
        b = b.reshape(shape.out, shape.rank, shape.matrices).swapaxes(0, 2).swapaxes(1, 2)
        return b, a.reshape(shape.matrices, shape.rank, shape.in_)
    return b.reshape(1, shape.out, shape.rank), a.reshape(1, shape.rank, shape.in_)


def _shape_of(tensors: Mapping[str, Tensor], part: str) -> tuple[int, ...] | None:
    return tensors[part].shape if part in tensors else None
