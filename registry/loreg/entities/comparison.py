"""What a comparison of adapters returns: its pairs, as a tuple that can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from loreg.entities.results import AdapterSimilarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class AdapterComparison(tuple[AdapterSimilarity, ...]):
    """How alike every two of n adapters are: a tuple of n·(n − 1)/2 pairs, in the order of combinations."""

    __slots__ = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The n adapters, in their order, as they were named; two may have one name."""
        count = next(count for count in range(1, len(self) + 2) if count * (count - 1) // 2 == len(self))
        return (self[0].a, *(pair.b for pair in self[: count - 1])) if self else ()

    def matrix(self, figure: str) -> list[list[float]]:
        """Return one figure of the pairs, ``cosine``, ``left_overlap`` and so on, as a symmetric matrix (n, n).

        On its diagonal, where there is no pair, it has 1.
        """
        matrix = [[1.0] * len(self.labels) for _ in self.labels]
        for (i, j), pair in zip(combinations(range(len(self.labels)), 2), self, strict=True):
            matrix[i][j] = matrix[j][i] = getattr(pair, figure)
        return matrix

    def reorder(self, order: Sequence[int]) -> AdapterComparison:
        """Return the same comparison with the adapters in another order, given as the places that they have in this.

        >>> AdapterComparison().reorder([])
        AdapterComparison(empty)
        """
        by_place = dict(zip(combinations(range(len(self.labels)), 2), self, strict=True))
        places = combinations(order, 2)
        return AdapterComparison(by_place[i, j] if i < j else by_place[j, i].exchange() for i, j in places)

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each pair. Raises MissingExtraError without pandas."""
        from loreg.entities.display.frames import to_frame

        return to_frame(self, AdapterSimilarity)

    def plot(self) -> Figure:
        """Draw cosines and overlaps as heat maps; return the figure. Raises MissingExtraError without matplotlib."""
        from loreg.entities.display.pictures import import_figures

        figure: Figure = import_figures().draw_comparison(self)
        return figure

    def __repr__(self) -> str:
        from loreg.entities.display.text import describe

        return describe(self)

    def _repr_html_(self) -> str:
        from loreg.entities.display.html import render

        return render(self)
