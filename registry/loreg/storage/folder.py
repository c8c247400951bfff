"""The store of blobs in a local folder."""

from __future__ import annotations

import builtins
import contextlib
import functools
import hashlib
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from loreg.errors import UnavailableError, explain_os_errors
from loreg.file_modes import apply_permissions, make_folder, permissions_of, sync_folder
from loreg.storage.blobs import (
    CHUNK,
    MAX_DOCUMENT,
    OWNER,
    Blob,
    BytesCallback,
    Leftover,
    StoredObject,
    VerifiedCache,
    damaged_document_error,
    damaged_error,
    digest_of,
    file_changed_error,
    ignore_bytes,
    key_of,
    missing_document_error,
    missing_error,
    partial_path,
    read_chunks,
)
from loreg.storage.durable import AtomicFile, move_durably

_FICLONE = 0x40049409  # linux/fs.h


class _FileState(NamedTuple):
    """What changes with every change of a file; the time of its last status change cannot be set by a user."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FolderStore:
    """A store with one read-only file per blob, named when it is complete. Safe for several processes at once."""

    def __init__(self, folder: Path, is_new: Callable[[], bool] = lambda: True) -> None:
        """Take the folder; ``is_new`` says whether nothing was ever stored: only then the folder is created."""
        self.folder = folder.absolute()
        self.url = str(self.folder)
        self.parallelism = os.cpu_count() or 1
        self._is_new = is_new
        self._verified = VerifiedCache()

    def size(self, sha256: str) -> int | None:
        """Return the size of the blob's file; None if there is none."""
        with self._explain_os_errors():
            try:
                return self._path(sha256).stat().st_size
            except FileNotFoundError:
                return None

    def has(self, blob: Blob) -> bool:
        """Whether the file has the digest; it is hashed, unless it was in the last minute and has not changed since."""
        state = self._state(blob.sha256)
        if state is None or state.size != blob.size:
            return False
        return self._verified.contains(blob.sha256, state) or self._is_sound(blob)

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Copy the file into the folder, hashing it on the way.

        A file that is there is hashed first: that takes less than half as long as storing it, and finds a flipped bit.
        """
        if self._is_sound(blob):
            on_bytes(blob.size)
            return False
        target = self._path(blob.sha256)
        with self._explain_os_errors():
            if not target.parent.is_dir():
                self._refuse_lost()
                make_folder(target.parent, within=self.folder)
            new = AtomicFile(target.parent)
        with new:
            with self._explain_os_errors():
                apply_permissions(new.sink.fileno(), target.parent, permissions_of(target.parent) & 0o444)
                copied = _copy_hashing(path, new.sink, on_bytes)
            if copied != blob:
                raise file_changed_error(path, blob, copied)
            with self._explain_os_errors():
                new.commit(target)
        self._mark_verified(blob)
        return True

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Clone the blob where the file system shares blocks (reflink), else copy it; never make a hard link.

        A partial file is removed, whatever happens: copying again is quick.
        """
        partial = partial_path(path, blob)
        try:
            with self._open_blob(blob.sha256) as source, partial.open("wb") as sink:
                if _reflink(source, sink):
                    copied = digest_of(partial, on_bytes)
                else:
                    copied = self._copy_from_store(blob, source, sink, on_bytes)
            if copied != blob:
                raise damaged_error(self.url, blob, copied)
            move_durably(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """Return the bytes of a small blob, compared with its digest."""
        with self._open_blob(sha256) as stream, self._explain_os_errors():
            data = stream.read(most + 1)
        if len(data) > most or hashlib.sha256(data).hexdigest() != sha256:
            raise damaged_document_error(self.url, sha256)
        return data

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """Return a part of a blob."""
        with self._open_blob(sha256) as stream, self._explain_os_errors():
            stream.seek(start)
            return stream.read(size)

    def list(self) -> Iterator[Blob]:
        """Look into every folder of blobs; files that are no blobs are passed over."""
        with self._explain_os_errors():
            for path in (self.folder / "sha256").glob("??/" + 64 * "?"):
                with contextlib.suppress(FileNotFoundError):
                    yield Blob(path.name, path.stat().st_size)

    def inspect(self, sha256: str) -> StoredObject | None:
        """Return the size of the blob's file: a folder keeps no checksum."""
        size = self.size(sha256)
        return None if size is None else StoredObject(size)

    def hash_stored(self, sha256: str, on_bytes: BytesCallback = ignore_bytes) -> Blob | None:
        """Hash the blob's file, whatever was verified in the last minute."""
        with self._explain_os_errors():
            try:
                return digest_of(self._path(sha256), on_bytes)
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def checked_file(self, blob: Blob) -> Iterator[Path]:
        """Hash the blob's own file: nothing is copied."""
        if (stored := self.hash_stored(blob.sha256)) is None:
            raise missing_error(self.url, blob.sha256)
        if stored != blob:
            raise damaged_error(self.url, blob, stored)
        yield self._path(blob.sha256)

    def list_leftovers(self) -> Iterator[Leftover]:
        """Return the files, and the empty folders, whose names are those of what is not complete yet."""
        with self._explain_os_errors():
            for pattern in (".new-*", "sha256/.new-*", "sha256/??/.put-*"):
                for path in self.folder.glob(pattern):
                    with contextlib.suppress(FileNotFoundError):
                        status, is_folder = path.lstat(), path.is_dir() and not path.is_symlink()
                        if not is_folder or not any(path.iterdir()):
                            at, size = datetime.fromtimestamp(status.st_mtime, UTC), 0 if is_folder else status.st_size
                            yield Leftover(str(path), at, size, functools.partial(self._remove_leftover, path))

    def owner(self) -> str:
        """Read the file that marks the store."""
        with self._explain_os_errors():
            try:
                return (self.folder / OWNER).read_text(encoding="ascii", errors="replace").strip()
            except FileNotFoundError:
                return ""

    def claim(self, registry_id: str) -> str:
        """Make the file that marks the store, under its name when it is complete: of several callers one can."""
        if not (owner := self.owner()) and self.folder.is_dir():
            with self._explain_os_errors(), AtomicFile(self.folder) as new:
                apply_permissions(new.sink.fileno(), self.folder, permissions_of(self.folder) & 0o444)
                new.sink.write(registry_id.encode())
                if not new.commit_new(self.folder / OWNER):
                    return self.owner()
        return owner or registry_id

    def unmark_command(self) -> str:
        """Return how to remove the file that marks the store."""
        return f"rm -f {shlex.quote(str(self.folder / OWNER))}"

    def delete(self, sha256: str) -> None:
        """Remove the file; that it is gone is on the disk when this returns."""
        path = self._path(sha256)
        with self._explain_os_errors():
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_folder(path.parent)

    def create(self) -> None:
        """Make the folder, unless it is there."""
        with self._explain_os_errors():
            make_folder(self.folder)

    def write_document(self, name: str, content: bytes) -> None:
        """Write a file, under its name when it is complete and on the disk."""
        path = self.folder / name
        with self._explain_os_errors():
            make_folder(path.parent, within=self.folder)
            with AtomicFile(path.parent) as new:
                apply_permissions(new.sink.fileno(), path.parent, permissions_of(path.parent) & 0o444)
                new.sink.write(content)
                new.commit(path)

    def read_document(self, name: str) -> bytes:
        """Read the file."""
        with self._explain_os_errors():
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError as error:
                raise missing_document_error(self.url, name) from error

    def list_documents(self, folder: str) -> builtins.list[str]:
        """List the files; those with hidden names are not complete."""
        with self._explain_os_errors():
            return sorted(f"{folder}/{path.name}" for path in (self.folder / folder).glob("[!.]*"))

    def delete_document(self, name: str) -> None:
        """Remove the file; that it is gone is on the disk when this returns."""
        path = self.folder / name
        with self._explain_os_errors(), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def check(self) -> None:
        """Write and delete a file in the folder, or above a missing one: creating it would hide that a disk is lost."""
        self._refuse_lost()
        with self._explain_os_errors():
            above = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
            with tempfile.TemporaryFile(dir=above):
                pass

    def _refuse_lost(self) -> None:
        """Raise UnavailableError if blobs were stored and their folder is not there: its disk is not mounted."""
        blobs = self.folder / "sha256"
        if blobs.is_dir() or self._is_new():
            return
        if not blobs.is_dir():  # asked again: another process may have created it before it recorded the first blob
            raise UnavailableError(
                f"the store {self.url} is not there, though the catalog knows versions: their weights are gone with it",
                hint="mount its disk, or set LOREG_STORAGE_URL to where it is now; if it is lost for good, start a new "
                f"one: mkdir -p {shlex.quote(str(blobs))}",
            )

    def _remove_leftover(self, path: Path) -> None:
        with self._explain_os_errors(), contextlib.suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    def _path(self, sha256: str) -> Path:
        return self.folder / key_of(sha256)

    @contextlib.contextmanager
    def _open_blob(self, sha256: str) -> Iterator[BinaryIO]:
        """Open the blob's file. Raises NotFoundError."""
        with self._explain_os_errors():
            try:
                stream = self._path(sha256).open("rb")
            except FileNotFoundError as error:
                raise missing_error(self.url, sha256) from error
        with stream:
            yield stream

    def _state(self, sha256: str) -> _FileState | None:
        with self._explain_os_errors():
            try:
                status = self._path(sha256).stat()
            except FileNotFoundError:
                return None
        return _FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def _is_sound(self, blob: Blob) -> bool:
        """Whether the file has the blob's size and, hashed now, its digest."""
        state = self._state(blob.sha256)
        if state is None or state.size != blob.size:
            return False
        with self._explain_os_errors():
            try:
                sound = digest_of(self._path(blob.sha256)) == blob
            except FileNotFoundError:
                return False
        if sound:
            self._verified.add(blob.sha256, state)
        return sound

    def _mark_verified(self, blob: Blob) -> None:
        """Record a blob that was written just now as verified: the commit that follows need not hash it."""
        if (state := self._state(blob.sha256)) is not None:
            self._verified.add(blob.sha256, state)

    def _copy_from_store(self, blob: Blob, source: BinaryIO, sink: BinaryIO, on_bytes: BytesCallback) -> Blob:
        """Copy the blob's bytes, and at most one byte more, which shows that the file is too long."""
        hasher, size = hashlib.sha256(), 0
        while size <= blob.size:
            with self._explain_os_errors():
                chunk = source.read(min(CHUNK, blob.size + 1 - size))
            if not chunk:
                break
            hasher.update(chunk)
            sink.write(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
        return Blob(hasher.hexdigest(), size)

    def _explain_os_errors(self) -> contextlib.AbstractContextManager[None]:
        return explain_os_errors(self.folder, "choose a store that you may write: export LOREG_STORAGE_URL=…")


def _copy_hashing(path: Path, sink: BinaryIO, on_bytes: BytesCallback) -> Blob:
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as source:
        for chunk in read_chunks(source):
            hasher.update(chunk)
            sink.write(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
    return Blob(hasher.hexdigest(), size)


def _reflink(source: BinaryIO, sink: BinaryIO) -> bool:
    """Share the blocks of ``source`` copy-on-write (Btrfs, XFS, bcachefs); False where it cannot be done."""
    try:
        import fcntl

        fcntl.ioctl(sink.fileno(), _FICLONE, source.fileno())
    except (ImportError, OSError):
        return False
    return True
