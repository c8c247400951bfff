"""The page ``/sign-in``, where a token becomes a cookie, and the button that signs out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from loreg.errors import UnauthenticatedError
from loreg.server.pages import sessions
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.server.state import ANONYMOUS

routes = APIRouter(include_in_schema=False, route_class=PageRoute)


@routes.api_route("/sign-in", methods=["GET", "HEAD"])
async def show_form(request: Request) -> Response:
    """Ask for a token; someone who has signed in is shown as whom."""
    return _form(await get_visitor(request), request.query_params.get("next", ""))


@routes.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Take a token, and go on where the person came from."""
    fields = await sessions.read_form(request, sessions.read_cookie(request, sessions.FORM_COOKIE))
    secret, service = fields.get("token", "").strip(), request.app.state.service
    try:
        await service.catalog.run_async(service.authenticate, f"Bearer {secret}")
    except UnauthenticatedError as error:
        return _form(Visitor(request, service, ANONYMOUS), fields.get("next", ""), error.message)
    response = RedirectResponse(sessions.local_path(fields.get("next", "")), 303)
    sessions.set_cookie(response, request, sessions.COOKIE, secret)
    sessions.drop_cookie(response, request, sessions.FORM_COOKIE)
    return response


@routes.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Forget the token."""
    await sessions.read_form(request, sessions.read_cookie(request, sessions.COOKIE))
    response = RedirectResponse("/", 303)
    sessions.drop_cookie(response, request, sessions.COOKIE)
    return response


def _form(visitor: Visitor, next_path: str, problem: str = "") -> Response:
    cookie = sessions.read_cookie(visitor.request, sessions.FORM_COOKIE) or sessions.new_form_cookie()
    view = {
        "next": sessions.local_path(next_path),
        "form_token": sessions.form_token(cookie),
        "problem": problem,
    }
    response = page(visitor, "sign_in.html", title="Sign in", view=view, status=401 if problem else 200)
    sessions.set_cookie(response, visitor.request, sessions.FORM_COOKIE, cookie)
    return response
