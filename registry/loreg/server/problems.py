"""Answer with errors as RFC 9457 problem details, with the code and hint that the command line shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
    CollectedError,
    ConflictError,
    EvaluationError,
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
    UnderWayError,
    UsageError,
    YankedError,
)

MEDIA_TYPE = "application/problem+json"
STATUS: dict[type[LoregError], int] = {
    UsageError: 400,
    UnauthenticatedError: 401,
    NotAllowedError: 403,
    NotFoundError: 404,
    YankedError: 404,
    ConflictError: 409,
    UnderWayError: 409,
    StaleError: 412,
    CollectedError: 409,
    AdapterFormatError: 422,
    CheckFailedError: 422,
    IntegrityError: 422,
    MergeError: 422,
    EvaluationError: 422,
    QuotaError: 429,
    MissingExtraError: 501,
    UnavailableError: 503,
}
MISTAKE = "the server made a mistake; its log has it under the request's id"
_log = logging.getLogger("loreg.problems")
_DETAILS = {404: "there is nothing at this path", 405: "this path has no such method"}
_MAX_DETAIL_LENGTH = 4000  # characters
_CODES = {404: "not-found", 408: "too-slow", 413: "too-large"}


@dataclass(frozen=True)
class ProblemDetails:
    """The body of an error (RFC 9457), with loreg's own ``code`` and ``hint``.

    ``suggestion`` is empty, or what was sent and what may have been meant.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    suggestion: tuple[str, ...] = ()


def status_of(error: LoregError) -> int:
    """Return the HTTP status of an error: that of its class, or of the nearest one that this is a kind of."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_response(error: LoregError) -> Response:
    """Return the answer to a request that raised ``error``."""
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="loreg"'
    if status == 503:
        headers["Retry-After"] = "2"
    return build_problem(status, error.code, *public_message(error), headers, public_suggestion(error))


def public_message(error: LoregError) -> tuple[str, str]:
    """Return the message and hint that may leave the server: they name no database, store or folder."""
    if error.outside != error.message:
        _log.warning("%s: %s", error.code, error)
    return error.outside, error.hint_outside


def public_suggestion(error: LoregError) -> tuple[str, ...]:
    """Return what was sent and what may have been meant, unless the message itself stays in the server."""
    return error.suggestion if error.suggestion is not None and error.outside == error.message else ()


def build_problem(
    status: int,
    code: str,
    detail: str,
    hint: str = "",
    headers: dict[str, str] | None = None,
    suggestion: tuple[str, ...] = (),
) -> Response:
    """Return problem details as a response."""
    encodable = (
        detail[:_MAX_DETAIL_LENGTH].encode(errors="replace").decode()
    )  # a JSON key may hold half a surrogate pair
    title = code.replace("-", " ")
    body = ProblemDetails(f"urn:loreg:error:{code}", title, status, encodable, code, hint, suggestion)
    return Response(msgspec.json.encode(body), status, headers, MEDIA_TYPE)


def http_problem(error: HTTPException) -> Response:
    """Return the answer to a request for what there is no route for, or that is too large or too slow."""
    code = _CODES.get(error.status_code, "usage")
    detail = _DETAILS.get(error.status_code, str(error.detail))
    return build_problem(error.status_code, code, detail, headers=dict(error.headers or {}))


def mistake_problem(request: Request) -> Response:
    """Return the answer to a request that a mistake of the server has ended; the middleware is left by then."""
    return build_problem(500, "internal", MISTAKE, headers=mistake_headers(request))


def mistake_headers(request: Request) -> dict[str, str]:
    """Return the headers of such an answer: uvicorn closes the connection behind it, and the next one would be lost."""
    return {"X-Request-Id": request.state.request_id, "Connection": "close"}


def install_problems(app: FastAPI) -> None:
    """Let every error of the application be answered with problem details."""

    @app.exception_handler(LoregError)
    def answer_loreg_error(request: Request, error: LoregError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    def answer_invalid_request(request: Request, error: RequestValidationError) -> Response:
        first: Mapping[str, Any] = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        return build_problem(400, "usage", f"{location}: {first['msg']}", "/openapi.json says what is expected")

    @app.exception_handler(HTTPException)
    def answer_http_error(request: Request, error: HTTPException) -> Response:
        return http_problem(error)

    @app.exception_handler(Exception)
    def answer_unexpected_error(request: Request, error: Exception) -> Response:
        return mistake_problem(request)
