"""The page ``/NS/NAME/vN``: what exactly is inside a version, what it was made from, and which servers take it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from loreg.entities import Details, LineageEdge, Provenance, Source
from loreg.errors import LoregError
from loreg.local.backend import LocalBackend
from loreg.refs import Ref
from loreg.server.pages.adapter import Snippet, snippets
from loreg.server.pages.commands import command
from loreg.server.pages.heat_maps import HeatMap, draw_heat_map
from loreg.server.pages.inspection import Inspection, inspect_version
from loreg.server.pages.paths import VERSION, api_path, parse_version_path
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_MAX_EDGES = 100
_MAX_LABELS = 50
_MAX_WORST = 12  # modules
_MAX_RECIPE = 20_000  # characters
_ROUNDING = 1e-12


class CertificateView(Value, frozen=True):
    """What a merge kept and lost: of all modules, of each source, and of the modules that lost the most."""

    method: str
    total: Mapping[str, Any]
    sources: tuple[tuple[Source, float | None], ...]
    worst: tuple[Mapping[str, Any], ...]
    others: int
    warnings: tuple[str, ...]
    errors: HeatMap | None
    recipe: str


class VersionView(Value, frozen=True):
    """What the page shows; ``parents`` and ``children`` are the merges before and after it."""

    details: Details
    snippets: tuple[Snippet, ...]
    certificate: CertificateView | None
    parents: tuple[LineageEdge, ...]
    children: tuple[LineageEdge, ...]
    max_edges: int = _MAX_EDGES
    max_labels: int = _MAX_LABELS


class InsideView(Value, frozen=True):
    """What the header of a version says, and ``problem`` if it could not be read."""

    details: Details
    inspection: Inspection | None
    ranks: HeatMap | None
    problem: str = ""


@routes.api_route(VERSION, methods=["GET", "HEAD"])
async def version(request: Request, namespace: str, name: str, number: str) -> Response:
    """Show a version; what is read from the store comes after it, where there is JavaScript."""
    visitor = await get_visitor(request)
    ref = parse_version_path(namespace, name, number)
    details, parents, children = await visitor.backend.run(_read_version, ref)
    view = VersionView(
        details=details,
        snippets=snippets(details.version, visitor.endpoint),
        certificate=_view_certificate(details.provenance) if details.provenance else None,
        parents=parents,
        children=children,
    )
    return page(
        visitor,
        "version.html",
        title=details.version.ref,
        view=view,
        command=command("show", details.version.ref),
        api=api_path(ref.adapter, "versions", f"v{ref.number}"),
        document=details,
    )


@routes.api_route(VERSION + "/inside", methods=["GET", "HEAD"])
async def inside(request: Request, namespace: str, name: str, number: str) -> Response:
    """Show what the header says: ranks by module, findings, and which servers take it."""
    visitor = await get_visitor(request)
    ref = parse_version_path(namespace, name, number)
    details = await visitor.backend.show(ref)
    view = await run_in_threadpool(_look_inside, visitor, details)
    return page(
        visitor,
        "inside.html",
        title=f"Inside {details.version.ref}",
        view=view,
        command=command("check", details.version.ref),
        api=api_path(ref.adapter, "versions", f"v{ref.number}", "check"),
    )


def _read_version(backend: LocalBackend, ref: Ref) -> tuple[Details, tuple[LineageEdge, ...], tuple[LineageEdge, ...]]:
    details = backend.show(ref)
    parents = backend.lineage(ref)[1] if details.provenance else ()
    return details, parents, backend.descendants(ref)[1]


def _look_inside(visitor: Visitor, details: Details) -> InsideView:
    try:
        inspection = inspect_version(visitor.backend.local, visitor.service, details)
    except LoregError as error:
        return InsideView(details, None, None, error.outside)
    return InsideView(details, inspection, draw_heat_map(inspection.ranks, "rank"))


def _view_certificate(provenance: Provenance) -> CertificateView | None:
    """Return the certificate as it is shown; None for one that has not its fields."""
    try:
        total, modules = provenance.certificate["total"], provenance.certificate["modules"]
        worst = sorted(modules, key=lambda module: (-module["epsilon"], -module["norm"]))
        return CertificateView(
            method=str(provenance.recipe["method"]),
            total=total,
            sources=tuple(zip(provenance.sources, total["retention"], strict=True)),
            worst=tuple(worst[:_MAX_WORST]),
            others=max(0, len(worst) - _MAX_WORST),
            warnings=tuple(provenance.certificate["warnings"]),
            errors=_draw_errors(modules),
            recipe=json.dumps(provenance.recipe, indent=2)[:_MAX_RECIPE],
        )
    except (KeyError, TypeError, ValueError):
        return None


def _draw_errors(modules: Sequence[Mapping[str, Any]]) -> HeatMap | None:
    """Return the errors by module; None where there are none but those of computing in float64."""
    errors = {module["module"]: module["epsilon"] for module in modules}
    return draw_heat_map(errors, "error") if max(errors.values(), default=0.0) > _ROUNDING else None
