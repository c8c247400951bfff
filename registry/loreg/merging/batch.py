"""What a merge method is given: n modules of one shape, with the factors that the sources have for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from loreg.algebra.factors import Factors, Stack, squared_norm
from loreg.algebra.frames import FramedStack, frame_stack

#: By a source's position in the recipe: the magnitudes that bound the entries of it that are kept.
Thresholds = Mapping[int, tuple[Tensor, ...]]


@dataclass(frozen=True)
class Batch:
    """n modules of one shape, and the T sources that have them.

    ``weights`` is (n, T). ``positions`` says which of the recipe's sources the T are; random draws are a function of
    ``digests`` (T) and ``modules`` (n). At most ``rank`` singular values will be kept; None if that is not known.
    ``thresholds`` is what the method's ``calibrate`` found. ``moments`` (n, T, k, k) are those of the inputs of each
    source's task, seen through all rows of ``stack.a``; None without data.
    """

    stack: Stack
    weights: Tensor
    positions: tuple[int, ...]
    digests: tuple[str, ...]
    modules: tuple[str, ...]
    rank: int | None = None
    thresholds: Thresholds | None = None
    moments: Tensor | None = None
    _framed: FramedStack | None = field(default=None, init=False, repr=False)

    @property
    def framed(self) -> FramedStack:
        """The stack in orthonormal frames, made at the first call."""
        # Not a cached_property: before Python 3.12 that holds one lock for all instances, and batches run in threads.
        if self._framed is None:
            object.__setattr__(self, "_framed", frame_stack(self.stack))
        return cast(FramedStack, self._framed)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of each delta, (out, in)."""
        return Factors(self.stack.b, self.stack.a).shape

    def norms(self) -> Tensor:
        """Return ``‖deltaₜ‖``, (n, T)."""
        return torch.stack([squared_norm(part).sqrt() for part in self.framed.sources()], dim=-1)


#: Yields all batches of a merge, made again at every call: what a method's ``calibrate`` is given.
Batches = Callable[[], Iterator[Batch]]
