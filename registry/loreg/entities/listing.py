"""Every item of a listing, page after page: what ``all`` of a page returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic

from loreg.entities.queries import Page, T

if TYPE_CHECKING:
    from pandas import DataFrame


class WholeListing(Generic[T]):
    """Every item of a listing, from its first page on; each iteration fetches the later pages anew."""

    def __init__(self, first: Page[T], kind: type[T] | None, fetch: Callable[[str], Page[T]] | None) -> None:
        """Go on from the page ``first`` with those that ``fetch`` returns; only a last page needs none."""
        self._first, self._kind, self._fetch = first, kind, fetch

    def __iter__(self) -> Iterator[T]:
        page = self._first
        yield from page.items
        while self._fetch is not None and page.cursor is not None:
            page = self._fetch(page.cursor)
            yield from page.items

    def __repr__(self) -> str:
        return f"WholeListing(from {self._first!r} on)"

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each item; fetches every page. Raises MissingExtraError without pandas."""
        from loreg.entities.display.frames import to_frame

        return to_frame(tuple(self), self._kind)
