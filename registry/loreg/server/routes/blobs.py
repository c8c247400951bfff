"""Routes to upload and download blobs: by signed URLs of the store, else through the server, with ranges."""

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
from loreg.storage import Blob, BlobTransfer, SigningStore
from loreg.storage.blobs import PUSH_AGAIN

routes = APIRouter(prefix="/api/v1", tags=["blobs"], route_class=BodyRoute)
_CHUNK_BYTES = 1024 * 1024
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


@routes.post("/uploads", response_model=tuple[UploadTicket, ...], responses=error_responses())
def announce(
    body: Annotated[tuple[BlobSpec, ...], Body(max_length=1000)],
    service: ServiceDep,
    access: CurrentAccess,
    request: Request,
) -> Response:
    """Announce blobs that a commit will name; returns an upload for each that has to be sent first."""
    announced = service.uploads(access).reserve([Blob(spec.sha256, spec.size) for spec in body])
    tickets = [
        UploadTicket(
            upload.id,
            upload.sha256,
            signed.url if signed else str(request.url_for("receive", upload_id=upload.id).path),
            signed.headers if signed else {},
        )
        for upload, signed in announced
    ]
    return json_response(tickets)


@routes.put(
    "/uploads/{upload_id}",
    status_code=204,
    responses=error_responses(404, 422),
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def receive(upload_id: str, request: Request, service: ServiceDep, access: CurrentAccess) -> Response:
    """Receive the bytes of an announced blob, where the store does not take them itself."""
    uploads = service.uploads(access)
    upload = await run_in_threadpool(uploads.find, upload_id)
    with tempfile.TemporaryDirectory(prefix="loreg-upload-") as name:
        path = Path(name) / upload.sha256
        await _write_stream(path, read_stream(request), Blob(upload.sha256, upload.size))
        await run_in_threadpool(uploads.receive, upload, path)
    return no_content()


async def _write_stream(path: Path, body: AsyncIterator[bytes], expected: Blob) -> None:
    """Write the stream to ``path``. Raises IntegrityError if it is not ``expected``, at once if it is too long."""
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as sink:
        async for chunk in body:
            size += len(chunk)
            if size > expected.size:
                break
            hasher.update(chunk)
            sink.write(chunk)
    if size != expected.size or hasher.hexdigest() != expected.sha256:
        received = f"over {expected.size}" if size > expected.size else f"{size}"
        raise IntegrityError(
            f"{received} bytes with sha256 {hasher.hexdigest()[:12]} were sent, announced were {expected.size} with "
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
    """Send a blob of a version that the caller may read, or redirect to it; a single range is honoured."""
    service.uploads(access).require_readable(sha256)
    if isinstance(service.store, SigningStore):
        url = service.store.download_url(sha256)
        return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})
    return stream_blob(service.store, sha256, range_)


@routes.head(
    "/blobs/{sha256}", responses={200: {"description": "Content-Length says its size."}, **error_responses(404)}
)
def size(sha256: Sha256, service: ServiceDep, access: CurrentAccess) -> Response:
    """Return the size of a blob of a version that the caller may read, without its bytes."""
    service.uploads(access).require_readable(sha256)
    return Response(headers={"Content-Length": str(_require_size(service.store, sha256)), "Accept-Ranges": "bytes"})


def stream_blob(store: BlobTransfer, sha256: str, range_: str | None) -> Response:
    """Stream a blob, or the part of it that a Range header asks for (RFC 9110, 14.2)."""
    size = _require_size(store, sha256)
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"', "Content-Disposition": "attachment"}
    start, end, status = 0, size, 200
    if match := _RANGE.fullmatch(range_ or ""):
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if start >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(_read_range(store, sha256, start, end), status, headers, "application/octet-stream")


def _require_size(store: BlobTransfer, sha256: str) -> int:
    size = store.size(sha256)
    if size is None:
        raise NotFoundError(
            f"blob {sha256[:12]} is not in the server's store", hint=f"if it is the right one, {PUSH_AGAIN}"
        )
    return size


def _read_range(store: BlobTransfer, sha256: str, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        chunk = store.read_part(sha256, start, min(_CHUNK_BYTES, end - start))
        if not chunk:
            return
        start += len(chunk)
        yield chunk
