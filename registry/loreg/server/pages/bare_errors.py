"""Answer a browser with an error where nothing is known of who asks: before the pages, or after one of them failed."""

from __future__ import annotations

from fastapi import Request, Response

from loreg.server.pages.paths import is_for_programs
from loreg.server.pages.templating import render
from loreg.server.pages.visitor import HEADERS, wants_page


def answers_person(request: Request) -> bool:
    """Return whether an error is a page: for a browser, at a path that is not programs'."""
    return wants_page(request) and not is_for_programs(request.url.path)


def bare_error_page(status: int, message: str, hint: str = "") -> Response:
    """Return an error as a page that asks the registry for nothing and offers no navigation."""
    text = render("bare_error.html", status=status, message=message, hint=hint)
    return Response(text, status, {**HEADERS, "X-Content-Type-Options": "nosniff"}, "text/html")
