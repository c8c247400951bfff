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
    """Draw the cosines and the subspace overlaps of every pair, in the order of combinations, as heat maps."""
    size = max(4.0, 0.5 * len(labels) + 2.5)
    figure = Figure(figsize=(3 * size, size), layout="constrained")
    panels = (
        ("cosine of the deltas", "RdBu_r", -1, [pair.cosine for pair in pairs]),
        ("overlap of the column spaces", "viridis", 0, [pair.left_overlap for pair in pairs]),
        ("overlap of the row spaces", "viridis", 0, [pair.right_overlap for pair in pairs]),
    )
    for number, (axes, (title, colormap, low, values)) in enumerate(zip(figure.subplots(1, 3), panels, strict=True)):
        matrix = [[1.0] * len(labels) for _ in labels]
        for (i, j), value in zip(combinations(range(len(labels)), 2), values, strict=True):
            matrix[i][j] = matrix[j][i] = value
        image = axes.imshow(matrix, cmap=colormap, vmin=low, vmax=1)
        axes.set_title(title)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels if number == 0 else [""] * len(labels))
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=_text_color(image, value))
        figure.colorbar(image, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=150)


def _text_color(image: Any, value: float) -> str:
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
