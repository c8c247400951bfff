"""Lay out one number per module as a heat map, layer by layer, which a template draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping

from loreg.entities.display.layers import lay_out_by_layer
from loreg.entities.display.text import printable
from loreg.value import Value

STEPS = 6  # of colour
_MAX_CELLS = 4000
_CELL, _LABEL, _TOP = 18, 8, 18  # pixels: of a cell, of a character of a row's name, above the first row
_MAX_NAME = 30  # characters


class Cell(Value, frozen=True):
    """One module: where it lies, which colour it has, and what it says when it is pointed at."""

    x: int
    y: int
    step: int
    title: str


class HeatMap(Value, frozen=True):
    """A picture of ``width`` × ``height`` pixels; ``label`` says it in words, ``low`` and ``high`` are its ends."""

    width: int
    height: int
    cells: tuple[Cell, ...]
    rows: tuple[tuple[int, str], ...]
    columns: tuple[tuple[int, str], ...]
    label: str
    low: str
    high: str


def draw_heat_map(values: Mapping[str, float], what: str) -> HeatMap | None:
    """Return the map of a number by module, ``what`` it is in a word; None where there are none or too many."""
    if not 0 < len(values) <= _MAX_CELLS:
        return None
    grid = lay_out_by_layer(tuple(values))
    low, high = min(values.values()), max(values.values())
    left = _LABEL * min(_MAX_NAME, max(map(len, grid.rows))) + _LABEL
    cells = tuple(
        Cell(
            left + column * _CELL,
            _TOP + row * _CELL,
            _step(value, low, high),
            f"{printable(module)}: {what} {value:.4g}",
        )
        for (module, value), (row, column) in zip(values.items(), grid.places, strict=True)
    )
    apart = max(1, -(-len(grid.columns) // 40)) if len(grid.columns) <= 40 else 5
    return HeatMap(
        width=left + _CELL * len(grid.columns) + _CELL,
        height=_TOP + _CELL * len(grid.rows) + 2,
        cells=cells,
        rows=tuple((_TOP + i * _CELL + 13, printable(name, _MAX_NAME)) for i, name in enumerate(grid.rows)),
        columns=tuple((left + i * _CELL + _CELL // 2, name) for i, name in enumerate(grid.columns) if i % apart == 0),
        label=f"{what} of {len(values)} modules: {len(grid.rows)} kinds in {len(grid.columns)} layers, "
        + (f"from {low:.4g} to {high:.4g}" if high > low else f"all {low:.4g}"),
        low=f"{low:.4g}",
        high=f"{high:.4g}",
    )


def _step(value: float, low: float, high: float) -> int:
    """Return the number of the colour; one in the middle where all are the same."""
    return min(STEPS - 1, int(STEPS * (value - low) / (high - low))) if high > low else 2
