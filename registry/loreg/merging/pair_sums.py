"""Sum up over modules how alike two deltas are, and tell it of both adapters: no torch, so that every room may."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.entities import AdapterSimilarity
from loreg.errors import MergeError

#: Of the largest singular value: what is not larger is rounding.
ROUNDING = 1e-12
_SAMPLE = 4096  # entries of each module whose signs are compared
_NEAR_DUPLICATE = 0.99  # cosine above which two deltas differ by noise


@dataclass
class PairSums:
    """Sums over the modules that two adapters x and y have, of which :func:`make_similarity` makes the figures.

    ``inner``, ``x`` and ``y`` are inner products of the deltas. ``left`` and ``right`` are what the spaces of their
    singular vectors share, of as many ``directions``. Of sampled entries that are zero in neither, ``signs``, so many
    are ``conflicts``.
    """

    modules: int = 0
    inner: float = 0.0
    x: float = 0.0
    y: float = 0.0
    left: float = 0.0
    right: float = 0.0
    directions: int = 0
    conflicts: int = 0
    signs: int = 0


def make_similarity(a: str, b: str, sums: PairSums) -> AdapterSimilarity:
    """Return how alike two adapters are, called ``a`` and ``b``. Raises MergeError if they share no module."""
    if not sums.modules:
        raise MergeError(f"{a} and {b} have no module in common", hint="loreg show tells their modules")
    norms = math.sqrt(sums.x), math.sqrt(sums.y)
    cosine = sums.inner / (norms[0] * norms[1]) if all(norms) else 0.0
    return AdapterSimilarity(
        a=a,
        b=b,
        modules=sums.modules,
        cosine=max(-1.0, min(1.0, cosine)),
        left_overlap=sums.left / sums.directions if sums.directions else 0.0,
        right_overlap=sums.right / sums.directions if sums.directions else 0.0,
        sign_conflict=sums.conflicts / sums.signs if sums.signs else 0.0,
        norm_ratio=norms[1] / norms[0] if norms[0] else None,
        near_duplicate=cosine > _NEAR_DUPLICATE,
    )


def sample_entries(module: str, out: int, in_: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows and the columns of entries of a module (out, in), which are the same for every adapter.

    By a Mersenne Twister, seeded with the module's name: the draws that ``torch.randint`` makes on a CPU.
    """
    key = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "little")
    content = np.random.RandomState((key >> 1) & 0xFFFFFFFF).bytes(2 * 4 * _SAMPLE)
    rows, columns = np.frombuffer(content, "<u4").astype(np.int64).reshape(2, _SAMPLE)
    return rows % out, columns % in_
