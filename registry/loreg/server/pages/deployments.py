"""The page ``/deployments``: which folders and servers have which versions, and whether those are the right ones."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.entities import Deployment
from loreg.refs import parse_adapter_pattern
from loreg.server.pages.commands import command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE = 100


class DeploymentsView(Value, frozen=True):
    """What the page shows of the adapters that match ``pattern``."""

    pattern: str
    places: tuple[Deployment, ...]
    next_path: str


@routes.api_route("/deployments", methods=["GET", "HEAD"])
async def deployments(request: Request) -> Response:
    """Show where versions are, as folders and servers tell."""
    visitor = await get_visitor(request)
    pattern = request.query_params.get("pattern", "").strip() or "*"
    parsed = parse_adapter_pattern(pattern)
    places = await visitor.backend.deployments(parsed, _PAGE, request.query_params.get("cursor") or None)
    own = [("pattern", pattern if pattern != "*" else "")]
    next_path = with_query("/deployments", [*own, ("cursor", places.cursor)]) if places.cursor else ""
    return page(
        visitor,
        "deployments.html",
        title="Deployments",
        view=DeploymentsView(pattern, places.items, next_path),
        command=command("deployments", *([pattern] if pattern != "*" else [])),
        api=with_query("/api/v1/deployments", own),
        document=places,
    )
