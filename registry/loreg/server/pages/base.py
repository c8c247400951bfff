"""The page ``/bases/DIGEST``: what is known of a model, which others are the same, and what was trained on it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.entities import (
    BaseDetails,
    BaseEdge,
    BaseRelation,
    FacetCount,
    FacetKind,
    Query,
    RelatedBase,
    VerdictKind,
    Version,
)
from loreg.local.backend import LocalBackend
from loreg.server.pages.commands import command
from loreg.server.pages.paths import BASE, with_query
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_SAME_MODEL = (BaseRelation.CAST_OF, BaseRelation.RENAMED_FROM)
_MAX_NEWEST, _MAX_COUNTS = 10, 8


class RelationRow(Value, frozen=True):
    """An edge as it reads from the page's base: ``other`` is at its other end, which ``is_parent`` or came from it.

    ``verdict`` is what the one is to an adapter that was trained on the other.
    """

    edge: BaseEdge
    other: RelatedBase
    is_parent: bool
    verdict: VerdictKind


class BaseView(Value, frozen=True):
    """What the page shows: ``same`` are edges that say it is one model, ``alike`` bases of its names and shapes."""

    details: BaseDetails
    same: tuple[RelationRow, ...]
    others: tuple[RelationRow, ...]
    alike: tuple[RelatedBase, ...]
    newest: tuple[Version, ...]
    tasks: tuple[FacetCount, ...]
    metrics: tuple[FacetCount, ...]


@routes.api_route(BASE, methods=["GET", "HEAD"])
async def base(request: Request, digest: str) -> Response:
    """Show a base that is known by its content or its headers."""
    visitor = await get_visitor(request)
    view = await visitor.backend.run(_build_view, digest)
    model = view.details.base
    name = model.names[0] if model.names else digest[:12]
    return page(
        visitor,
        "base.html",
        title=f"Base {name}",
        view=view,
        command=command("base", "show", digest[:12]),
        api=with_query("/api/v1/base", [("name", digest)]),
        document=view.details,
    )


def _build_view(backend: LocalBackend, digest: str) -> BaseView:
    details = backend.base(digest)
    related = {row.base.digest: row for row in backend.related_bases(details.base)}
    edges = [_to_row(edge, digest, related) for edge in details.edges]
    relations = [row for row in edges if row is not None]
    joined = {row.other.base.digest for row in relations}
    query = Query(base=digest)
    facets = backend.facets(query)
    return BaseView(
        details=details,
        same=tuple(row for row in relations if row.edge.kind in _SAME_MODEL),
        others=tuple(row for row in relations if row.edge.kind not in _SAME_MODEL),
        alike=tuple(row for other, row in related.items() if other not in joined and row.base.struct),
        newest=backend.search(Query(base=digest, limit=_MAX_NEWEST)).items,
        tasks=tuple(count for count in facets.counts if count.kind == FacetKind.TASK)[:_MAX_COUNTS],
        metrics=tuple(count for count in facets.counts if count.kind == FacetKind.METRIC)[:_MAX_COUNTS],
    )


def _to_row(edge: BaseEdge, digest: str, related: dict[str, RelatedBase]) -> RelationRow | None:
    """Return the edge with what is at its other end; None if that is one of too many."""
    is_parent = edge.child == digest
    other = related.get(edge.parent if is_parent else edge.child)
    verdict = VerdictKind.VERIFIED_DERIVED if edge.verified else VerdictKind.DECLARED_DERIVED
    return RelationRow(edge, other, is_parent, verdict) if other is not None else None
