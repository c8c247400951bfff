"""Adapters as terms on the tensors of a base, read when they are needed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loreg.adapters.forms import matrices_of
from loreg.adapters.layout import Layout, Module
from loreg.baking.change import Term
from loreg.baking.numbers import FLOATS, Array, computed_in, read_tensor
from loreg.bases.touched import Part
from loreg.errors import MergeError


@dataclass(frozen=True, eq=False)
class Source:
    """An adapter that is baked in: its deltas times ``weight(module)``."""

    label: str
    digest: str
    layout: Layout
    weight: Callable[[str], float]

    def tensor(self, module: Module, part: str) -> Array:
        """The numbers of one tensor, in float32, or in float64 if that is what they are."""
        found = module.parts[part]
        if found.dtype not in FLOATS:
            raise MergeError(
                f"{self.label} cannot be baked: {found.name} is {found.dtype}, expected one of {', '.join(FLOATS)}",
                hint="convert its factors to one of these first",
            )
        descriptor = os.open(self.layout.weights, os.O_RDONLY)
        try:
            return read_tensor(descriptor, found, computed_in(found.dtype))
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Hit:
    """A part of one adapter that falls on a tensor, and whether that tensor is stored transposed."""

    source: Source
    part: Part
    transposed: bool


def terms_of(hits: Sequence[Hit]) -> Callable[[int], Sequence[Term]]:
    """The terms of each matrix of the tensor that the parts fall on."""
    return lambda matrix: [_term(hit, matrix) for hit in hits]


def bias_terms(sources: Sequence[tuple[Source, Module]]) -> Callable[[int], Sequence[Term]]:
    """``lora_bias``: the scaled biases of the adapters, on the base's bias as one row."""
    one = np.ones((1, 1), np.float32)
    return lambda matrix: [
        Term(one, np.atleast_2d(source.tensor(module, "bias")), module.scale, source.weight(module.name))
        for source, module in sources
    ]


def _term(hit: Hit, matrix: int) -> Term:
    part, module = hit.part, hit.part.module
    b, a = _factors(hit.source, module.name)
    number = matrix if part.matrix is None else part.matrix
    rows = slice(*part.rows) if part.rows else slice(None)
    p, q = b[number][rows], a[number]
    if hit.transposed:
        p, q = q.T, p.T
    magnitude = hit.source.tensor(module, "magnitude").reshape(-1) if "magnitude" in module.parts else None
    return Term(p, q, module.scale, hit.source.weight(module.name), magnitude, hit.transposed)


@functools.lru_cache(maxsize=8)
def _factors(source: Source, name: str) -> tuple[Array, Array]:
    """``b (E, out, r)`` and ``a (E, r, in)`` of one module, without the scale."""
    module = source.layout.modules[name]
    assert module.form is not None  # noqa: S101  parts are made of modules that have one
    a_part, b_part = module.form.parts
    return matrices_of(module.form, source.tensor(module, a_part), source.tensor(module, b_part))
