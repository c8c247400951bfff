"""Lay out how alike versions are as a square of colours and numbers, which a template draws as SVG."""

from __future__ import annotations

from loreg.entities import AdapterComparison
from loreg.entities.display.text import printable
from loreg.server.pages.heat_maps import STEPS
from loreg.value import Value

_CELL, _LABEL, _TOP = 42, 8, 22  # pixels: of a cell, of a character of a row's name, above the first row
_MAX_NAME = 28  # characters


class LikenessCell(Value, frozen=True):
    """A pair: where it lies, its number, its colour (``mark``), and what it says when it is pointed at."""

    x: int
    y: int
    mark: str
    text: str
    title: str


class LikenessMap(Value, frozen=True):
    """A square of ``width`` × ``height`` pixels, its ``rows`` named, its ``columns`` numbered; ``label`` says it."""

    width: int
    height: int
    cells: tuple[LikenessCell, ...]
    rows: tuple[tuple[int, str], ...]
    columns: tuple[tuple[int, str], ...]
    label: str


def draw_likeness(comparison: AdapterComparison, figure: str, what: str) -> LikenessMap:
    """Return the square of one figure of all pairs, between -1 and 1, called ``what``, in the order of comparison."""
    matrix, labels = comparison.matrix(figure), comparison.labels
    names = [printable(label, _MAX_NAME) for label in labels]
    left = _LABEL * (max(map(len, names)) + 3) + _LABEL
    cells = tuple(
        LikenessCell(
            left + j * _CELL,
            _TOP + i * _CELL,
            _mark(value),
            f"{value:.2f}",
            f"{what} of {printable(labels[i])} and {printable(labels[j])}: {value:.3f}",
        )
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
        if i != j
    )
    return LikenessMap(
        width=left + _CELL * len(names),
        height=_TOP + _CELL * len(names) + 2,
        cells=cells,
        rows=tuple((_TOP + i * _CELL + 25, f"{i + 1}. {name}") for i, name in enumerate(names)),
        columns=tuple((left + i * _CELL + _CELL // 2, str(i + 1)) for i in range(len(names))),
        label=f"{what} of every two of {len(names)} versions",
    )


def _mark(value: float) -> str:
    """Return the class of the colour: of those of a heat map, and one for all that is below zero."""
    return "below" if value < -0.005 else f"h{min(STEPS - 1, max(0, int(STEPS * value)))}"
