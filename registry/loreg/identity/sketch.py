"""The sketch of an adapter: a few numbers whose products estimate those of the deltas of two adapters.

s_j = Σ scale · u_jᵀ B A v_j over all modules, with random u_j and v_j of ±1 (:mod:`loreg.identity.probes`). The
expectation of s_j s'_j is ⟨Δ, Δ'⟩ (Johnson and Lindenstrauss 1984, for rank-one probes), and the sketch of a weighted
sum of deltas is that sum of their sketches. It does not depend on how a delta is factored, nor on its dtype beyond
rounding.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.structure import AdapterStructure
from loreg.entities import Sketch
from loreg.errors import UsageError
from loreg.identity.blas import one_blas_thread
from loreg.identity.factors import open_factors
from loreg.identity.probes import PROBES, project

Array = NDArray[Any]
_CHUNK = 4 * 1024 * 1024  # bytes


def sketch_adapter(structure: AdapterStructure) -> Sketch:
    """Sketch the adapter in a folder; every factor is read once.

    Full tensors, biases and DoRA's magnitudes are not in it. One that has a module whose factors cannot be read, or
    of which a number is not finite as a 32-bit float, has no vector.
    """
    total, energy = np.zeros(PROBES), 0.0
    with one_blas_thread(), open_factors(structure) as file, np.errstate(over="ignore", invalid="ignore"):
        modules = file.modules
        for name in modules:
            factors = file.read(name)
            for matrix, (b, a) in enumerate(zip(factors.b, factors.a, strict=True)):
                left, right = project(b, name, "out", matrix), project(a.T, name, "in", matrix)
                total += factors.scale * np.einsum("kr,kr->k", left, right)
                energy += factors.scale * factors.scale * float(((b.T @ b) * (a @ a.T)).sum())
    norm = math.sqrt(max(energy, 0.0))
    data = digest_of_data(structure.weights)
    with np.errstate(over="ignore"):
        is_finite = math.isfinite(norm) and bool(np.isfinite(total.astype("<f4")).all())
    if len(modules) < len(structure.modules) or not is_finite:
        return Sketch(data, 0.0, "")
    return Sketch(data, norm, encode_vector(total))


def digest_of_data(weights: Path) -> str:
    """Return the sha256 of all that follows the header of a file: AutoV3, which new metadata does not change."""
    hasher = hashlib.sha256()
    with weights.open("rb") as stream:
        stream.seek(8 + int.from_bytes(stream.read(8), "little"))
        while chunk := stream.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def encode_vector(vector: Array) -> str:
    """Return a sketch's numbers (256) as text: base64 of float32, little-endian."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def decode_vector(text: str) -> Array:
    """Return the numbers (256) of a sketch's text in float64. Raises UsageError for any other text."""
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    except ValueError as error:
        raise UsageError("a sketch is not base64 of 32-bit floats", hint="leave it out") from error
    if vector.shape != (PROBES,) or not np.isfinite(vector).all():
        raise UsageError(f"a sketch has {vector.size} numbers, expected {PROBES} that are finite", hint="leave it out")
    return vector


def sign_words(vector: Array) -> tuple[int, ...]:
    """Return the signs of a sketch's numbers in four signed integers of 64 bits: a bit is set below zero."""
    packed = np.packbits(vector < 0, bitorder="little").view("<i8")
    return tuple(int(word) for word in packed)


def cosine(one: Array, other: Array) -> float:
    """Estimate the cosine of two deltas by their sketches: off by 1/16 or so for strangers, exact for equal ones."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0


def cosines_with(vector: Array, texts: Sequence[str]) -> Array:
    """Return the estimated cosines (n) of one sketch's numbers with those of n texts that were stored."""
    matrix = np.frombuffer(b"".join(map(base64.b64decode, texts)), "<f4").reshape(-1, PROBES).astype(np.float64)
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
    cosines: Array = np.divide(matrix @ vector, norms, out=np.zeros(len(texts)), where=norms > 0)
    return cosines
