"""A store of blobs in memory whose requests take their way through a simulated world: late, lost, out of order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

from loreg.errors import IntegrityError
from loreg.storage import AcceptedUpload, Blob, PresignedUpload
from loreg.storage.blobs import (
    MAX_DOCUMENT,
    BytesCallback,
    CopiedFile,
    IncomingUpload,
    Leftover,
    StoredObject,
    download_checked,
    ignore_bytes,
    missing_error,
)
from simulation.world import EPOCH, World

_HALVES = 2


class SimulatedStore:
    """What a folder can do: it asks first, and puts then."""

    url = "memory://store"
    prefix = ""  # of what the trace tells
    parallelism = 1
    asks_first = True

    def __init__(self, world: World, objects: Mapping[str, bytes], mark: str) -> None:
        self.world = world
        self.objects = dict(objects)
        self.mark = mark
        self.removed: list[str] = []
        #: When each blob was last stored, of those that were since the beginning.
        self.stored_at: dict[str, float] = {}
        #: Called when a blob was removed.
        self.on_delete = lambda: None

    def size(self, sha256: str) -> int | None:
        content = self._ask(f"size {sha256[:6]}", lambda: self.objects.get(sha256))
        return None if content is None else len(content)

    def has(self, blob: Blob) -> bool:
        return self._ask(f"has {blob.sha256[:6]}", lambda: blob.sha256 in self.objects)

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        content = path.read_bytes()
        on_bytes(len(content))
        if self.asks_first and self.has(blob):
            return False
        return self._put(blob.sha256, content)

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        path.write_bytes(self.read(blob.sha256))
        on_bytes(blob.size)

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        content = self._ask(f"read {sha256[:6]}", lambda: self.objects.get(sha256))
        if content is None:
            raise missing_error(self.url, sha256)
        if len(content) > most:
            raise IntegrityError(f"blob {sha256[:12]} is larger than {most}", hint="")
        return content

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        content = self._ask(f"read part of {sha256[:6]}", lambda: self.objects.get(sha256))
        if content is None:
            raise missing_error(self.url, sha256)
        return content[start : start + size]

    def check(self) -> None:
        pass

    def list(self) -> Iterator[Blob]:
        """List the blobs in two requests, as a store with many does in more: the second half is younger."""
        for half in range(_HALVES):
            digits = "0123456789abcdef"[8 * half : 8 * half + 8]
            listed = self._ask(
                f"list {digits[0]}–{digits[-1]}",
                lambda digits=digits: [Blob(k, len(v)) for k, v in self.objects.items() if k[0] in digits],
            )
            yield from listed

    def inspect(self, sha256: str) -> StoredObject | None:
        size = self.size(sha256)
        return None if size is None else StoredObject(size, sha256)

    def hash_stored(self, sha256: str, on_bytes: BytesCallback = ignore_bytes) -> Blob | None:
        content = self._ask(f"read {sha256[:6]}", lambda: self.objects.get(sha256))
        return None if content is None else Blob(hashlib.sha256(content).hexdigest(), len(content))

    def checked_file(self, blob: Blob) -> AbstractContextManager[Path]:
        return download_checked(self, blob)

    def list_leftovers(self) -> Iterator[Leftover]:
        return iter(())

    def owner(self) -> str:
        return self._ask("owner", lambda: self.mark)

    def claim(self, registry_id: str) -> str:
        def mark() -> str:
            self.mark = self.mark or registry_id
            return self.mark

        return self.world.request(f"{self.prefix}claim", mark, changes=True)

    def unmark_command(self) -> str:
        return "true"

    def delete(self, sha256: str) -> None:
        def remove() -> None:
            if self.objects.pop(sha256, None) is not None:
                self.removed.append(sha256)
                self.world.count("removed blobs")
                self.on_delete()

        self.world.request(f"delete {sha256[:6]}", remove, changes=True)

    def _ask(self, what, run):
        return self.world.request(f"{self.prefix}{what}", run, changes=False)

    def _put(self, sha256: str, content: bytes) -> bool:
        def add() -> bool:
            is_new = sha256 not in self.objects
            self.objects.setdefault(sha256, content)
            if is_new:
                self.stored_at[sha256] = self.world.now
            return is_new

        return self.world.request(f"{self.prefix}put {sha256[:6]}", add, changes=True)


class SimulatedSigningStore(SimulatedStore):
    """What S3 can do: it puts what is not there in one request, and takes uploads of those without its keys."""

    asks_first = False

    def __init__(self, world: World, objects: Mapping[str, bytes], mark: str) -> None:
        super().__init__(world, objects, mark)
        self.incoming: dict[str, tuple[bytes, datetime]] = {}
        #: The folders of copies by name, each with the digests of its files by path: all from before the schedule.
        self.copies: dict[str, dict[str, str]] = {}
        self._sizes = {digest: len(content) for digest, content in objects.items()}

    def upload_url(self, blob: Blob, upload_id: str) -> PresignedUpload:
        return PresignedUpload(upload_id, {})

    def send(self, upload_id: str, content: bytes) -> None:
        """PUT to a URL that :meth:`upload_url` gave out."""
        self.world.request(f"PUT {upload_id}", lambda: self._receive(upload_id, content), changes=True)

    def accept_upload(self, blob: Blob, upload_id: str) -> AcceptedUpload | None:
        sent = self._ask(f"read {upload_id}", lambda: self.incoming.get(upload_id))
        if sent is None:
            return None
        content, _ = sent
        self._put(blob.sha256, content)
        return AcceptedUpload(blob.size, content)

    def forget_uploads(self, upload_ids: Collection[str]) -> None:
        ids: Sequence[str] = tuple(upload_ids)
        if ids:
            self.world.request(
                f"forget {len(ids)} uploads", lambda: [self.incoming.pop(i, None) for i in ids], changes=True
            )

    def list_uploads(self) -> Iterator[IncomingUpload]:
        sent = self._ask("list uploads", lambda: [*self.incoming.items()])
        return iter([IncomingUpload(name, at, len(content)) for name, (content, at) in sent])

    def download_url(self, sha256: str) -> str:
        return f"memory://store/{sha256}"

    def materialize_folder(self, name: str, files: Mapping[str, str]) -> str:
        return f"memory://named/{name}"

    def list_copied_files(self) -> Iterator[CopiedFile]:
        if not self.copies:
            return
        listed = self._ask("list copies", lambda: [*self.copies.items()])
        for name, files in listed:
            for path, digest in files.items():
                yield CopiedFile(name, path, EPOCH - timedelta(days=1), self._sizes[digest])

    def inspect_copy(self, name: str, path: str) -> StoredObject | None:
        files = self._ask(f"inspect copy {name[:6]}", lambda: self.copies.get(name, {}))
        return StoredObject(self._sizes[files[path]], files[path]) if path in files else None

    def remove_copy(self, name: str) -> None:
        self.world.request(f"remove copy {name[:6]}", lambda: self.copies.pop(name, None), changes=True)

    def _receive(self, upload_id: str, content: bytes) -> None:
        self.incoming.setdefault(upload_id, (content, self.world.time))


class SimulatedBackup(SimulatedStore):
    """A place for a backup: blobs, and documents under names of their own."""

    url = "memory://backup"
    prefix = "backup: "

    def __init__(self, world: World) -> None:
        super().__init__(world, {}, "")
        self.documents: dict[str, bytes] = {}
        #: Called with the content of a document that was written.
        self.on_document: Callable[[bytes], None] = lambda content: None

    def create(self) -> None:
        pass

    def write_document(self, name: str, content: bytes) -> None:
        def write() -> None:
            self.documents[name] = content
            self.on_document(content)

        self.world.request("backup: write a snapshot", write, changes=True)

    def read_document(self, name: str) -> bytes:
        return self._ask("read a snapshot", lambda: self.documents[name])

    def list_documents(self, folder: str) -> list[str]:
        return self._ask("list snapshots", lambda: sorted(self.documents))

    def delete_document(self, name: str) -> None:
        self.world.request("backup: delete a snapshot", lambda: self.documents.pop(name, None), changes=True)
