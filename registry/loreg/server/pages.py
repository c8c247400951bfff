"""Pages: as many items as were asked for, or fewer if they are large, for a page is made in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from fastapi import Response

from loreg.catalog import Catalog
from loreg.entities import Page

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_AT_ONCE = 50
_MOST_BYTES = 4 * 1024 * 1024


async def page_of(
    catalog: Catalog, fetch: Callable[[int, str | None], Page[T]], limit: int, cursor: str | None
) -> Response:
    """The page that ``fetch`` gives for a limit and a cursor, as a response of about four megabytes at most.

    The catalog is asked for 50 items at a time: most often once. At least one item is in a page, however large.
    """
    found: list[T] = []
    room = _MOST_BYTES
    while len(found) < limit:
        page = await catalog.run_async(fetch, min(_AT_ONCE, limit - len(found)), cursor)
        content = _encoder.encode(page)
        if len(content) > room:
            fitting = max(_fitting(page, room), 0 if found else 1)
            if fitting:
                page = await catalog.run_async(fetch, fitting, cursor)
                found, cursor = [*found, *page.items], page.cursor
            break
        if not found and (page.cursor is None or len(page.items) == limit):
            return Response(content, media_type="application/json")
        found, cursor, room = [*found, *page.items], page.cursor, room - len(content)
        if cursor is None:
            break
    return Response(_encoder.encode(Page(tuple(found), cursor)), media_type="application/json")


def _fitting(page: Page[T], room: int) -> int:
    """How many items of the page, its first, there is room for."""
    for count, item in enumerate(page.items):
        room -= len(_encoder.encode(item))
        if room < 0:
            return count
    return len(page.items)
