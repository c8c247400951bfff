"""Modules in rows and columns: a row for each kind of module, a column for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from loreg.value import Value


class LayerGrid(Value, frozen=True):
    """Where modules lie: ``places`` has the row and the column of each, in the order in which they were named."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    def fill(self, values: Sequence[float | None]) -> list[list[float]]:
        """Return the grid with a value for each module; NaN where there is no module, or its value is None."""
        cells = [[float("nan")] * len(self.columns) for _ in self.rows]
        for (row, column), value in zip(self.places, values, strict=True):
            cells[row][column] = float("nan") if value is None else value
        return cells


def lay_out_by_layer(modules: Sequence[str]) -> LayerGrid:
    """Take the first number in a module's name for its layer, and the rest, without what all share, for its kind.

    >>> grid = lay_out_by_layer(["model.layers.0.q_proj", "model.layers.10.q_proj", "model.layers.0.v_proj"])
    >>> grid.rows, grid.columns, grid.places
    (('q_proj', 'v_proj'), ('0', '10'), ((0, 0), (0, 1), (1, 0)))
    """
    split = [_split_layer(name) for name in modules]
    kinds = list(dict.fromkeys(kind for kind, _ in split))
    layers = sorted({layer for _, layer in split})
    places = tuple((kinds.index(kind), layers.index(layer)) for kind, layer in split)
    parents = zip(*(kind.split(".")[:-1] for kind in kinds), strict=False)
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, parents))
    rows = tuple(".".join(kind.split(".")[shared:]) for kind in kinds)
    return LayerGrid(rows, tuple("–" if layer < 0 else str(layer) for layer in layers), places)


def _split_layer(module: str) -> tuple[str, int]:
    """Return the name with ``*`` for its first number, and that number; -1 for a name without one."""
    parts = module.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    if place is None:
        return module, -1
    return ".".join([*parts[:place], "*", *parts[place + 1 :]]), int(parts[place])
