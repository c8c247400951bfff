"""Add the pages to the application: after all routes of programs, which keep their paths."""

from __future__ import annotations

import contextlib

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from loreg.errors import LoregError
from loreg.server.pages import (
    adapter,
    admin,
    aliases,
    attachments,
    audit,
    base,
    bases,
    browse,
    checks,
    compare,
    deployments,
    diff,
    facets,
    invitation,
    jobs,
    lineage,
    merge,
    sign_in,
    spectra,
    start,
    static_files,
    upgrade,
    version,
)
from loreg.server.pages.bare_errors import answers_person, bare_error_page
from loreg.server.pages.visitor import error_page, get_visitor
from loreg.server.problems import MISTAKE, http_problem, mistake_headers, mistake_problem

#: What has a page each; the first that has a path answers.
MODULES = (
    static_files,
    invitation,
    sign_in,
    start,
    deployments,
    audit,
    bases,
    base,
    upgrade,
    attachments,
    admin,
    checks,
    merge,
    jobs,
    compare,
    browse,
    facets,
    adapter,
    aliases,
    version,
    diff,
    lineage,
    spectra,
)


def install_pages(app: FastAPI) -> None:
    """Add the pages, and let a browser see what is nowhere as a page too."""
    for module in MODULES:
        app.include_router(module.routes)

    @app.exception_handler(HTTPException)
    async def answer_http_error(request: Request, error: HTTPException) -> Response:
        if not answers_person(request):
            return http_problem(error)
        with contextlib.suppress(LoregError):  # where the catalog does not answer, it is said to nobody in particular
            await get_visitor(request)
        message = "there is nothing at this path" if error.status_code == 404 else str(error.detail)
        return error_page(request, error.status_code, message)

    @app.exception_handler(Exception)
    def answer_unexpected_error(request: Request, error: Exception) -> Response:
        if not answers_person(request):
            return mistake_problem(request)
        response = bare_error_page(500, MISTAKE, f"X-Request-Id: {request.state.request_id}")
        response.headers.update(mistake_headers(request))
        return response
