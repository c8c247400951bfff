"""Blobs on their way to a server: who may send what, and what of it may become part of a version."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from loreg.catalog import Catalog, Transaction, uploads
from loreg.entities import Access, Role, Upload
from loreg.errors import IntegrityError, LoregError, NotAllowedError, NotFoundError, UsageError
from loreg.local.authorization import require_somewhere
from loreg.manifest import is_digest
from loreg.storage import AcceptedUpload, Blob, BlobStore, PresignedUpload, SigningStore, put_bytes
from loreg.storage.blobs import SMALL

_MAX_CACHED_CONTENT = 1024 * 1024  # of contents that a commit will read: what comes after is read again
_MAX_UPLOAD = 5 * 1024**3  # S3's limit for one PUT, the only kind whose SHA-256 covers the whole object


class Uploads:
    """What who has ``access`` sends. Nobody learns by it whether a blob that he may not read is stored already.

    Therefore everything is sent to a place of its own, whether it is stored or being sent by somebody else, or not.
    """

    def __init__(self, catalog: Catalog, store: BlobStore, access: Access) -> None:
        self._catalog = catalog
        self._store = store
        self._access = access

    def announce(self, blobs: Sequence[Blob]) -> tuple[tuple[Upload, PresignedUpload | None], ...]:
        """An upload for each blob that may not be committed without, with a URL where the store takes it itself.

        Those are the blobs that the caller may not read, and of those that he may what the store lacks or has damaged.
        """
        require_somewhere(self._access, Role.WRITE)
        if wrong := next((blob for blob in blobs if not is_digest(blob.sha256) or blob.size < 0), None):
            raise UsageError(f"{wrong.sha256[:70]!r} is no sha256, or {wrong.size} no size", hint="push again")
        if large := next((blob for blob in blobs if blob.size > _MAX_UPLOAD), None):
            raise UsageError(
                f"blob {large.sha256[:12]} has {large.size:,} bytes, a server takes {_MAX_UPLOAD:,}",
                hint="push it with LOREG_DATABASE_URL and LOREG_STORAGE_URL instead of LOREG_ENDPOINT",
            )
        wanted = {blob.sha256: blob for blob in blobs}
        with self._catalog.write(self._access) as tx:
            known = uploads.find_readable(tx, list(wanted))
            announced = self._announce(tx, [blob for blob in wanted.values() if blob.sha256 not in known])
        if lacking := [wanted[digest] for digest in sorted(known) if not self._store.has(wanted[digest])]:
            with self._catalog.write(self._access) as tx:
                announced += self._announce(tx, lacking)
        return tuple((upload, self._signed(upload)) for upload in announced)

    def _signed(self, upload: Upload) -> PresignedUpload | None:
        if not isinstance(self._store, SigningStore):
            return None
        return self._store.upload_url(Blob(upload.sha256, upload.size), upload.id)

    def _announce(self, tx: Transaction, blobs: Sequence[Blob]) -> list[Upload]:
        announced = [Upload(secrets.token_urlsafe(24), blob.sha256, blob.size) for blob in blobs]
        if announced:
            uploads.reserve(tx, announced)
        return announced

    def find(self, upload_id: str) -> Upload:
        """What was announced under that id by who acts. Raises NotFoundError."""
        require_somewhere(self._access, Role.WRITE)
        with self._catalog.read(self._access) as tx:
            found = uploads.find(tx, [upload_id])
        if not found:
            raise NotFoundError("there is no such upload", hint="push again")
        return found[0][0]

    def receive(self, upload: Upload, path: Path) -> None:
        """Store the file at ``path``, which has come for the upload. Raises IntegrityError if it is another one."""
        self._store.put(Blob(upload.sha256, upload.size), path)
        with self._catalog.write(self._access) as tx:
            uploads.mark_received(tx, upload)

    @contextlib.contextmanager
    def accept(
        self, digests: Collection[str], upload_ids: Collection[str], contents: Collection[str] = ()
    ) -> Iterator[Mapping[str, AcceptedUpload]]:
        """Take in those of the blobs that the caller sent straight to the store, by digest; the others he may read.

        ``contents`` are small blobs that came along, in base64. What was sent is kept apart as well until the
        context ends without an error, so that what failed can be asked again. Raises NotAllowedError for a blob that
        he neither sent nor may read.
        """
        require_somewhere(self._access, Role.WRITE)
        if wrong := next((digest for digest in digests if not is_digest(digest)), None):
            raise IntegrityError(f"{wrong[:70]!r} is no sha256", hint="push again")
        with self._catalog.read(self._access) as tx:
            absent = set(digests) - uploads.find_readable(tx, digests)
            sent = uploads.find(tx, upload_ids) if upload_ids else ()
        taken = self._store_contents(digests, contents)
        kept = sum(one.size for one in taken.values())
        for upload, received in sent:
            if upload.sha256 not in digests or upload.sha256 in taken:
                continue
            if received:
                absent.discard(upload.sha256)
            elif isinstance(self._store, SigningStore) and (
                found := self._store.accept_upload(Blob(upload.sha256, upload.size), upload.id)
            ):
                taken[upload.sha256] = (
                    found if kept + found.size <= _MAX_CACHED_CONTENT else replace(found, content=None)
                )
                kept += len(taken[upload.sha256].content or b"")
        if absent := absent - taken.keys():
            raise NotAllowedError(f"blob {min(absent)[:12]} was not sent", hint="push again")
        yield taken
        if isinstance(self._store, SigningStore):
            with contextlib.suppress(LoregError):  # the hourly cleanup removes what stays
                self._store.forget_uploads([upload.id for upload, received in sent if not received])

    def _store_contents(self, digests: Collection[str], contents: Collection[str]) -> dict[str, AcceptedUpload]:
        """Store what came along, as far as it is asked for. Raises UsageError."""
        taken: dict[str, AcceptedUpload] = {}
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
                taken[put_bytes(self._store, content).sha256] = AcceptedUpload(len(content), content)
        return taken

    def require_readable(self, sha256: str) -> None:
        """Raise NotFoundError unless a version that may be read has the blob."""
        with self._catalog.read(self._access) as tx:
            if not uploads.find_readable(tx, [sha256]):
                raise NotFoundError(f"there is no blob {sha256[:12]}", hint="loreg show REF lists the files")
