"""What a method gets to see: n modules of one shape, with the factors that the sources have for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from loreg.algebra.factors import Factors, Stack, squared_norm
from loreg.algebra.frames import Framed, framed


@dataclass(frozen=True)
class Batch:
    """n modules of one shape, and the T sources that have them.

    ``weights`` is (n, T). ``positions`` says which of the recipe's sources the T are, ``digests`` and ``modules``
    name them for random draws. At most ``rank`` singular values will be kept; None if that is not known.
    """

    stack: Stack
    weights: Tensor
    positions: tuple[int, ...]
    digests: tuple[str, ...]
    modules: tuple[str, ...]
    rank: int | None = None
    thresholds: Any = None
    _framed: Framed | None = field(default=None, init=False, repr=False)

    @property
    def framed(self) -> Framed:
        """The stack in orthonormal frames, made at the first call."""
        # Not a cached_property: before Python 3.12 that holds one lock for all instances, and batches run in threads.
        if self._framed is None:
            object.__setattr__(self, "_framed", framed(self.stack))
        return cast(Framed, self._framed)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of every delta here, (out, in)."""
        return Factors(self.stack.b, self.stack.a).shape

    def norms(self) -> Tensor:
        """``‖deltaₜ‖``, (n, T)."""
        return torch.stack([squared_norm(part).sqrt() for part in self.framed.sources()], dim=-1)

    def one_by_one(self) -> Iterator[Batch]:
        """The same, one module at a time."""
        for i, module in enumerate(self.modules):
            one = Stack(self.stack.b[i : i + 1], self.stack.a[i : i + 1], self.stack.ranks)
            yield Batch(
                one, self.weights[i : i + 1], self.positions, self.digests, (module,), self.rank, self.thresholds
            )


#: All batches of a merge, again at every call: what a method that looks at all modules first is given.
Batches = Callable[[], Iterator[Batch]]
