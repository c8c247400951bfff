"""Take in blobs that clients send: who may send what, and what of it may become part of a version."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from loreg.catalog import Catalog, Transaction, garbage, tombstones, uploads
from loreg.entities import Access, Role, Upload
from loreg.errors import IntegrityError, LoregError, NotAllowedError, NotFoundError, UsageError
from loreg.local.authorization import require_somewhere
from loreg.local.reference_writes import write_references
from loreg.manifest import is_digest
from loreg.storage import AcceptedUpload, Blob, BlobStore, PresignedUpload, SigningStore, put_bytes
from loreg.storage.blobs import SMALL

_MAX_CACHED_CONTENT = 1024 * 1024  # bytes of contents that a commit will read: what comes after is read again
_MAX_UPLOAD = 5 * 1024**3  # bytes, S3's limit for one PUT, the only kind whose SHA-256 covers the whole object


class Uploads:
    """The uploads of a caller with ``access``, who must not learn whether a blob that it may not read is stored.

    Therefore every upload goes to a place of its own, even if the blob is stored, or being sent by another client.
    """

    def __init__(self, catalog: Catalog, store: BlobStore, access: Access) -> None:
        self._catalog = catalog
        self._store = store
        self._access = access

    def reserve(self, blobs: Sequence[Blob]) -> tuple[tuple[Upload, PresignedUpload | None], ...]:
        """Reserve an upload for each blob that must be sent, with a URL where the store takes it itself.

        Those are the blobs that the caller may not read, and those that the store lacks or has damaged. Raises
        UsageError for what is no blob, or too large, NotAllowedError for what was deleted for good.
        """
        require_somewhere(self._access, Role.WRITE)
        if malformed := next((blob for blob in blobs if not is_digest(blob.sha256) or blob.size < 0), None):
            raise UsageError(f"{malformed.sha256[:70]!r} is no sha256, or {malformed.size} no size", hint="push again")
        if large := next((blob for blob in blobs if blob.size > _MAX_UPLOAD), None):
            raise UsageError(
                f"blob {large.sha256[:12]} has {large.size:,} bytes, a server takes {_MAX_UPLOAD:,}",
                hint="push it with LOREG_DATABASE_URL and LOREG_STORAGE_URL instead of LOREG_ENDPOINT",
            )
        by_digest = {blob.sha256: blob for blob in blobs}
        with self._catalog.write(self._access) as tx:
            tombstones.refuse_banned(tx, by_digest.keys())
            garbage.lease(tx, by_digest.keys())
            readable = uploads.find_readable(tx, list(by_digest))
            reserved = self._reserve(tx, [blob for blob in by_digest.values() if blob.sha256 not in readable])
        if missing := [by_digest[digest] for digest in sorted(readable) if not self._store.has(by_digest[digest])]:
            with self._catalog.write(self._access) as tx:
                tombstones.refuse_banned(tx, {blob.sha256 for blob in missing})  # that is why they are missing, perhaps
                reserved += self._reserve(tx, missing)
        return tuple((upload, self._presign(upload)) for upload in reserved)

    def _presign(self, upload: Upload) -> PresignedUpload | None:
        if not isinstance(self._store, SigningStore):
            return None
        return self._store.upload_url(Blob(upload.sha256, upload.size), upload.id)

    def _reserve(self, tx: Transaction, blobs: Sequence[Blob]) -> list[Upload]:
        reserved = [Upload(secrets.token_urlsafe(24), blob.sha256, blob.size) for blob in blobs]
        if reserved:
            uploads.reserve(tx, reserved)
        return reserved

    def find(self, upload_id: str) -> Upload:
        """Return the upload that the caller reserved under that id. Raises NotFoundError."""
        require_somewhere(self._access, Role.WRITE)
        with self._catalog.read(self._access) as tx:
            rows = uploads.find(tx, [upload_id])
        if not rows:
            raise NotFoundError("there is no such upload", hint="push again")
        return rows[0][0]

    def receive(self, upload: Upload, path: Path) -> None:
        """Store the file at ``path``, which was sent for the upload. Raises IntegrityError if it is another one."""
        self._store.put(Blob(upload.sha256, upload.size), path)
        for attempt in write_references(self._catalog, self._store, self._access):
            with attempt as tx:
                uploads.mark_received(tx, upload)

    @contextlib.contextmanager
    def accept(
        self, digests: Collection[str], upload_ids: Collection[str], contents: Collection[str] = ()
    ) -> Iterator[Mapping[str, AcceptedUpload]]:
        """Yield the blobs of a commit that the caller sent, by digest; the others it may read.

        ``contents`` are small blobs that came along, in base64. What was sent straight to the store stays there as
        well until the context ends without an error, so that a commit that failed can be repeated. Raises
        NotAllowedError for a blob that the caller neither sent nor may read.
        """
        require_somewhere(self._access, Role.WRITE)
        if malformed := next((digest for digest in digests if not is_digest(digest)), None):
            raise IntegrityError(f"{malformed[:70]!r} is no sha256", hint="push again")
        with self._catalog.read(self._access) as tx:
            tombstones.refuse_banned(tx, digests)
            # First what another commit takes away when its version is there: both are missed in the other order.
            sent = uploads.find(tx, upload_ids) if upload_ids else ()
            absent = set(digests) - uploads.find_readable(tx, digests)
        accepted = self._store_contents(digests, contents)
        cached_bytes = sum(blob.size for blob in accepted.values())
        for upload, received in sent:
            if upload.sha256 not in digests or upload.sha256 in accepted:
                continue
            if received:
                absent.discard(upload.sha256)
            elif isinstance(self._store, SigningStore) and (
                stored := self._store.accept_upload(Blob(upload.sha256, upload.size), upload.id)
            ):
                accepted[upload.sha256] = (
                    stored if cached_bytes + stored.size <= _MAX_CACHED_CONTENT else replace(stored, content=None)
                )
                cached_bytes += len(accepted[upload.sha256].content or b"")
        if absent := absent - accepted.keys():
            raise NotAllowedError(f"blob {min(absent)[:12]} was not sent", hint="push again")
        yield accepted
        if isinstance(self._store, SigningStore):
            with contextlib.suppress(LoregError):  # the hourly cleanup removes what stays
                self._store.forget_uploads([upload.id for upload, received in sent if not received])

    def _store_contents(self, digests: Collection[str], contents: Collection[str]) -> dict[str, AcceptedUpload]:
        """Store those of the contents that ``digests`` name, and return them by digest. Raises UsageError."""
        stored: dict[str, AcceptedUpload] = {}
        for text in contents:
            try:
                content = base64.b64decode(text, validate=True)
            except ValueError as error:
                raise UsageError("contents are not base64", hint="push again") from error
            if len(content) > SMALL:
                raise UsageError(
                    f"a content has {len(content):,} bytes, expected {SMALL:,} at most",
                    hint="announce it at /api/v1/uploads",
                )
            if hashlib.sha256(content).hexdigest() in digests:
                stored[put_bytes(self._store, content).sha256] = AcceptedUpload(len(content), content)
        return stored

    def require_readable(self, sha256: str) -> None:
        """Raise NotFoundError unless a version that the caller may read has the blob."""
        with self._catalog.read(self._access) as tx:
            if not uploads.find_readable(tx, [sha256]):
                raise NotFoundError(f"there is no blob {sha256[:12]}", hint="loreg ls")
