"""Build the visitor of a page, and answer with a template or, where ``format=json`` asks for it, with its document."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute

from loreg.entities import ANONYMOUS_AUTHOR, Access, Role
from loreg.errors import LoregError, UnauthenticatedError
from loreg.server.async_backend import AsyncBackend
from loreg.server.pages import sessions
from loreg.server.pages.templating import render
from loreg.server.problems import public_message, status_of
from loreg.server.responses import json_response
from loreg.server.state import ANONYMOUS, Service

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser hides the origin of a form
}


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page: what they may, and the backend that answers them so.

    ``secret`` is their cookie, empty for someone who is not signed in. ``is_open`` if nobody needs to.
    """

    request: Request
    service: Service
    access: Access
    secret: str = ""
    is_open: bool = False

    @functools.cached_property
    def backend(self) -> AsyncBackend:
        """The backend with the rights of the visitor."""
        return AsyncBackend(self.service.backend(self.access))

    @property
    def may_sign_in(self) -> bool:
        """Whether a token would show more: where one is needed, and the visitor has given none."""
        return not self.is_open and self.access.token_id is None and self.service.local_session is None

    @property
    def is_administrator(self) -> bool:
        """Whether they administer everything."""
        return self.access.may(Role.ADMIN, "*")

    @property
    def form_token(self) -> str:
        """What each form of theirs holds."""
        return sessions.form_token(self.secret)

    @property
    def location(self) -> str:
        """The path and query of this page."""
        query = self.request.url.query
        return self.request.url.path + (f"?{query}" if query else "")

    @property
    def page_location(self) -> str:
        """The same of the page that a part is asked for, and ``/`` where a form was sent."""
        headers = self.request.headers
        if self.request.method != "GET":
            return "/"
        if "HX-Request" not in headers or "HX-Boosted" in headers:
            return self.location
        url = urlsplit(headers.get("HX-Current-URL", ""))
        return sessions.local_path(f"{url.path}?{url.query}" if url.query else url.path)

    @property
    def server(self) -> str:
        """The URL of this server, as the visitor reaches it."""
        host = self.request.headers.get("Host", "localhost")
        is_plain = all(character.isalnum() or character in ".:-[]" for character in host)
        return f"{'https' if sessions.is_https(self.request) else 'http'}://{host if is_plain else 'localhost'}"

    @property
    def endpoint(self) -> str:
        """The URL that programs reach the registry by; empty where the pages are shown to one person alone."""
        return "" if self.service.local_session is not None else self.server


async def get_visitor(request: Request) -> Visitor:
    """Return who looks: by their cookie, or everybody where no token is needed. Raises UnauthenticatedError."""
    service: Service = request.app.state.service
    secret = sessions.read_cookie(request, sessions.COOKIE)
    is_open = await service.is_open()
    if service.local_session is not None:
        access = service.local_session.admit(secret)
    elif is_open:
        access = msgspec.structs.replace(Access.superuser(ANONYMOUS_AUTHOR), while_open=True)
    elif secret:
        access = await service.catalog.run_async(service.authenticate, f"Bearer {secret}")
    else:
        access = ANONYMOUS
    request.state.access, request.state.author = access, access.author
    return Visitor(request, service, access, secret, is_open)


def page(
    visitor: Visitor,
    template: str,
    *,
    title: str,
    view: object = None,
    command: str = "",
    api: str = "",
    document: object = None,
    status: int = 200,
) -> Response:
    """Return a page: ``template`` with its ``view``, beside the ``command`` and the route of the ``api`` like it.

    With ``?format=json`` it is the ``document``, which is what that route answers.
    """
    if document is not None and visitor.request.query_params.get("format") == "json":
        return json_response(document, status, HEADERS)
    has_json = document is not None
    text = render(template, visitor=visitor, title=title, view=view, command=command, api=api, has_json=has_json)
    return Response(text, status, HEADERS, "text/html")


class PageRoute(APIRoute):
    """A route that answers people: with errors as pages to browsers, and only after these have sent their cookie."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        """Return what answers requests."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if _comes_without_cookie(request):
                return Response(render("reload.html", path=None), 200, HEADERS, "text/html")
            try:
                return await handle(request)
            except LoregError as error:
                if not wants_page(request):
                    raise
                return error_page(request, status_of(error), *public_message(error), error=error)

        return answer


def _comes_without_cookie(request: Request) -> bool:
    """Return whether a link on another site leads here: then the browser keeps a SameSite=Strict cookie back.

    A page that loads itself again is of this site, and gets it.
    """
    headers = request.headers
    is_link = request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
    has_cookie = bool(sessions.read_cookie(request, sessions.COOKIE))
    return is_link and headers.get("Sec-Fetch-Site") == "cross-site" and not has_cookie


def wants_page(request: Request) -> bool:
    """Return whether an error is answered to a person: to a browser, or in a part of a page, if not as JSON."""
    is_person = "text/html" in request.headers.get("Accept", "") or "HX-Request" in request.headers
    return is_person and request.query_params.get("format") != "json"


def error_page(
    request: Request, status: int, message: str, hint: str = "", *, error: LoregError | None = None
) -> Response:
    """Return an error as a page; someone whose token does not hold any more is not signed in any more."""
    access: Access = getattr(request.state, "access", ANONYMOUS)
    ends_session = isinstance(error, UnauthenticatedError)
    secret = "" if ends_session else sessions.read_cookie(request, sessions.COOKIE)
    visitor = Visitor(request, request.app.state.service, access, secret, access.while_open)
    view = {"status": status, "message": message, "hint": hint}
    response = page(visitor, "error.html", title=message, view=view, status=status)
    if ends_session:
        sessions.drop_cookie(response, request, sessions.COOKIE)
    return response
