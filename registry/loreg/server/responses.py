"""Values of loreg as JSON, and what every route says of its errors."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi.responses import Response

from loreg.server.problems import MEDIA_TYPE

_encoder = msgspec.json.Encoder()


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value of loreg as a response."""
    return Response(_encoder.encode(value), status, headers, "application/json")


def no_content() -> Response:
    """Done, and there is nothing to say."""
    return Response(status_code=204)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of these answers; every route may also answer 400, 401, 403 and 503."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": "a problem", "content": content} for status in (400, 401, 403, *statuses, 503)}
