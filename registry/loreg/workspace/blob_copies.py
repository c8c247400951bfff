"""Copy blobs from one store to another, several at once, each hashed on the way; what is there already stays."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from loreg.entities import DamageKind, Progress, no_progress
from loreg.errors import IntegrityError, NotFoundError, UnavailableError, explain_os_errors
from loreg.storage import Blob, BlobStore, FolderStore
from loreg.storage.blobs import key_of
from loreg.workspace.in_order import map_in_order
from loreg.workspace.stored_index import StoredIndex

_CHUNK, _CHUNK_BYTES = 16, 4 * 1024 * 1024  # blobs and bytes that a thread copies before it answers
_BETWEEN_FOLDERS = 16  # threads: most of them wait for the disk to have what they wrote
_IN_MEMORY = 1024 * 1024  # bytes of a blob that is read in one request


@dataclass
class CopyCounts:
    """How much was copied so far, and how much was there."""

    new: int = 0
    new_size: int = 0
    known: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Return how long ago it began."""
        return time.monotonic() - self.began


@dataclass(frozen=True)
class LostBlob:
    """A blob that the source has not, or not whole: how, and the size that it has there."""

    blob: Blob
    kind: DamageKind
    stored_size: int | None


@dataclass(frozen=True)
class Copying:
    """From where to where, and whether what the target has already is ``checked``: by its bytes or a checksum."""

    source: BlobStore
    target: BlobStore
    checked: bool = False

    def copy(
        self,
        blobs: Iterable[Blob],
        counts: CopyCounts,
        *,
        total: int = 0,
        on_chunk: Callable[[], None] = lambda: None,
        progress: Progress = no_progress,
    ) -> Iterator[LostBlob]:
        """Copy what the target has not; yield what the source has not. The order of digests is the quickest.

        ``total`` is how many blobs there are, for ``progress``; ``on_chunk`` is called after every few. A second call
        goes on where an interrupted one stopped.
        """
        parallelism = max(self.source.parallelism, self.target.parallelism)
        if isinstance(self.source, FolderStore) and isinstance(self.target, FolderStore):
            parallelism = max(parallelism, _BETWEEN_FOLDERS)
        with tempfile.TemporaryDirectory(prefix="loreg-copy-") as name, ThreadPoolExecutor(parallelism) as pool:
            folder = Path(name)
            index = StoredIndex(folder / "index", self.target.list())
            chunks = _cut_into_chunks((blob, index.contains(blob)) for blob in blobs)
            done = 0
            for chunk in map_in_order(pool, parallelism, lambda items: self._copy_chunk(items, folder), chunks):
                for blob, outcome in chunk:
                    if isinstance(outcome, LostBlob):
                        yield outcome
                    elif outcome:
                        counts.new += 1
                        counts.new_size += blob.size
                    else:
                        counts.known += 1
                done += len(chunk)
                on_chunk()
                progress("copying", done, max(total, done))

    def _copy_chunk(self, items: list[tuple[Blob, bool]], folder: Path) -> list[tuple[Blob, bool | LostBlob]]:
        return [(blob, self._copy_one(blob, is_known, folder / blob.sha256)) for blob, is_known in items]

    def _copy_one(self, blob: Blob, is_known: bool, path: Path) -> bool | LostBlob:
        """Return whether the blob was copied; False if it was there."""
        if is_known and (not self.checked or self.target.has(blob)):
            return False
        try:
            with explain_os_errors(path, "export TMPDIR=… to a folder with room"):
                return self._transfer(blob, path)
        except (IntegrityError, NotFoundError, UnavailableError) as error:
            actual = self.source.hash_stored(blob.sha256)
            if actual == blob and isinstance(error, NotFoundError):  # it was deleted, and is stored again
                return self._transfer(blob, path)
            if actual == blob:
                raise
            kind = DamageKind.MISSING if actual is None else DamageKind.DAMAGED
            if actual is not None and actual.size != blob.size:
                kind = DamageKind.SIZE
            return LostBlob(blob, kind, None if actual is None else actual.size)
        finally:
            path.unlink(missing_ok=True)

    def _transfer(self, blob: Blob, path: Path) -> bool:
        """Put the blob into the target; ``path`` is for its bytes, where the source has no file of it."""
        if isinstance(self.source, FolderStore):
            path = self.source.folder / key_of(blob.sha256)
        elif blob.size <= _IN_MEMORY:
            path.write_bytes(self.source.read(blob.sha256))
        else:
            self.source.get(blob, path)
        return self.target.put(blob, path)


def _cut_into_chunks(items: Iterable[tuple[Blob, bool]]) -> Iterator[list[tuple[Blob, bool]]]:
    chunk: list[tuple[Blob, bool]] = []
    size = 0
    for blob, is_known in items:
        chunk.append((blob, is_known))
        size += blob.size
        if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
