"""The page ``/start``: the first commands, with the URL of this server."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.server.pages.visitor import PageRoute, get_visitor, page

routes = APIRouter(include_in_schema=False, route_class=PageRoute)


@routes.api_route("/start", methods=["GET", "HEAD"])
async def start(request: Request) -> Response:
    """Show how to begin."""
    return page(await get_visitor(request), "start.html", title="Start here")
