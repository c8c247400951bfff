"""Errors as RFC 9457 problem details, with the code and the hint that the command line shows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from loreg.errors import (
    AdapterFormatError,
    CheckFailedError,
    ConflictError,
    IntegrityError,
    LoregError,
    MergeError,
    MissingExtraError,
    NotAllowedError,
    NotFoundError,
    QuotaError,
    StaleError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[LoregError], int] = {
    UsageError: 400,
    UnauthenticatedError: 401,
    NotAllowedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    StaleError: 412,
    AdapterFormatError: 422,
    CheckFailedError: 422,
    IntegrityError: 422,
    MergeError: 422,
    QuotaError: 429,
    MissingExtraError: 501,
    UnavailableError: 503,
}
_log = logging.getLogger("loreg.problems")
_TITLES = {404: "there is nothing at this path", 405: "this path has no such method"}
_LONGEST_DETAIL = 4000
_CODES = {404: "not-found", 408: "too-slow", 413: "too-large"}


@dataclass(frozen=True)
class ProblemDetails:
    """RFC 9457, with loreg's own ``code`` and ``hint``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""


def problem_response(error: LoregError) -> Response:
    """The answer to a request that raised ``error``."""
    status = STATUS.get(type(error), 500)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="loreg"'
    if status == 503:
        headers["Retry-After"] = "2"
    return build_problem(status, error.code, *public_message(error), headers)


def public_message(error: LoregError) -> tuple[str, str]:
    """The message and the hint that may leave the server: they name no database, no store and no folder behind it."""
    if error.outside != error.message:
        _log.warning("%s: %s", error.code, error)
    return error.outside, error.hint_outside


def build_problem(
    status: int, code: str, detail: str, hint: str = "", headers: dict[str, str] | None = None
) -> Response:
    """A problem as a response."""
    told = detail[:_LONGEST_DETAIL].encode(errors="replace").decode()  # a key of JSON may hold half a character
    body = ProblemDetails(f"urn:loreg:error:{code}", code.replace("-", " "), status, told, code, hint)
    return Response(msgspec.json.encode(body), status, headers, MEDIA_TYPE)


def install_problem_handlers(app: FastAPI) -> None:
    """Every error of the application leaves it as a problem."""

    @app.exception_handler(LoregError)
    def of_loreg(request: Request, error: LoregError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    def of_validation(request: Request, error: RequestValidationError) -> Response:
        first: dict[str, Any] = dict(error.errors()[0])
        where = ".".join(str(part) for part in first["loc"])
        return build_problem(400, "usage", f"{where}: {first['msg']}", "/openapi.json says what is expected")

    @app.exception_handler(HTTPException)
    def of_routing(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "usage")
        told = _TITLES.get(error.status_code, str(error.detail))
        return build_problem(error.status_code, code, told, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    def of_a_mistake(request: Request, error: Exception) -> Response:
        return build_problem(500, "internal", "the server made a mistake; its log has it under the request's id")
