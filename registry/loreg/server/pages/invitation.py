"""The path that ``loreg ui`` opens: an invitation, once, becomes the cookie of a session on this machine."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.errors import NotFoundError
from loreg.server.pages import sessions
from loreg.server.pages.templating import render
from loreg.server.pages.visitor import HEADERS, PageRoute
from loreg.server.state import Service

PATH = "/_/invitation"
routes = APIRouter(include_in_schema=False, route_class=PageRoute)


@routes.get(PATH)
async def accept(request: Request, key: str = "", next: str = "/") -> Response:  # noqa: A002  as in the URL
    """Begin the session, and go on to a page from a page of this server: only then is the cookie sent."""
    service: Service = request.app.state.service
    if service.local_session is None:
        raise NotFoundError("there is nothing at this path")
    secret = service.local_session.redeem(key)
    response = Response(render("reload.html", path=sessions.local_path(next)), 200, HEADERS, "text/html")
    sessions.set_cookie(response, request, sessions.COOKIE, secret)
    return response
