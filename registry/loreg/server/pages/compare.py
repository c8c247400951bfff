"""The page ``/compare``: how alike versions are, which are the same, and what is known of each side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from loreg.adapters.structure import WEIGHTS_NAME
from loreg.entities import AdapterComparison, AdapterSimilarity, Version
from loreg.errors import ConflictError, LoregError
from loreg.identity.likeness import FEW, group_near_duplicates
from loreg.local.backend import LocalBackend
from loreg.local.comparisons import MAX_COMPARED
from loreg.manifest import File
from loreg.refs import parse_ref
from loreg.server.pages.chosen_sources import SourceMatches, find_matches, is_typing, read_sources
from loreg.server.pages.commands import command
from loreg.server.pages.likeness_maps import LikenessMap, draw_likeness
from loreg.server.pages.merge_form import MAX_SOURCES as MAX_MERGED
from loreg.server.pages.merge_form import PATH as MERGE
from loreg.server.pages.paths import diff_path, with_query
from loreg.server.pages.version_facts import list_facts
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
PATH = "/compare"
_MAX_ROWS = 60  # facts and metrics that are shown
_MAPS = (("cosine", "Cosine"), ("left_overlap", "Shared columns"), ("right_overlap", "Shared rows"))

Stored = tuple[Version, tuple[File, ...]]


class ComparedRow(Value, frozen=True):
    """A fact or a metric with its value of each version, empty where there is none, and which of them are the best."""

    name: str
    values: tuple[str, ...]
    best: tuple[bool, ...] = ()
    differs: bool = False


class LikenessView(Value, frozen=True):
    """How alike the versions are, as squares and as ``pairs``; ``near`` has the groups of near duplicates."""

    maps: tuple[LikenessMap, ...]
    pairs: tuple[AdapterSimilarity, ...]
    near: tuple[tuple[str, ...], ...]


class CompareView(Value, frozen=True):
    """What the page shows; ``likeness`` is None where it is still to be computed, or ``problem`` says why not."""

    sources: tuple[str, ...]
    versions: tuple[Version, ...]
    matches: SourceMatches
    metrics: tuple[ComparedRow, ...]
    facts: tuple[ComparedRow, ...]
    more: int
    same: tuple[tuple[str, ...], ...]
    likeness: LikenessView | None
    problem: str
    hint: str
    is_busy: bool
    compute_path: str
    merge_path: str
    diff_path: str


@routes.api_route(PATH, methods=["GET", "HEAD"])
async def compare(request: Request) -> Response:
    """Show versions side by side, and how alike they are where that is known or asked for."""
    visitor = await get_visitor(request)
    chosen, text = await read_sources(visitor, MAX_COMPARED)
    sources = tuple(source for _, source in chosen)
    stored = await visitor.backend.run(LocalBackend.read_sources, tuple(map(parse_ref, sources)))
    versions = tuple(version for version, _ in stored)
    pairs, problem = None, None
    asks = bool(request.query_params.get("compute")) or request.query_params.get("format") == "json"
    local = visitor.backend.local
    if len(sources) > 1 and not is_typing(visitor):
        try:
            if asks or await run_in_threadpool(local.has_comparison, stored):
                pairs = await run_in_threadpool(
                    local.compare_versions, [parse_ref(version.ref) for version in versions]
                )
        except LoregError as error:
            problem = error
    facts = _side_by_side([list_facts(version) for version in versions])
    question = [("source", source) for source in sources]
    view = CompareView(
        sources=sources,
        versions=versions,
        matches=await find_matches(visitor, text, versions),
        metrics=_compare_metrics(versions)[:_MAX_ROWS],
        facts=facts[:_MAX_ROWS],
        more=max(0, len(facts) - _MAX_ROWS),
        same=_find_same(stored),
        likeness=_view_likeness(pairs) if pairs is not None else None,
        problem=problem.outside if problem else "",
        hint=problem.hint if problem else "",
        is_busy=isinstance(problem, ConflictError),
        compute_path=with_query(PATH, [*question, ("compute", "1")]),
        merge_path=with_query(MERGE, question) if 1 < len(sources) <= MAX_MERGED else "",
        diff_path=_find_diff(versions),
    )
    return page(
        visitor,
        "compare.html",
        title="Compare",
        view=view,
        command=command("compare", *sources) if len(sources) > 1 else "",
        api=with_query("/api/v1/comparison", question) if len(sources) > 1 else "",
        document=tuple(pairs) if pairs is not None else None,
    )


def _view_likeness(pairs: AdapterComparison) -> LikenessView:
    labels = pairs.labels
    ordered = sorted(pairs, key=lambda pair: -pair.cosine) if len(labels) > FEW else pairs
    return LikenessView(
        maps=tuple(draw_likeness(pairs, figure, what) for figure, what in _MAPS),
        pairs=tuple(ordered),
        near=tuple(tuple(labels[place] for place in group) for group in group_near_duplicates(pairs)),
    )


def _find_same(stored: Sequence[Stored]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of versions whose weights are the same file."""
    groups = defaultdict(list)
    for version, files in stored:
        weights = next((file.sha256 for file in files if file.path == WEIGHTS_NAME), version.digest)
        groups[weights].append(version.ref)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _find_diff(versions: Sequence[Version]) -> str:
    """Return the page of what changed between two versions of one adapter; empty for others."""
    if len(versions) != 2 or versions[0].adapter != versions[1].adapter:
        return ""
    before, after = sorted(version.number for version in versions)
    return diff_path(versions[0].adapter, before, after)


def _compare_metrics(versions: Sequence[Version]) -> tuple[ComparedRow, ...]:
    """Return what was measured of any version; the best are those by the direction that was declared."""
    measured = [{metric.measured: metric for metric in version.metrics} for version in versions]
    rows = []
    for name in sorted(set().union(*measured)):
        metrics = [of_version.get(name) for of_version in measured]
        present = [metric for metric in metrics if metric is not None]
        choose: Callable[..., float] = max if present[-1].higher_is_better else min
        best = choose(metric.value for metric in present)
        differs = len({metric.value for metric in present}) > 1
        rows.append(
            ComparedRow(
                name,
                tuple("" if metric is None else f"{metric.value:.6g}" for metric in metrics),
                tuple(differs and metric is not None and metric.value == best for metric in metrics),
                differs,
            )
        )
    return tuple(sorted(rows, key=lambda row: -sum(map(bool, row.values))))


def _side_by_side(facts: Sequence[dict[str, str]]) -> tuple[ComparedRow, ...]:
    """Return the facts of all versions, first what is known of every version, those that differ marked."""
    names = list(dict.fromkeys(name for of_version in facts for name in of_version))
    rows = [ComparedRow(name, tuple(of_version.get(name, "") for of_version in facts)) for name in names]
    return tuple(ComparedRow(row.name, row.values, differs=len(set(row.values)) > 1) for row in rows if any(row.values))
