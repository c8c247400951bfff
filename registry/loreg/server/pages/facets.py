"""The page ``/facets``: what a search has, counted, each with the link that narrows it down; the browse page shows it.

To count takes ten times as long as to search, so the list of what was found does not wait for it.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict

import msgspec
from fastapi import APIRouter, Request, Response

from loreg.catalog.facet_counts import MAX_VALUES
from loreg.entities import FacetCount, FacetKind, Facets, MetricCondition, MetricRange, Query
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
    FacetKind.NAMESPACE: "Namespace",
    FacetKind.LOADS_IN: "Loads in",
    FacetKind.METRIC: "Best by metric",
}
_STEPS = 100  # about as many as a slider has
_MAX_POWER = 300  # of ten, that a step is


class FacetLink(Value, frozen=True):
    """A value that can be chosen, or put back; ``path`` is the page after that."""

    value: str
    versions: int
    path: str
    is_chosen: bool


class MetricSlider(Value, frozen=True):
    """Between which numbers a metric can be bounded, and the condition that is in force; ``low`` is a whole step."""

    name: str
    low: float
    high: float
    step: float
    operator: str
    bound: float | None
    is_chosen: bool


class FacetsView(Value, frozen=True):
    """What the page shows: the values of each kind, and the ``metrics`` that can be bounded."""

    query: Query
    best: str
    counted: Facets
    facets: tuple[tuple[str, tuple[FacetLink, ...]], ...]
    metrics: tuple[MetricSlider, ...]
    hidden: tuple[tuple[str, str], ...]
    results_path: str
    max_values: int = MAX_VALUES


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
        metrics=_build_sliders(counted, query, best),
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


def _build_sliders(facets: Facets, query: Query, best: str) -> tuple[MetricSlider, ...]:
    """Return the metrics that can be bounded; the one that is asked for is chosen, else the most common."""
    bounds = {condition.name: condition for condition in query.metrics if not condition.dataset}
    asked = next(iter([*bounds, best.partition("@")[0]]))
    names = [metric.name for metric in facets.ranges]
    chosen = asked if asked in names else next(iter(names), "")
    return tuple(_build_slider(metric, bounds.get(metric.name), metric.name == chosen) for metric in facets.ranges)


def _build_slider(metric: MetricRange, condition: MetricCondition | None, is_chosen: bool) -> MetricSlider:
    power = _choose_power(metric.low, metric.high)
    step = 10.0**power
    direction = ">=" if metric.higher_is_better else "<="
    return MetricSlider(
        name=metric.name,
        low=min(_to_float(math.floor(metric.low / step), power), metric.low),
        high=max(_to_float(math.ceil(metric.high / step), power), metric.high),
        step=step,
        operator=str(condition.comparison.operator) if condition is not None else direction,
        bound=condition.comparison.value if condition is not None else None,
        is_chosen=is_chosen,
    )


def _choose_power(low: float, high: float) -> int:
    """Return the power of ten of which about :data:`_STEPS` lie between two numbers."""
    half = high / 2 - low / 2 or abs(low) / 2 or 1.0  # the whole may be more than a float holds
    return min(max(math.floor(math.log10(half) - math.log10(_STEPS / 2)), -_MAX_POWER), _MAX_POWER)


def _to_float(steps: int, power: int) -> float:
    """Return so many steps as the decimal number that they are."""
    return min(max(float(f"{steps}e{power}"), -sys.float_info.max), sys.float_info.max)


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
