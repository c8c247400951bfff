"""Measure how alike adapters are, every two of them, from their factors, each read once: no torch.

With the canonical form ``Δ = U·diag(s)·Vᵀ`` of each delta, both figures follow from the small matrices ``UᵢᵀUⱼ`` and
``VᵢᵀVⱼ``: the inner product of two deltas, and how far the spaces of their singular vectors overlap.

Shapes: E matrices of a module (experts, else 1), out and in of it, r singular values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.entities import AdapterComparison
from loreg.identity.blas import one_blas_thread
from loreg.identity.factors import FactorFile
from loreg.merging.pair_sums import ROUNDING, PairSums, make_similarity, sample_entries
from loreg.previewing.joint_frames import read_balanced

Array = NDArray[Any]


@dataclass(frozen=True)
class _Delta:
    """``u (E, out, r)``, ``s (E, r)`` falling and ``v (E, in, r)`` of one delta, 0 where s is rounding; some entries.

    ``ranks`` (E) is how many singular values are not rounding.
    """

    u: Array
    s: Array
    v: Array
    ranks: Array
    entries: Array


def compare_files(files: Sequence[FactorFile], labels: Sequence[str]) -> AdapterComparison:
    """Compare every two adapters over the modules that both have, as ``loreg compare`` does; ``labels`` name them.

    Raises MergeError for two that have no module in common, and for numbers that are not finite.
    """
    sums: dict[tuple[int, int], PairSums] = defaultdict(PairSums)
    of_sources = [file.modules for file in files]
    with one_blas_thread():
        for name in sorted(set().union(*of_sources)):
            positions = [position for position, modules in enumerate(of_sources) if name in modules]
            if len(positions) > 1:
                deltas = {position: _read(files[position], labels[position], name) for position in positions}
                for i, j in combinations(positions, 2):
                    _add(sums[i, j], deltas[i], deltas[j])
    pairs = combinations(range(len(files)), 2)
    return AdapterComparison(make_similarity(labels[i], labels[j], sums[i, j]) for i, j in pairs)


def _read(file: FactorFile, label: str, name: str) -> _Delta:
    b, a = read_balanced(file, label, name)
    rows, columns = sample_entries(name, b.shape[1], a.shape[2])
    entries = (b[:, rows] * a.swapaxes(1, 2)[:, columns]).sum(-1)
    q_or, r_rr = np.linalg.qr(b)
    q_ir, l_rr = np.linalg.qr(a.swapaxes(1, 2))
    u_rr, s, vh_rr = np.linalg.svd(r_rr @ l_rr.swapaxes(1, 2), full_matrices=False)
    is_known = s > s[:, :1] * ROUNDING
    mask = is_known[:, None, :]
    return _Delta((q_or @ u_rr) * mask, s * is_known, (q_ir @ vh_rr.swapaxes(1, 2)) * mask, is_known.sum(1), entries)


def _add(sums: PairSums, x: _Delta, y: _Delta) -> None:
    # inner products
    left, right = x.u.swapaxes(1, 2) @ y.u, x.v.swapaxes(1, 2) @ y.v
    sums.modules += 1
    sums.inner += float((x.s[:, :, None] * left * right * y.s[:, None, :]).sum())
    sums.x += float(np.square(x.s).sum())
    sums.y += float(np.square(y.s).sum())
    # overlaps of the spaces that the singular vectors span
    sums.left += float(np.square(left).sum())
    sums.right += float(np.square(right).sum())
    sums.directions += int(np.minimum(x.ranks, y.ranks).sum())
    # signs of entries
    products = x.entries * y.entries
    sums.conflicts += int((products < 0).sum())
    sums.signs += int((products != 0).sum())
