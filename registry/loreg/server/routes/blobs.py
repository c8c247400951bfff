"""Weights in and out: URLs of the store where it signs them, else through the server, with ranges."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Header, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from loreg.errors import IntegrityError, NotFoundError
from loreg.schemas import BlobSpec, UploadTicket
from loreg.server.bodies import BodyRoute, read_stream
from loreg.server.dependencies import Sha256
from loreg.server.responses import error_responses, json_response, no_content
from loreg.server.state import CurrentAccess, ServiceDep
from loreg.storage import Blob, BlobStore
from loreg.storage.blobs import PUSH_AGAIN

routes = APIRouter(prefix="/api/v1", tags=["blobs"], route_class=BodyRoute)
_CHUNK = 1024 * 1024
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


@routes.post("/uploads", response_model=tuple[UploadTicket, ...], responses=error_responses())
def announce(
    body: Annotated[tuple[BlobSpec, ...], Body(max_length=1000)],
    service: ServiceDep,
    access: CurrentAccess,
    request: Request,
) -> Response:
    """An upload for each of these blobs that cannot be committed without it."""
    found = service.uploads(access).announce([Blob(each.sha256, each.size) for each in body])
    grants = [
        UploadTicket(
            each.id,
            each.sha256,
            signed.url if signed else str(request.url_for("receive", upload_id=each.id).path),
            signed.headers if signed else {},
        )
        for each, signed in found
    ]
    return json_response(grants)


@routes.put(
    "/uploads/{upload_id}",
    status_code=204,
    responses=error_responses(404, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def receive(upload_id: str, request: Request, service: ServiceDep, access: CurrentAccess) -> Response:
    """The bytes of an announced blob, where the store does not take them itself."""
    uploads = service.uploads(access)
    upload = await run_in_threadpool(uploads.find, upload_id)
    with tempfile.TemporaryDirectory(prefix="loreg-upload-") as name:
        path = Path(name) / upload.sha256
        await _write(path, read_stream(request), Blob(upload.sha256, upload.size))
        await run_in_threadpool(uploads.receive, upload, path)
    return no_content()


async def _write(path: Path, body: AsyncIterator[bytes], expected: Blob) -> None:
    """Write the stream to ``path``; raise IntegrityError as soon as it cannot be ``expected`` any more."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as sink:
        async for chunk in body:
            size += len(chunk)
            if size > expected.size:
                break
            hasher.update(chunk)
            sink.write(chunk)
    if size != expected.size or hasher.hexdigest() != expected.sha256:
        what = f"over {expected.size}" if size > expected.size else f"{size}"
        raise IntegrityError(
            f"{what} bytes with sha256 {hasher.hexdigest()[:12]} were sent, announced were {expected.size} with "
            f"{expected.sha256[:12]}",
            hint="push again",
        )


@routes.get(
    "/blobs/{sha256}",
    responses={
        200: {"description": "The bytes.", "content": {"application/octet-stream": {}}},
        206: {"description": "A part of them.", "content": {"application/octet-stream": {}}},
        307: {"description": "Where the bytes are."},
        416: {"description": "No such part."},
        **error_responses(404),
    },
    response_class=Response,
)
def blob(
    sha256: Sha256,
    service: ServiceDep,
    access: CurrentAccess,
    range_: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """The bytes of a blob that a readable version has, or where they are; one range is honoured."""
    service.uploads(access).require_readable(sha256)
    if url := service.store.download_url(sha256):
        return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})
    return stream(service.store, sha256, range_)


@routes.head(
    "/blobs/{sha256}", responses={200: {"description": "Content-Length says its size."}, **error_responses(404)}
)
def size(sha256: Sha256, service: ServiceDep, access: CurrentAccess) -> Response:
    """How many bytes a blob has that a readable version has."""
    service.uploads(access).require_readable(sha256)
    return Response(headers={"Content-Length": str(_size_of(service.store, sha256)), "Accept-Ranges": "bytes"})


def stream(store: BlobStore, sha256: str, range_: str | None) -> Response:
    """The blob, or the part of it that a Range header asks for (RFC 9110, 14.2), a piece at a time."""
    size = _size_of(store, sha256)
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"', "Content-Disposition": "attachment"}
    start, end, status = 0, size, 200
    if match := _RANGE.fullmatch(range_ or ""):
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if start >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(_pieces(store, sha256, start, end), status, headers, "application/octet-stream")


def _size_of(store: BlobStore, sha256: str) -> int:
    size = store.size(sha256)
    if size is None:
        raise NotFoundError(
            f"blob {sha256[:12]} is not in the server's store", hint=f"if it is the right one, {PUSH_AGAIN}"
        )
    return size


def _pieces(store: BlobStore, sha256: str, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = store.read_part(sha256, start, min(_CHUNK, end - start))
        if not piece:
            return
        start += len(piece)
        yield piece
