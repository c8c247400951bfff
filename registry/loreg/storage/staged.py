"""A store in front of another, for what may yet be refused: of that nothing is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from loreg.storage.blobs import (
    MAX_DOCUMENT,
    AcceptedUpload,
    Blob,
    BlobStore,
    BytesCallback,
    PresignedUpload,
    ignore_bytes,
)


class StagedStore:
    """``store``, and new blobs that lie in ``folder`` until :meth:`keep` sends them to it."""

    def __init__(self, store: BlobStore, folder: Path) -> None:
        self.url = store.url
        self.folder = folder
        self._store = store
        self._staged: dict[str, Blob] = {}

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Move the file at ``path`` into the folder; its bytes are hashed when they are sent."""
        path.rename(self._path(blob.sha256))
        self._staged[blob.sha256] = blob
        on_bytes(blob.size)
        return True

    def flush(self) -> None:
        """Send what is new to the store. Raises what its ``put`` raises; what was sent by then is not sent again."""
        for blob in tuple(self._staged.values()):
            self._store.put(blob, self._path(blob.sha256))
            del self._staged[blob.sha256]

    def size(self, sha256: str) -> int | None:
        """How many bytes the blob has."""
        return self._staged[sha256].size if sha256 in self._staged else self._store.size(sha256)

    def has(self, blob: Blob) -> bool:
        """Whether it is staged, or the store has it sound."""
        return self._staged.get(blob.sha256) == blob or self._store.has(blob)

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Only of what is in the store."""
        self._store.get(blob, path, on_bytes)

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """A small blob's bytes."""
        return self._path(sha256).read_bytes() if sha256 in self._staged else self._store.read(sha256, most)

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """A part of a blob."""
        if sha256 not in self._staged:
            return self._store.read_part(sha256, start, size)
        with self._path(sha256).open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def reserve_uploads(self, blobs: Sequence[Blob]) -> None:
        """Nobody need be asked before :meth:`keep`."""

    def upload_url(self, blob: Blob, upload_id: str) -> PresignedUpload | None:
        """The store's."""
        return self._store.upload_url(blob, upload_id)

    def accept_upload(self, blob: Blob, upload_id: str) -> AcceptedUpload | None:
        """The store's."""
        return self._store.accept_upload(blob, upload_id)

    def forget_uploads(self, upload_ids: Collection[str]) -> None:
        """The store's."""
        self._store.forget_uploads(upload_ids)

    def download_url(self, sha256: str) -> str | None:
        """The store's."""
        return self._store.download_url(sha256)

    def materialize_folder(self, name: str, files: Mapping[str, str]) -> str | None:
        """The store's."""
        return self._store.materialize_folder(name, files)

    def has_blobs(self) -> bool | None:
        """The store's."""
        return self._store.has_blobs()

    def check(self) -> None:
        """The store's."""
        self._store.check()

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256
