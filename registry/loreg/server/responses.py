"""Answer with values as JSON, and describe the errors of a route for OpenAPI."""

from __future__ import annotations

import msgspec
from fastapi.responses import Response

from loreg.server.problems import MEDIA_TYPE

_encoder = msgspec.json.Encoder()


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value (an entity, a tuple of them, plain JSON) as a response."""
    return Response(_encoder.encode(value), status, headers, "application/json")


def no_content() -> Response:
    """Return the empty response with status 204."""
    return Response(status_code=204)


def error_responses(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Return what OpenAPI says of these statuses, and of 400, 401, 403 and 503, which every route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": "a problem", "content": content} for status in (400, 401, 403, *statuses, 503)}
