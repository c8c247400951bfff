"""Serve the stylesheet, the scripts and the icon: from memory, under the digest of their content, cached for good."""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from loreg.errors import NotFoundError

FOLDER = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
PATH = "/_/{digest}/{name}"
#: Where a browser looks for the icon of what is no page, as of JSON.
ICON = "/favicon.ico"
routes = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent, also compressed; ``digest`` is the beginning of its sha256."""

    content: bytes
    compressed: bytes
    media_type: str
    digest: str


@functools.cache
def read_static_file(name: str) -> StaticFile:
    """Read a file that the pages use. Raises NotFoundError."""
    path = FOLDER / name
    if path.parent != FOLDER or path.suffix not in _MEDIA_TYPES or not path.is_file():
        raise NotFoundError("there is nothing at this path")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return StaticFile(content, gzip.compress(content, 9, mtime=0), _MEDIA_TYPES[path.suffix], digest)


def static_path(name: str) -> str:
    """Return the path of a file that the pages use; another content has another path."""
    return f"/_/{read_static_file(name).digest}/{name}"


@routes.api_route(PATH, methods=["GET", "HEAD"])
async def static(digest: str, name: str, request: Request) -> Response:
    """Send a file that the pages use."""
    file = read_static_file(name)
    if digest != file.digest:
        raise NotFoundError("there is nothing at this path")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return Response(file.compressed, 200, {**headers, "Content-Encoding": "gzip"}, file.media_type)
    return Response(file.content, 200, headers, file.media_type)


@routes.api_route(ICON, methods=["GET", "HEAD"])
async def icon() -> Response:
    """Send the icon."""
    file = read_static_file("favicon.svg")
    return Response(file.content, 200, {"Cache-Control": "public, max-age=86400"}, file.media_type)
