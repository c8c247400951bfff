"""Blobs in a local folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shlex
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from loreg.errors import UnavailableError, explain_os_errors
from loreg.file_modes import give, make_folder, permissions_of
from loreg.storage.blobs import (
    CHUNK,
    MAX_DOCUMENT,
    Blob,
    BytesCallback,
    VerifiedCache,
    chunks,
    damaged_document_error,
    damaged_error,
    digest_of,
    file_changed_error,
    ignore_bytes,
    key_of,
    missing_error,
    partial_path,
)
from loreg.storage.durable import AtomicFile, move_durably

_FICLONE = 0x40049409  # linux/fs.h


class _FileState(NamedTuple):
    """What changes with every change of a file; the time of its last change cannot be set by anybody."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FolderStore:
    """One file per blob, read-only, given its name when whole. Safe for several processes at once."""

    def __init__(self, folder: Path, is_new: Callable[[], bool] = lambda: True) -> None:
        """``is_new`` says whether nothing was ever stored: only then the folder is made."""
        self.folder = folder.absolute()
        self.url = str(self.folder)
        self._is_new = is_new
        self._proven = VerifiedCache()

    def size(self, sha256: str) -> int | None:
        """How many bytes the blob has."""
        with self._explained():
            try:
                return self._path(sha256).stat().st_size
            except FileNotFoundError:
                return None

    def has(self, blob: Blob) -> bool:
        """Whether the file is there and has the digest; it is hashed, if it was changed since that was done last."""
        state = self._state(blob.sha256)
        if state is None or state.size != blob.size:
            return False
        return self._proven.contains(blob.sha256, state) or self._is_sound(blob)

    def reserve_uploads(self, blobs: Sequence[Blob]) -> None:
        """Nobody need be asked."""

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Copy the file in, hashing it on the way.

        One that is there is hashed first: it takes less than half as long as storing it, and a flipped bit is found.
        """
        if self._is_sound(blob):
            on_bytes(blob.size)
            return False
        target = self._path(blob.sha256)
        with self._explained():
            if not target.parent.is_dir():
                self._refuse_lost()
                make_folder(target.parent, within=self.folder)
            new = AtomicFile(target.parent)
        with new:
            with self._explained():
                give(new.sink.fileno(), target.parent, permissions_of(target.parent) & 0o444)
                found = _copy_hashing(path, new.sink, on_bytes)
            if found != blob:
                raise file_changed_error(path, blob, found)
            with self._explained():
                new.commit(target)
        self._remember(blob)
        return True

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Clone the blob where the file system shares blocks (reflink), else copy it; never a hard link.

        An error in writing is the caller's to explain: it is not the store's.
        """
        partial = partial_path(path, blob)
        try:
            with self._opened(blob.sha256) as source, partial.open("wb") as sink:
                if _reflink(source, sink):
                    found = digest_of(partial, on_bytes)
                else:
                    found = self._copy_from_store(blob, source, sink, on_bytes)
            if found != blob:
                raise damaged_error(self.url, blob, found)
            move_durably(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """A small blob's bytes."""
        with self._opened(sha256) as stream, self._explained():
            data = stream.read(most + 1)
        if len(data) > most or hashlib.sha256(data).hexdigest() != sha256:
            raise damaged_document_error(self.url, sha256)
        return data

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """A part of a blob."""
        with self._opened(sha256) as stream, self._explained():
            stream.seek(start)
            return stream.read(size)

    def upload_url(self, blob: Blob, upload_id: str) -> None:
        """A folder takes nothing by itself."""
        return

    def accept_upload(self, blob: Blob, upload_id: str) -> None:
        """A folder takes nothing by itself."""
        return

    def forget_uploads(self, upload_ids: Collection[str]) -> None:
        """A folder takes nothing by itself."""

    def download_url(self, sha256: str) -> None:
        """A folder gives nothing by itself."""
        return

    def materialize_folder(self, name: str, files: Mapping[str, str]) -> None:
        """Only S3 can."""
        return

    def has_blobs(self) -> bool:
        """Look for the first."""
        with self._explained():
            return any((self.folder / "sha256").glob("??/" + 64 * "?"))

    def check(self) -> None:
        """Write and delete a file there, or where the folder would be made: making it would hide that it was gone."""
        self._refuse_lost()
        with self._explained():
            above = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
            with tempfile.TemporaryFile(dir=above):
                pass

    def _refuse_lost(self) -> None:
        """Raise UnavailableError if blobs were stored and there is no place of blobs: its disk is not mounted."""
        blobs = self.folder / "sha256"
        if blobs.is_dir() or self._is_new():
            return
        if not blobs.is_dir():  # who made it meanwhile did so before what is known came to be known
            raise UnavailableError(
                f"the store {self.url} is not there, though the catalog knows versions: their weights are gone with it",
                hint="mount its disk, or set LOREG_STORAGE_URL to where it is now; if it is lost for good, start a new "
                f"one: mkdir -p {shlex.quote(str(blobs))}",
            )

    def _path(self, sha256: str) -> Path:
        return self.folder / key_of(sha256)

    @contextlib.contextmanager
    def _opened(self, sha256: str) -> Iterator[BinaryIO]:
        """The blob's file. Raises NotFoundError."""
        with self._explained():
            try:
                stream = self._path(sha256).open("rb")
            except FileNotFoundError:
                raise missing_error(self.url, sha256) from None
        with stream:
            yield stream

    def _state(self, sha256: str) -> _FileState | None:
        with self._explained():
            try:
                found = self._path(sha256).stat()
            except FileNotFoundError:
                return None
        return _FileState(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _is_sound(self, blob: Blob) -> bool:
        """Whether the file has the blob's size and, hashed now, its digest."""
        state = self._state(blob.sha256)
        if state is None or state.size != blob.size:
            return False
        with self._explained():
            try:
                sound = digest_of(self._path(blob.sha256)) == blob
            except FileNotFoundError:
                return False
        if sound:
            self._proven.add(blob.sha256, state)
        return sound

    def _remember(self, blob: Blob) -> None:
        """What was written just now need not be hashed by the commit that follows."""
        if (state := self._state(blob.sha256)) is not None:
            self._proven.add(blob.sha256, state)

    def _copy_from_store(self, blob: Blob, source: BinaryIO, sink: BinaryIO, on_bytes: BytesCallback) -> Blob:
        """Copy no more than was promised, and one byte that tells of more."""
        hasher, size = hashlib.sha256(), 0
        while size <= blob.size:
            with self._explained():
                chunk = source.read(min(CHUNK, blob.size + 1 - size))
            if not chunk:
                break
            hasher.update(chunk)
            sink.write(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
        return Blob(hasher.hexdigest(), size)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explain_os_errors(self.folder, "choose a store that you may write: export LOREG_STORAGE_URL=…")


def _copy_hashing(path: Path, sink: BinaryIO, on_bytes: BytesCallback) -> Blob:
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as source:
        for chunk in chunks(source):
            hasher.update(chunk)
            sink.write(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
    return Blob(hasher.hexdigest(), size)


def _reflink(source: BinaryIO, sink: BinaryIO) -> bool:
    """Share the blocks of ``source`` copy-on-write (Btrfs, XFS, bcachefs); False where it cannot be done."""
    try:
        fcntl.ioctl(sink.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True
