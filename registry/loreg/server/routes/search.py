"""Routes that find versions."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from msgspec.structs import replace

from loreg.entities import Query as Search
from loreg.entities import SearchPage
from loreg.parsing import parse_comparison, parse_label, parse_metric_condition, parse_order
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit, Words
from loreg.server.pages import page_response
from loreg.server.responses import error_responses
from loreg.server.state import AsyncBackendDep

routes = APIRouter(prefix="/api/v1", tags=["versions"], route_class=BodyRoute)


async def get_query(
    text: Annotated[str, Query(max_length=512)] = "",
    task: Words = (),
    base: Annotated[str, Query(max_length=512)] = "",
    module: Words = (),
    rank: Words = (),
    metric: Words = (),
    label: Words = (),
    author: Annotated[str, Query(max_length=128)] = "",
    variant: Annotated[str, Query(max_length=32)] = "",
    all_versions: bool = False,
) -> Search:
    """Return the conditions, which are written as on the command line: ``metric=accuracy>=0.9``. Raises UsageError."""
    return Search(
        text=text,
        tasks=task,
        base=base,
        modules=module,
        ranks=tuple(map(parse_comparison, rank)),
        metrics=tuple(map(parse_metric_condition, metric)),
        labels=tuple(map(parse_label, label)),
        author=author,
        variant=variant,
        all_versions=all_versions,
    )


QueryDep = Annotated[Search, Depends(get_query)]


@routes.get("/search", response_model=SearchPage, responses=error_responses())
async def search(
    backend: AsyncBackendDep,
    conditions: QueryDep,
    sort: Annotated[str, Query(max_length=512)] = "",
    best: Annotated[str, Query(max_length=512, description="Of each adapter the version best by this metric.")] = "",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Search versions; conditions are written as on the command line: ``metric=accuracy>=0.9``. Returns a page."""
    query = replace(conditions, sort=parse_order(sort, best), best=bool(best))

    def fetch(limit: int, cursor: str | None) -> Awaitable[SearchPage]:
        return backend.search(replace(query, limit=limit, cursor=cursor))

    return await page_response(fetch, limit, cursor)
