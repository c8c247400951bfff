"""Send blobs to a server and read them: straight to and from its store where that gives out URLs, else through it."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from loreg.errors import NotFoundError, UnavailableError
from loreg.remote.connections import NoResponseError, Response
from loreg.remote.http import Server
from loreg.remote.retries import RetryableError, with_retries
from loreg.schemas import UploadTicket
from loreg.storage import Blob, digest_of
from loreg.storage.blobs import (
    MAX_DOCUMENT,
    SMALL,
    BytesCallback,
    damaged_document_error,
    file_changed_error,
    ignore_bytes,
    missing_error,
    read_chunks,
    resume_download,
)

_PART = 16 * 1024 * 1024  # bytes of one ranged request
_CONCURRENT_PARTS = 4
_MAX_RESERVED = 1000  # uploads that a server reserves in one request
_MAX_INLINE = 512 * 1024  # bytes of small blobs that go along with the commit: with its manifest they fit into one body
_API = "/api/v1"


class RemoteStore:
    """The blobs of a server. What was sent but is in no version yet is known to the server by its uploads' ids.

    Small blobs are held until the commit and sent with it: a request less for each, and nothing left to collect.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._upload_ids: dict[str, str] = {}
        self._inline: dict[str, bytes] = {}
        self._tickets: dict[str, UploadTicket | None] = {}
        self._download_urls: dict[str, str] = {}
        self.url = server.endpoint

    def upload_ids(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Return the ids under which these blobs were sent, as far as they were."""
        return tuple(self._upload_ids[digest] for digest in digests if digest in self._upload_ids)

    def inline_contents(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Return these blobs in base64, as far as they are held."""
        inline = dict(self._inline)
        return tuple(base64.b64encode(inline[digest]).decode() for digest in dict.fromkeys(digests) if digest in inline)

    def forget_inline(self, digests: Iterable[str]) -> None:
        """Drop these blobs: a version has them now."""
        for digest in digests:
            self._inline.pop(digest, None)

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has; None if there is none that the caller may read."""
        try:
            return int(self._server.send("HEAD", f"{_API}/blobs/{sha256}").headers["content-length"])
        except NotFoundError:
            return None

    def has(self, blob: Blob) -> bool:
        """Return whether the caller may read a blob of that size; the server asks its store only when one is put."""
        return self.size(blob.sha256) == blob.size

    def reserve_uploads(self, blobs: Sequence[Blob]) -> None:
        """Ask the server where to send each blob, and which it has; not for blobs that go with the commit."""
        reserved, room = [], self._free_inline_bytes()
        for blob in blobs:
            if blob.size <= min(SMALL, room):
                room -= blob.size
            else:
                reserved.append(blob)
        for start in range(0, len(reserved), _MAX_RESERVED):
            self._tickets |= self._request_tickets(reserved[start : start + _MAX_RESERVED])

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Send the file, and return whether that was needed.

        It is not if the caller may read a version with it, and the server's store has it sound.
        """
        if blob.sha256 not in self._tickets and blob.size <= min(SMALL, self._free_inline_bytes()):
            self._keep_inline(blob, path)
            on_bytes(blob.size)
            return True

        def attempt() -> bool:
            try:
                ticket = self._tickets.pop(blob.sha256)
            except KeyError:  # nobody asked, or another thread that sends the blob took it
                ticket = self._request_tickets([blob])[blob.sha256]
            if ticket is None:
                on_bytes(blob.size)
                return False
            try:
                response = self._send(blob, path, ticket, on_bytes)
            except NoResponseError as error:
                raise RetryableError(self._server.unavailable_error(error)) from error
            if response.is_success:
                self._upload_ids[blob.sha256] = ticket.id
                return True
            if (actual := digest_of(path)) != blob:
                raise file_changed_error(path, blob, actual)
            if response.status >= 500 or _is_expired(response):
                raise RetryableError(self._server.response_error(response))
            raise self._server.response_error(response)

        return with_retries(attempt)

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Download a blob by ranges, several at once, from where an earlier attempt stopped."""
        resume_download(self.url, blob, path, lambda partial, count: self._download(blob, partial, count), on_bytes)

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """Return the bytes of a small blob. Raises IntegrityError if they are others, or more than ``most``."""
        data = self._request_bytes(sha256, most)
        if len(data) > most or hashlib.sha256(data).hexdigest() != sha256:
            raise damaged_document_error(self.url, sha256)
        return data

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """Return ``size`` bytes of a blob from ``start`` on, by one ranged request; fewer where it ends."""
        data = self._request_bytes(sha256, size, f"bytes={start}-{start + size - 1}") if size else b""
        if len(data) > size:
            raise UnavailableError(
                f"{self.url} sent more of blob {sha256[:12]} than it was asked for", hint="try again"
            )
        return data

    def check(self) -> None:
        """Raise the server's error unless it is ready."""
        self._server.send("GET", "/readyz")

    def close(self) -> None:
        """Close all connections."""
        self._server.close()

    def _free_inline_bytes(self) -> int:
        return _MAX_INLINE - sum(map(len, tuple(self._inline.values())))

    def _request_tickets(self, blobs: Sequence[Blob]) -> dict[str, UploadTicket | None]:
        """Return where to send each blob, by digest; None for those that the server has."""
        answer = self._server.post(f"{_API}/uploads", tuple[UploadTicket, ...], blobs)
        return {blob.sha256: None for blob in blobs} | {ticket.sha256: ticket for ticket in answer}

    def _keep_inline(self, blob: Blob, path: Path) -> None:
        content = path.read_bytes()
        actual = Blob(hashlib.sha256(content).hexdigest(), len(content))
        if actual != blob:
            raise file_changed_error(path, blob, actual)
        self._inline[blob.sha256] = content

    def _send(self, blob: Blob, path: Path, ticket: UploadTicket, on_bytes: BytesCallback) -> Response:
        headers = {**ticket.headers, "Content-Length": str(blob.size)}
        with path.open("rb") as stream:
            return self._server.send_once("PUT", ticket.url, headers, _read_counted(stream, blob, path, on_bytes))

    def _download(self, blob: Blob, partial: Path, on_bytes: BytesCallback) -> Blob:
        """Append to ``partial`` until it has the blob's size; return the digest and size of what it then holds.

        Parts come several at once and are written in order, so that the file is always a beginning of the blob; each
        part is hashed while it is written.
        """
        hasher = hashlib.sha256()
        with (
            partial.open("a+b") as sink,
            ThreadPoolExecutor(_CONCURRENT_PARTS) as pool,
            ThreadPoolExecutor(1) as writer,
        ):
            sink.seek(0)
            for chunk in read_chunks(sink):
                hasher.update(chunk)
                on_bytes(len(chunk))
            starts = iter(range(sink.tell(), blob.size, _PART))
            ahead: deque[Future[bytes]] = deque()
            while True:
                for start in islice(starts, _CONCURRENT_PARTS - len(ahead)):
                    ahead.append(pool.submit(self.read_part, blob.sha256, start, min(_PART, blob.size - start)))
                if not ahead:
                    return Blob(hasher.hexdigest(), sink.tell())
                piece = ahead.popleft().result()
                written = writer.submit(sink.write, piece)
                hasher.update(piece)
                written.result()
                on_bytes(len(piece))

    def _request_bytes(self, sha256: str, most: int, byte_range: str = "") -> bytes:
        """Return a blob or a part of it, from the URL that the server gave out if it did; one too old is renewed."""
        headers = {"Range": byte_range} if byte_range else {}

        def attempt() -> bytes:
            url = self._download_urls.get(sha256)
            if url is None:
                answer = self._server.send("GET", f"{_API}/blobs/{sha256}", headers=headers, max_bytes=most)
                if not answer.is_redirect:
                    return answer.data if answer.is_success else b""
                url = self._download_urls[sha256] = answer.headers["location"]
            try:
                response = self._server.connections.send("GET", url, headers, max_bytes=most)
            except NoResponseError as error:
                self._download_urls.pop(sha256, None)
                raise RetryableError(self._server.unavailable_error(error)) from error
            if response.status in (200, 206):
                return response.data
            if response.status == 416:  # it is cut off before that part
                return b""
            if response.status == 404:
                raise missing_error(f"the store of {self.url}", sha256)
            self._download_urls.pop(sha256, None)
            reason = f"the store of {self.url} answered {response.status}"
            raise RetryableError(UnavailableError(reason, hint="try again"))

        return with_retries(attempt)


def _is_expired(response: Response) -> bool:
    """Return whether the store refused a URL that may be too old: then the caller asks for another."""
    return response.status == 403 and b"expired" in response.data


def _read_counted(stream: BinaryIO, blob: Blob, path: Path, on_bytes: BytesCallback) -> Iterator[bytes]:
    """Read the blob's bytes; a file that has not as many any more would leave the server waiting for the rest."""
    remaining = blob.size
    for chunk in read_chunks(stream):
        remaining -= len(chunk)
        if remaining < 0:
            break
        yield chunk
        on_bytes(len(chunk))
    if remaining:
        raise file_changed_error(path, blob, digest_of(path))
