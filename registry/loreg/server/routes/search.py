"""Routes that find versions, and say what there is to be found: tasks, bases, metrics."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from msgspec.structs import replace

from loreg.entities import (
    BaseSummary,
    Facets,
    MetricDeclared,
    MetricSummary,
    MetricVocabulary,
    Page,
    SearchPage,
    SearchWords,
    Selection,
    TaskSummary,
)
from loreg.entities import Query as Search
from loreg.parsing import parse_comparison, parse_label, parse_metric_condition, parse_order
from loreg.schemas import MetricDirection
from loreg.selectors import parse_selector
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit, Word, Words
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses, json_response
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
    namespace: Annotated[str, Query(max_length=96, description="Or - for adapters that have none.")] = "",
    author: Annotated[str, Query(max_length=128)] = "",
    variant: Annotated[str, Query(max_length=32)] = "",
    loads_in: Annotated[str, Query(max_length=32, description="A server that takes them, as vllm.")] = "",
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
        namespace=namespace,
        author=author,
        variant=variant,
        loads_in=loads_in,
        all_versions=all_versions,
    )


MetricName = Annotated[str, Path(max_length=128, description="The metric's name.")]
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
    query = _in_order(conditions, sort, best)

    def fetch(limit: int, cursor: str | None) -> Awaitable[SearchPage]:
        return backend.search(replace(query, limit=limit, cursor=cursor))

    return await page_response(fetch, limit, cursor)


@routes.get("/selection", response_model=Selection, responses=error_responses(409))
async def selection(
    backend: AsyncBackendDep,
    conditions: QueryDep,
    select: Annotated[tuple[Word, ...], Query(max_length=1000, description="As 'team/*:prod'.")] = (),
    sort: Annotated[str, Query(max_length=512)] = "",
    best: Annotated[str, Query(max_length=512, description="Of each adapter the version best by this metric.")] = "",
) -> Response:
    """Return the versions that the selectors mean now, or without any those that a search finds, one of each adapter.

    Each has a position, which grows when what is meant changes: an answer with a lower one is older.
    """
    if select:
        return json_response(await backend.select(tuple(map(parse_selector, select))))
    return json_response(await backend.select((), _in_order(conditions, sort, best)))


def _in_order(conditions: Search, sort: str, best: str) -> Search:
    return replace(conditions, sort=parse_order(sort, best, conditions.text), best=bool(best))


@routes.get("/facets", response_model=Facets, responses=error_responses())
async def facets(backend: AsyncBackendDep, conditions: QueryDep) -> Response:
    """Count what the versions of a search have: tasks, bases, ranks, modules, servers that take them, metrics, …."""
    return json_response(await backend.facets(conditions))


@routes.get("/tasks", response_model=Page[TaskSummary], responses=error_responses())
async def tasks(backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of the tasks of what the caller may read, those of the most versions first."""
    return await page_response(backend.task_summaries, limit, cursor)


@routes.get("/base-summaries", response_model=Page[BaseSummary], responses=error_responses())
async def base_summaries(backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of the bases of what the caller may read, also those known by name only, the most used first."""
    return await page_response(backend.base_summaries, limit, cursor)


@routes.get("/metrics", response_model=Page[MetricSummary], responses=error_responses())
async def metrics(backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of what is measured on what in what the caller may read, with the best number of each."""
    return await page_response(backend.metric_summaries, limit, cursor)


@routes.get("/search-words", response_model=SearchWords, responses=error_responses())
async def search_words(backend: AsyncBackendDep) -> Response:
    """Return the tasks, bases, modules and metrics of what the caller may read, for completion."""
    return json_response(await backend.search_words())


@routes.get("/metric-names", response_model=MetricVocabulary, responses=error_responses())
async def metric_names(backend: AsyncBackendDep) -> Response:
    """Return the names of the metrics of what the caller may read, and what is declared of metrics."""
    return json_response(await backend.metric_vocabulary())


@routes.put("/metrics/{name:path}", response_model=MetricDeclared, responses=error_responses(404))
async def declare_metric(name: MetricName, body: MetricDirection, backend: AsyncBackendDep) -> Response:
    """Declare which direction of a metric is better, and its unit; for administrators of everything."""
    return json_response(await backend.declare_metric(name, body.higher_is_better, body.unit))
