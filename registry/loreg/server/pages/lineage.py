"""The page ``/NS/NAME/vN/lineage``: what a version was made from, what was made of it, and on which base it stands."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.entities import LineageEdge, Version
from loreg.local.backend import LocalBackend
from loreg.refs import Ref
from loreg.server.pages.commands import command
from loreg.server.pages.lineage_graphs import LineageGraph, draw_lineage, kind_of_source, name_source
from loreg.server.pages.paths import LINEAGE, parse_version_path
from loreg.server.pages.templating import base_name
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_MANY = 1000  # edges below, of which no more are listed
_MAX_ROWS = 200


class EdgeRow(Value, frozen=True):
    """An edge as a table shows it; ``kind`` is that of its parent, see :class:`Node`."""

    edge: LineageEdge
    parent: str
    kind: str


class LineageView(Value, frozen=True):
    """What the page shows: the picture, and the same as tables."""

    version: Version
    graph: LineageGraph
    above: tuple[EdgeRow, ...]
    below: tuple[EdgeRow, ...]
    is_capped: bool
    max_rows: int = _MAX_ROWS


@routes.api_route(LINEAGE, methods=["GET", "HEAD"])
async def lineage(request: Request, namespace: str, name: str, number: str) -> Response:
    """Show where a version comes from, and what came of it."""
    visitor = await get_visitor(request)
    ref = parse_version_path(namespace, name, number)
    version, above, below = await visitor.backend.run(_read_lineage, ref)
    base = base_name(version.base, "")
    view = LineageView(
        version=version,
        graph=draw_lineage(version.ref, version.digest, above, below, (base, "") if base else None),
        above=tuple(map(_to_row, above)),
        below=tuple(map(_to_row, below)),
        is_capped=len(below) >= _MANY,
    )
    return page(
        visitor,
        "lineage.html",
        title=f"Lineage of {version.ref}",
        view=view,
        command=command("lineage", version.ref),
        document={"ref": version.ref, "digest": version.digest, "edges": above, "descendants": below},
    )


def _read_lineage(backend: LocalBackend, ref: Ref) -> tuple[Version, tuple[LineageEdge, ...], tuple[LineageEdge, ...]]:
    version, above = backend.lineage(ref)
    return version, above, backend.descendants(ref)[1]


def _to_row(edge: LineageEdge) -> EdgeRow:
    return EdgeRow(edge, name_source(edge), kind_of_source(edge))
