"""A store that stages new blobs in a folder, so that nothing is stored of a commit that is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

from loreg.storage.blobs import (
    MAX_DOCUMENT,
    Blob,
    BlobTransfer,
    BytesCallback,
    ignore_bytes,
)


class StagedStore:
    """``store``, and new blobs that lie in ``folder`` until :meth:`flush` sends them to it."""

    def __init__(self, store: BlobTransfer, folder: Path) -> None:
        self.url = store.url
        self.folder = folder
        self._store = store
        self._staged: dict[str, Blob] = {}

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Move the file at ``path`` into the folder; :meth:`flush` hashes it when it sends it. Returns True."""
        shutil.move(path, self._path(blob.sha256))  # the two may lie on different file systems
        self._staged[blob.sha256] = blob
        on_bytes(blob.size)
        return True

    def discard(self, sha256: str) -> None:
        """Drop a staged blob, so that it is never sent; does nothing for one that is not staged."""
        if self._staged.pop(sha256, None):
            self._path(sha256).unlink()

    def flush(self) -> None:
        """Send the staged blobs to the store. Raises what its ``put`` raises; a second call sends the rest."""
        for blob in tuple(self._staged.values()):
            self._store.put(blob, self._path(blob.sha256))
            del self._staged[blob.sha256]

    def size(self, sha256: str) -> int | None:
        """Return the size of a staged or stored blob."""
        return self._staged[sha256].size if sha256 in self._staged else self._store.size(sha256)

    def has(self, blob: Blob) -> bool:
        """Whether the blob is staged, or the store has it sound."""
        return self._staged.get(blob.sha256) == blob or self._store.has(blob)

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Write a blob of the store to ``path``; staged ones are not found."""
        self._store.get(blob, path, on_bytes)

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """Return the bytes of a small blob; of a staged one, whole and unchecked."""
        return self._path(sha256).read_bytes() if sha256 in self._staged else self._store.read(sha256, most)

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """Return a part of a staged or stored blob."""
        if sha256 not in self._staged:
            return self._store.read_part(sha256, start, size)
        with self._path(sha256).open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def check(self) -> None:
        """Do as the store does."""
        self._store.check()

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256
