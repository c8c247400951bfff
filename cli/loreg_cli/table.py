"""Lay a table out: what gives way where a terminal is too narrow, and what never does.

Come here to change how tables look. First prose ends in …, then columns that were declared droppable go, then lists
wrap between their items, then names behind a slash; where even so a single word is too long, each row becomes a block
of lines. A name that the next command needs is never cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import click

_GAP = 2  # spaces between two columns
_ROOMY_PROSE = 24  # columns that a text keeps while another column can go instead
_CRAMPED_PROSE = 12  # and when no other can
#: Texts whose characters all are one column wide: Latin, and the arrow of aliases.
_NARROW = re.compile("[ -\u02ff→]*")


class Column(NamedTuple):
    """One column: ``is_prose`` may end in …; ``drops`` says when it may go, 0 the first, None for never.

    With ``has_paths`` its words may be broken behind a slash and before an @; nobody copies them from here.
    """

    name: str
    is_right: bool = False
    is_prose: bool = False
    drops: int | None = None
    has_paths: bool = False


class Breaks(IntEnum):
    """Where the cells of a table may be broken into lines, when no more columns can go."""

    NONE = 0
    BETWEEN_ITEMS = 1
    IN_PATHS = 2


class Table:
    """Columns and rows of one table; without ``truncate`` prose wraps instead of ending in …."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, truncate: bool = True) -> None:
        self.columns = columns
        self.rows = rows
        self.truncate = truncate
        #: The names of the columns for which there was no room, once it is rendered.
        self.left_out: list[str] = []
        self._natural = [max(1, *map(measure_width, self._cells(i))) for i in range(len(columns))]

    def render(self, width: int | None) -> list[str]:
        """Return lines of at most ``width`` terminal columns; None is for as many as the table needs."""
        shown = list(range(len(self.columns)))
        if width is None or _total(self._natural, shown) <= width:
            return self._lines(shown, self._natural)
        shown = [i for i in shown if any(row[i] for row in self.rows)]
        for breaks in Breaks:
            least = [self._least_width(i, breaks) for i in range(len(self.columns))]
            while _total(least, shown) > width and (droppable := self._droppable(shown)):
                shown.remove(droppable[0])
                self.left_out.append(self.columns[droppable[0]].name)
            if _total(least, shown) <= width:
                return self._lines(shown, self._share_out(least, shown, width), breaks)
        self.left_out.clear()
        return self._blocks(width)

    def _cells(self, i: int) -> list[str]:
        return [self.columns[i].name, *(row[i] for row in self.rows)]

    def _droppable(self, shown: Sequence[int]) -> list[int]:
        """Return the columns that may go, the first to go first."""
        orders = [(order, i) for i in shown if (order := self.columns[i].drops) is not None]
        return [i for _, i in sorted(orders)]

    def _least_width(self, i: int, breaks: Breaks) -> int:
        """Return the fewest terminal columns that a column can do with."""
        longest_piece = max(
            measure_width(piece.rstrip()) for cell in self._cells(i) for piece in self._pieces(cell, i, breaks)
        )
        prose = _ROOMY_PROSE if breaks == Breaks.NONE else _CRAMPED_PROSE
        if self.columns[i].is_prose:
            least = max(prose, measure_width(self.columns[i].name), 0 if self.truncate else longest_piece)
            return min(self._natural[i], least)
        return longest_piece

    def _share_out(self, least: Sequence[int], shown: Sequence[int], width: int) -> list[int]:
        """Return widths from the least to the natural ones that use the room there is."""
        widths = list(least)
        while (spare := width - _total(widths, shown)) > 0:
            narrow = [i for i in shown if widths[i] < self._natural[i]]
            if not narrow:
                break
            for i in narrow[:spare]:
                widths[i] += min(max(1, spare // len(narrow)), self._natural[i] - widths[i])
        return widths

    def _lines(self, shown: Sequence[int], widths: Sequence[int], breaks: Breaks = Breaks.NONE) -> list[str]:
        header = self._join([[self.columns[i].name] for i in shown], shown, widths)[0]
        lines = [click.style(header, bold=True), "─" * _total(widths, shown)]
        for row in self.rows:
            lines += self._join([self._fit(row[i], i, widths[i], breaks) for i in shown], shown, widths)
        return lines

    def _join(self, cells: Sequence[Sequence[str]], shown: Sequence[int], widths: Sequence[int]) -> list[str]:
        """Return the lines of one row, whose cells may have several lines each."""
        lines = []
        for number in range(max(map(len, cells), default=0)):
            parts = []
            for i, cell in zip(shown, cells, strict=True):
                text = cell[number] if number < len(cell) else ""
                space = " " * (widths[i] - measure_width(text))
                parts.append(space + text if self.columns[i].is_right else text + space)
            lines.append((" " * _GAP).join(parts))
        return lines

    def _fit(self, cell: str, i: int, width: int, breaks: Breaks) -> list[str]:
        """Return the lines of a cell: cut where it is prose in too narrow a column, else wrapped."""
        if measure_width(cell) <= width:
            return [cell]
        if self.columns[i].is_prose and self.truncate:
            return [_cut(cell, width)]
        lines = [""]
        for piece in self._pieces(cell, i, breaks):
            if measure_width((lines[-1] + piece).rstrip()) <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
        return [line.rstrip() for line in lines if line]

    def _pieces(self, cell: str, i: int, breaks: Breaks) -> list[str]:
        """Return what a cell may be broken into, each with the space behind it."""
        if breaks == Breaks.IN_PATHS and self.columns[i].has_paths:
            return re.findall(r".+?(?:[ /]|(?=@)|$)", cell)
        if breaks != Breaks.NONE or self.columns[i].is_prose:
            return re.findall(r".+?, |.+$" if ", " in cell else r"\S+ ?", cell)
        return [cell]

    def _blocks(self, width: int) -> list[str]:
        """Return each cell that is not empty on lines of its own; a longer word is the terminal's to wrap."""
        label = max(measure_width(column.name) for column in self.columns) + _GAP
        lines: list[str] = []
        for row in self.rows:
            lines += [""] if lines else []
            for i, cell in enumerate(row):
                name = self.columns[i].name
                for line in self._fit(cell, i, width - label, Breaks.BETWEEN_ITEMS) if cell else ():
                    lines.append(click.style(name, bold=True) + " " * (label - measure_width(name)) + line)
                    name = ""
        return lines


def measure_width(text: str) -> int:
    """Return how many columns of a terminal the text takes: two for each CJK character, none for an accent."""
    if _NARROW.fullmatch(text):
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[i] for i in shown) + _GAP * (len(shown) - 1)


def _cut(text: str, width: int) -> str:
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1).rstrip() + "…"
