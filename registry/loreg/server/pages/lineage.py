"""The page ``/NS/NAME/vN/lineage``: what a version was made from, what was made of it, and on which base it stands."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response

from loreg.entities import LineageEdge, Relatives, Version
from loreg.local.backend import LocalBackend
from loreg.refs import Ref
from loreg.server.pages.commands import command
from loreg.server.pages.lineage_graphs import LineageGraph, Relative, draw_lineage, kind_of_source, name_source
from loreg.server.pages.paths import LINEAGE, job_path, parse_version_path, with_query
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
    relatives: Relatives
    above: tuple[EdgeRow, ...]
    below: tuple[EdgeRow, ...]
    is_capped: bool
    max_rows: int = _MAX_ROWS


@routes.api_route(LINEAGE, methods=["GET", "HEAD"])
async def lineage(request: Request, namespace: str, name: str, number: str) -> Response:
    """Show where a version comes from, and what came of it."""
    visitor = await get_visitor(request)
    ref = parse_version_path(namespace, name, number)
    version, above, below, relatives = await visitor.backend.run(_read_lineage, ref)
    view = LineageView(
        version=version,
        graph=draw_lineage(version.ref, version.digest, above, below, list(_list_relatives(version, relatives))),
        relatives=relatives,
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
        document={
            "ref": version.ref,
            "digest": version.digest,
            "edges": above,
            "descendants": below,
            "relatives": relatives,
        },
    )


def _read_lineage(
    backend: LocalBackend, ref: Ref
) -> tuple[Version, tuple[LineageEdge, ...], tuple[LineageEdge, ...], Relatives]:
    version, above = backend.lineage(ref)
    return version, above, backend.descendants(ref)[1], backend.relatives(ref)


def _list_relatives(version: Version, relatives: Relatives) -> Iterator[Relative]:
    """Yield what is drawn beside versions, a base before those that it came from."""
    name = base_name(version.base, version.facts.base_hint)
    if name:
        digest = version.base.digest if version.base is not None else ""
        yield Relative(f"base {digest}", name, _base_path(digest), "base", "base")
    for edge in relatives.base_edges:
        parent = relatives.base_names.get(edge.parent, edge.parent[:12])
        label = f"{edge.kind}".replace("_", " ")
        yield Relative(f"base {edge.parent}", parent, _base_path(edge.parent), "base", label, f"base {edge.child}")
    for number, export in enumerate(relatives.exports):
        yield Relative(f"export {number}", f"for {export.profile}", "", "export", "export")
    for bake in relatives.bakes:
        yield Relative(f"bake {bake.job}", bake.name, job_path(bake.job), "bake", "bake")


def _base_path(digest: str) -> str:
    return with_query("/", [("base", digest)]) if digest else ""


def _to_row(edge: LineageEdge) -> EdgeRow:
    return EdgeRow(edge, name_source(edge), kind_of_source(edge))
