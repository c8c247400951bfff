"""How far the outputs of a merge are from those of each task's own adapter, from moments: nothing is evaluated.

The error of a merged delta D on task t is ``Σ E‖(D − Δₜ)x‖²`` over the modules, x what a module sees of the text of t.
Of deltas in the row space of the sources, ``Δ = B·A_cat`` with B (out, k), it follows from the cross moments
``Kₜ = E[(A_cat x)(A_cat x)ᵀ]`` alone: ``⟨Δ, Δ'⟩ₜ = tr(B Kₜ B'ᵀ)``.

Suffixes: t tasks, j and l deltas, k rows of A_cat, o out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from loreg.algebra.decompositions import pinv
from loreg.algebra.factors import Factors
from loreg.errors import UsageError
from loreg.merging.inputs import MergeInput
from loreg.merging.sources import OpenSource, open_sources
from loreg.merging.stored_moments import read_cross_moments

_ZERO = 1e-10  # of the largest singular value of A_cat: what is not larger is rounding
_OUTSIDE = 1e-3  # of a delta's length: more outside of the row space is not rounding


class OutputProducts:
    """The inner products of the outputs of deltas on the text of each of T tasks, one task for each source.

    Raises UsageError for sources without moments and for a file of other sources, NotFoundError, IntegrityError.
    """

    def __init__(self, inputs: Sequence[MergeInput], path: Path) -> None:
        with open_sources(inputs, 0) as sources:
            moments = read_cross_moments(path, sources, every_task=True)
            self._modules = {name: _Module(name, sources, of_tasks) for name, of_tasks in moments.items()}
        self.count = len(inputs)

    def products(self, merged: Sequence[Mapping[str, Factors]] = ()) -> Tensor:
        """Return ``Σ ⟨Δⱼ, Δₗ⟩ₜ`` (T, K + n, K + n) over the modules: the K sources, then n merged adapters.

        Raises UsageError, naming the module, for a merged delta outside of the row space of the sources.
        """
        size = self.count + len(merged)
        total = torch.zeros(self.count, size, size, dtype=torch.float64)
        for module in self._modules.values():
            deltas = [*module.sources, *map(module.in_row_space, merged)]
            b_jok = torch.stack(deltas)
            weighed_tjok = torch.einsum("jok,tkl->tjol", b_jok, module.moments)
            total += torch.einsum("tjok,lok->tjl", weighed_tjok, b_jok)
        return total


class _Module:
    """One module: A_cat, the moments of each task, and the sources' deltas as ``B (out, k)`` on A_cat."""

    def __init__(self, name: str, sources: Sequence[OpenSource], moments: Tensor) -> None:
        self.name, self.moments = name, moments
        parts = [source.factors(name, torch.device("cpu")) if name in source.modules else None for source in sources]
        self._a_cat = torch.cat([part.a[0] for part in parts if part is not None]).double()
        rows = [part.rank if part is not None else 0 for part in parts]
        out = next(part.b.shape[-2] for part in parts if part is not None)
        self.sources = []
        for t, part in enumerate(parts):
            b = torch.zeros(out, len(self._a_cat), dtype=torch.float64)
            if part is not None:
                b[:, sum(rows[:t]) : sum(rows[: t + 1])] = part.b[0]
            self.sources.append(b)

    @cached_property
    def _inverse(self) -> Tensor:
        return pinv(self._a_cat, _ZERO)

    def in_row_space(self, merged: Mapping[str, Factors]) -> Tensor:
        """Return B (out, k) of a merged adapter's delta. Raises UsageError if it is not ``B·A_cat``."""
        if self.name not in merged:
            return torch.zeros_like(self.sources[0])
        b, a = merged[self.name].b.double(), merged[self.name].a.double()
        on_rows = a @ self._inverse
        if (b @ (a - on_rows @ self._a_cat)).norm() > _OUTSIDE * (b @ a).norm():
            raise UsageError(
                f"the delta of {self.name} is not in the rows of the adapters: moments do not say what it does",
                hint="--method linear",
            )
        return b @ on_rows
