"""The page ``/``: what is there, found by words and facets; the URL is the question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from loreg.entities import Metric, Query, SearchPage, SortKey, Version
from loreg.errors import UsageError
from loreg.local.backend import LocalBackend
from loreg.parsing import parse_comparison, parse_label, parse_metric_condition, parse_order
from loreg.server.pages.commands import search_command
from loreg.server.pages.paths import with_query
from loreg.server.pages.sparklines import Sparkline, draw_sparkline
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
FACETS = "/facets"
_PAGE = 25  # versions
_MAX_LENGTH, _MAX_WORDS = 512, 20
_MANY = ("task", "module", "rank", "metric", "label")
ONE = ("text", "base", "namespace", "author", "variant", "loads_in", "sort", "best", "all_versions", "cursor")
Pairs = list[tuple[str, str]]


class Row(Value, frozen=True):
    """A version in the list: the metric that it is shown with, and how that went over the versions before."""

    version: Version
    metric: Metric | None
    curve: Sparkline | None


class BrowseView(Value, frozen=True):
    """What the page shows; ``conditions`` are what is asked for, each with the path without it."""

    query: Query
    sort: str
    best: str
    rows: tuple[Row, ...]
    conditions: tuple[tuple[str, str], ...]
    hidden: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    next_path: str
    facets_path: str
    is_first: bool


@routes.api_route("/", methods=["GET", "HEAD"])
async def browse(request: Request) -> Response:
    """Show what a search finds; the counts of what it has come after it, where there is JavaScript."""
    pairs = read_pairs(request)
    if request.query_params.get("bound") or request.query_params.get("measured"):
        return RedirectResponse(with_query("/", _with_bound(request, pairs)), 303)
    visitor = await get_visitor(request)
    query, sort, best = parse_query(pairs)
    results, rows = await visitor.backend.run(_search, query)
    view = BrowseView(
        query=query,
        sort=sort,
        best=best,
        rows=rows,
        conditions=tuple(_list_conditions(pairs)),
        hidden=tuple(pair for pair in pairs if pair[0] not in ("text", "cursor", "sort")),
        notes=tuple(_describe_matches(results)),
        next_path=with_query("/", replace_pair(pairs, "cursor", results.cursor)) if results.cursor else "",
        facets_path=with_query(FACETS, [pair for pair in pairs if pair[0] != "cursor"]),
        is_first=query.cursor is None,
    )
    return page(
        visitor,
        "browse.html",
        title="Browse",
        view=view,
        command=search_command(query, sort, best),
        api=with_query("/api/v1/search", pairs),
        document=results,
    )


def read_pairs(request: Request) -> Pairs:
    """Return the conditions in the URL, without the empty ones that a form sends. Raises UsageError."""
    pairs = [(name, value.strip()) for name, value in request.query_params.multi_items() if name in (*_MANY, *ONE)]
    pairs = [(name, value) for name, value in pairs if value]
    limit = 4096
    if len(pairs) > _MAX_WORDS * len(_MANY) or any(
        len(value) > (limit if name == "cursor" else _MAX_LENGTH) for name, value in pairs
    ):
        raise UsageError("this search is too long", hint="loreg search --help")
    return pairs


def parse_query(pairs: Pairs) -> tuple[Query, str, str]:
    """Return what is searched for, and its order as it is written. Raises UsageError."""
    many: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        many[name].append(value)
    one = {name: many[name][-1] if many[name] else "" for name in ONE}
    query = Query(
        text=one["text"],
        tasks=tuple(many["task"]),
        base=one["base"],
        modules=tuple(many["module"]),
        ranks=tuple(map(parse_comparison, many["rank"])),
        metrics=tuple(map(parse_metric_condition, many["metric"])),
        labels=tuple(map(parse_label, many["label"])),
        namespace=one["namespace"],
        author=one["author"],
        variant=one["variant"],
        loads_in=one["loads_in"],
        sort=parse_order(one["sort"], one["best"], one["text"]),
        best=bool(one["best"]),
        all_versions=one["all_versions"] in ("1", "true", "on"),
        limit=_PAGE,
        cursor=one["cursor"] or None,
    )
    return query, one["sort"], one["best"]


def _with_bound(request: Request, pairs: Pairs) -> Pairs:
    """Return the conditions with the one that the form of metrics adds: a bound, or the best by that metric."""
    measured, bound = (request.query_params.get(name, "").strip() for name in ("measured", "bound"))
    operator = "<=" if request.query_params.get("operator") == "<=" else ">="
    name, at, data = measured.partition("@")
    if not bound:
        return replace_pair(replace_pair(pairs, "sort", ""), "best", measured)
    others = [pair for pair in pairs if pair[0] != "cursor" and not _bounds(pair, measured)]
    return [*others, ("metric", f"{name}{operator}{bound}{at}{data}")]


def _bounds(pair: tuple[str, str], measured: str) -> bool:
    """Return whether a condition is a bound of what is measured: a new one takes its place."""
    if pair[0] != "metric":
        return False
    condition = parse_metric_condition(pair[1])
    return Metric(condition.name, 0.0, condition.dataset, condition.split).measured == measured


def replace_pair(pairs: Pairs, name: str, value: str) -> Pairs:
    """Return the conditions with one value for that name, from the first page on."""
    kept = [pair for pair in pairs if pair[0] not in (name, "cursor")]
    return [*kept, (name, value)] if value else kept


def _list_conditions(pairs: Pairs) -> Iterable[tuple[str, str]]:
    """Yield what is asked for, as it is shown, and the path of the page without it."""
    for name, value in pairs:
        if name not in ("text", "cursor", "sort"):
            shown = (
                "all versions"
                if name == "all_versions"
                else f"{name} {value}"
                if name == "rank"
                else f"loads in {value}"
                if name == "loads_in"
                else f"{name}: {value}"
            )
            yield shown, with_query("/", [pair for pair in pairs if pair != (name, value) and pair[0] != "cursor"])


def _describe_matches(results: SearchPage) -> Iterable[str]:
    """Yield what was meant by words that are no exact names, or how many versions were ranked."""
    for match in results.matches:
        names, alike = ", ".join(match.names[:5]), ", ".join(match.suggestions[:3])
        meant = f"; searched for {names}" if names else f"; did you mean {alike}?" if alike else ""
        yield f"No {match.term} is called “{match.word}”{meant}"
    if results.ranked is not None:
        yield f"Ranked the newest {results.ranked:,} versions that match; more words find others."


def _search(backend: LocalBackend, query: Query) -> tuple[SearchPage, tuple[Row, ...]]:
    results = backend.search(query)
    return results, _build_rows(backend, results, query)


def _build_rows(backend: LocalBackend, results: SearchPage, query: Query) -> tuple[Row, ...]:
    """Return the rows of the versions, with the curves of those that are not the first of their adapters."""
    metrics = [_choose_metric(version, query) for version in results.items]
    measured = {
        version.adapter: metric
        for version, metric in zip(results.items, metrics, strict=True)
        if metric is not None and version.number > 1
    }
    history = backend.metric_history(measured, {version.adapter: version.number for version in results.items})
    return tuple(
        Row(version, metric, _draw_curve(metric, measured.get(version.adapter), history.get(version.adapter, ())))
        for version, metric in zip(results.items, metrics, strict=True)
    )


def _draw_curve(
    metric: Metric | None, measured: Metric | None, points: Sequence[tuple[int, float]]
) -> Sparkline | None:
    """Return the curve of a row's metric, unless what was looked up of its adapter is another metric."""
    if metric is None or measured is None or metric.measured != measured.measured:
        return None
    return draw_sparkline(points, metric.measured)


def _choose_metric(version: Version, query: Query) -> Metric | None:
    """Return the metric that a version is shown with: the one that is asked for, or its first."""
    sort = query.sort
    wanted = [(sort.metric, sort.dataset, sort.split)] if sort.by == SortKey.METRIC else []
    wanted += [(condition.name, condition.dataset, condition.split) for condition in query.metrics]
    for name, dataset, split in wanted:
        for metric in version.metrics:
            if metric.name == name and dataset in ("", metric.dataset) and split in ("", metric.split):
                return metric
    return version.metrics[0] if version.metrics else None
