"""Draw a certificate or a comparison with matplotlib (extra ``plot``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from loreg.entities import AdapterSimilarity
from loreg.merging.documents import CertificateDocument

_PAGE_WIDTH = 9.0  # inches
_MAX_IN_A_ROW = 8  # adapters, so that three panels have room for their names
_MAX_NUMBERED = 12  # adapters, so that a number has room in its cell
_MAX_LINES = 400  # modules drawn one by one; of more, every n-th


def draw_certificate(path: Path, certificate: CertificateDocument, sigmas: Mapping[str, Sequence[float]]) -> None:
    """Draw the spectrum of every module and the error that each rank would leave; the file's suffix is its format."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    spectra = list(sigmas.values())
    for values in spectra[:: math.ceil(len(spectra) / _MAX_LINES)]:
        positive = [value for value in values if value > 0]
        alpha = max(0.15, 1 / len(spectra))
        left.plot(range(1, len(positive) + 1), positive, color="tab:blue", alpha=alpha, linewidth=1)
    left.set(yscale="log", xlabel="i", ylabel="σᵢ", title=f"singular values of {len(spectra)} modules")
    total = certificate["total"]
    ranks, errors = _errors_by_rank(certificate, spectra)
    right.plot(ranks, errors, color="tab:blue", linewidth=1.5)
    right.axvline(
        total["rank"], color="tab:orange", linewidth=1, label=f"rank {total['rank']}: ε = {total['epsilon']:.2g}"
    )
    right.set(xlabel="rank", ylabel="ε of all modules", title="error against rank", ylim=(0, 1.02), xlim=(0, ranks[-1]))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=150)


def _errors_by_rank(
    certificate: CertificateDocument, spectra: Sequence[Sequence[float]]
) -> tuple[list[int], list[float]]:
    """Return the ranks 0, 1, 2, … and ε of all modules together if each were truncated at that rank."""
    energy = certificate["total"]["norm"] ** 2
    max_rank = max(len(values) for values in spectra)
    kept = [sum(values[i] ** 2 for values in spectra if i < len(values)) for i in range(max_rank)]
    lost, errors = energy, [1.0]
    for energy_of_rank in kept:
        lost -= energy_of_rank
        errors.append(math.sqrt(max(lost, 0.0) / energy) if energy else 0.0)
    return list(range(max_rank + 1)), errors


def draw_comparison(path: Path, labels: Sequence[str], pairs: Sequence[AdapterSimilarity]) -> None:
    """Draw the cosines and the subspace overlaps of every pair, in the order of combinations, as heat maps.

    Of many adapters the cosines come first and large, the overlaps below them in the same order, without their names.
    Adapters that are nearly the same and stand side by side are framed.
    """
    panels = (
        ("cosine of the deltas", "RdBu_r", -1, [pair.cosine for pair in pairs]),
        ("overlap of the column spaces", "viridis", 0, [pair.left_overlap for pair in pairs]),
        ("overlap of the row spaces", "viridis", 0, [pair.right_overlap for pair in pairs]),
    )
    if len(labels) > _MAX_IN_A_ROW:
        figure = Figure(figsize=(_PAGE_WIDTH, 1.45 * _PAGE_WIDTH), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=[2.1, 1])
        places: Any = [figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])]
    else:
        size = max(4.0, 0.5 * len(labels) + 2.5)
        figure = Figure(figsize=(3 * size, size), layout="constrained")
        places = figure.subplots(1, 3)
    for number, (axes, (title, colormap, low, values)) in enumerate(zip(places, panels, strict=True)):
        matrix = [[1.0] * len(labels) for _ in labels]
        for (i, j), value in zip(combinations(range(len(labels)), 2), values, strict=True):
            matrix[i][j] = matrix[j][i] = value
        image = axes.imshow(matrix, cmap=colormap, vmin=low, vmax=1)
        axes.set_title(title)
        _label_axes(axes, labels, is_first=number == 0)
        if len(labels) <= _MAX_NUMBERED:
            for i, row in enumerate(matrix):
                for j, value in enumerate(row):
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=_text_color(image, value))
        elif number == 0:
            _frame_near_duplicates(axes, len(labels), pairs)
        figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=150)


def _label_axes(axes: Any, labels: Sequence[str], *, is_first: bool) -> None:
    """Name the rows and columns; where there are many, those of the first panel alone."""
    places = range(len(labels))
    if len(labels) > _MAX_IN_A_ROW and not is_first:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    rotation = 45 if len(labels) <= _MAX_NUMBERED else 90
    axes.set_xticks(places, labels, rotation=rotation, ha="right" if rotation == 45 else "center")
    axes.set_yticks(places, labels if is_first else [""] * len(labels))
    if len(labels) > _MAX_NUMBERED:
        axes.tick_params(labelsize=max(4.0, min(9.0, 280 / len(labels))))


def _frame_near_duplicates(axes: Any, count: int, pairs: Sequence[AdapterSimilarity]) -> None:
    """Draw a square round each run of neighbours of which each is nearly the same as the one before."""
    from matplotlib.patches import Rectangle

    near = {place for place, pair in zip(combinations(range(count), 2), pairs, strict=True) if pair.near_duplicate}
    start = 0
    for end in range(1, count + 1):
        if end < count and (end - 1, end) in near:
            continue
        if end - start > 1:
            size = end - start
            axes.add_patch(
                Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor="black", linewidth=2)
            )
        start = end


def _text_color(image: Any, value: float) -> str:
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
