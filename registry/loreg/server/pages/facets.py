"""The page ``/facets``: what a search has, counted, each with the link that narrows it down; the browse page shows it.

To count takes ten times as long as to search, so the list of what was found does not wait for it.
"""

from __future__ import annotations

from collections import defaultdict

import msgspec
from fastapi import APIRouter, Request, Response

from loreg.entities import FacetCount, FacetKind, Facets, Query
from loreg.server.pages.browse import FACETS, ONE, Pairs, parse_query, read_pairs, replace_pair
from loreg.server.pages.commands import search_command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_TITLES = {
    FacetKind.TASK: "Task",
    FacetKind.BASE: "Base",
    FacetKind.RANK: "Rank",
    FacetKind.MODULE: "Module",
    FacetKind.VARIANT: "Variant",
    FacetKind.METRIC: "Best by metric",
}


class FacetLink(Value, frozen=True):
    """A value that can be chosen, or put back; ``path`` is the page after that."""

    value: str
    versions: int
    path: str
    is_chosen: bool


class FacetsView(Value, frozen=True):
    """What the page shows: the values of each kind, and the ``metrics`` that can be bounded."""

    query: Query
    best: str
    counted: Facets
    facets: tuple[tuple[str, tuple[FacetLink, ...]], ...]
    metrics: tuple[str, ...]
    hidden: tuple[tuple[str, str], ...]
    results_path: str


@routes.api_route(FACETS, methods=["GET", "HEAD"])
async def facets(request: Request) -> Response:
    """Show what a search has, counted."""
    pairs = [pair for pair in read_pairs(request) if pair[0] != "cursor"]
    visitor = await get_visitor(request)
    query, sort, best = parse_query(pairs)
    counted = await visitor.backend.facets(msgspec.structs.replace(query, cursor=None))
    view = FacetsView(
        query=query,
        best=best,
        counted=counted,
        facets=_link_facets(counted, pairs),
        metrics=tuple(count.value for count in counted.counts if count.kind == FacetKind.METRIC),
        hidden=tuple(pair for pair in pairs if pair[0] not in ("text", "sort", "best")),
        results_path=with_query("/", pairs),
    )
    conditions = [pair for pair in pairs if pair[0] not in ("sort", "best")]
    return page(
        visitor,
        "facets.html",
        title="Narrow down",
        view=view,
        command=search_command(query, sort, best),
        api=with_query("/api/v1/facets", conditions),
        document=counted,
    )


def _link_facets(facets: Facets, pairs: Pairs) -> tuple[tuple[str, tuple[FacetLink, ...]], ...]:
    by_kind: defaultdict[FacetKind, list[FacetCount]] = defaultdict(list)
    for count in facets.counts:
        if count.value:
            by_kind[count.kind].append(count)
    return tuple((_TITLES[kind], tuple(_link(count, pairs) for count in by_kind[kind])) for kind in by_kind)


def _link(count: FacetCount, pairs: Pairs) -> FacetLink:
    name = "best" if count.kind == FacetKind.METRIC else str(count.kind)
    value = f"={count.value}" if count.kind == FacetKind.RANK else count.value
    without = replace_pair(pairs, "sort", "") if name == "best" else pairs
    path = with_query("/", _toggle(without, name, value))
    return FacetLink(count.value, count.versions, path, (name, value) in pairs)


def _toggle(pairs: Pairs, name: str, value: str) -> Pairs:
    """Return the conditions without that one if it is there, else with it."""
    if (name, value) in pairs:
        return [pair for pair in pairs if pair != (name, value)]
    return replace_pair(pairs, name, value) if name in ONE else [*pairs, (name, value)]
