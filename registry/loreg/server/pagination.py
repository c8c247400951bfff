"""Answer with pages: as many items as were asked for, or fewer if they are large, for a page is built in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from fastapi import Response

from loreg.entities import Page

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_BATCH_SIZE = 50  # items that the catalog is asked for at once
_MAX_BYTES = 4 * 1024 * 1024


async def page_response(
    fetch: Callable[[int, str | None], Awaitable[Page[T]]], limit: int, cursor: str | None
) -> Response:
    """Answer with the page that ``fetch`` returns for a limit and a cursor, of about four megabytes at most.

    The catalog is asked for 50 items at a time, which is most often once. A page has at least one item, however large.
    What it says beside its items is what the last of these answers says.
    """
    items: list[T] = []
    room = _MAX_BYTES
    while len(items) < limit:
        page = await fetch(min(_BATCH_SIZE, limit - len(items)), cursor)
        content = _encoder.encode(page)
        if len(content) > room:
            count = max(_count_fitting(page, room), 0 if items else 1)
            if count:
                page = await fetch(count, cursor)
                items, cursor = [*items, *page.items], page.cursor
            break
        if not items and (page.cursor is None or len(page.items) == limit):
            return Response(content, media_type="application/json")
        items, cursor, room = [*items, *page.items], page.cursor, room - len(content)
        if cursor is None:
            break
    whole = msgspec.structs.replace(page, items=tuple(items), cursor=cursor)
    return Response(_encoder.encode(whole), media_type="application/json")


def _count_fitting(page: Page[T], room: int) -> int:
    """Return how many items from the start of the page fit into ``room`` bytes."""
    for count, item in enumerate(page.items):
        room -= len(_encoder.encode(item))
        if room < 0:
            return count
    return len(page.items)
