"""Blobs in a local folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from loreg.errors import IntegrityError, NotFoundError, explain_os_errors
from loreg.file_modes import give, make_folder, permissions_of
from loreg.storage.blobs import (
    CHUNK,
    Blob,
    OnBytes,
    changed,
    chunks,
    damaged,
    digest_of,
    ignore_bytes,
    key_of,
    partial_of,
)

_FICLONE = 0x40049409  # linux/fs.h


class FolderStore:
    """One file per blob, read-only, moved into place when whole. Safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = str(self.folder)

    def size(self, sha256: str) -> int | None:
        """How many bytes the blob has."""
        with self._explained():
            try:
                return self._path(sha256).stat().st_size
            except FileNotFoundError:
                return None

    def announce(self, blobs: Sequence[Blob]) -> None:
        """Nobody need be asked."""

    def put(self, blob: Blob, path: Path, on_bytes: OnBytes = ignore_bytes) -> bool:
        """Copy the file in, hashing it on the way."""
        if self.size(blob.sha256) is not None:
            on_bytes(blob.size)
            return False
        target = self._path(blob.sha256)
        with self._explained():
            make_folder(target.parent, within=self.folder)
            handle, name = tempfile.mkstemp(prefix=".put-", dir=target.parent)
        temporary = Path(name)
        try:
            with self._explained(), os.fdopen(handle, "wb") as sink:
                with path.open("rb") as stream:
                    found = _copy_hashing(chunks(stream), sink, on_bytes)
                sink.flush()
                give(sink.fileno(), target.parent, permissions_of(target.parent) & 0o444)
                os.fsync(sink.fileno())
            if found != blob:
                raise changed(path, blob, found)
            with self._explained():
                temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def get(self, blob: Blob, path: Path, on_bytes: OnBytes = ignore_bytes) -> None:
        """Clone the blob where the file system shares blocks (reflink), else copy it; never a hard link."""
        source = self._path(blob.sha256)
        partial = partial_of(path, blob)
        try:
            with partial.open("wb") as sink:
                with self._explained():
                    if not source.is_file():
                        raise _missing(blob.sha256, self.url)
                    cloned = _reflink(source, sink)
                found = digest_of(partial, on_bytes) if cloned else _copy_hashing(self._stream(source), sink, on_bytes)
            if found != blob:
                raise damaged(self.url, blob, found)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def read(self, sha256: str) -> bytes:
        """A small blob's bytes."""
        with self._explained():
            try:
                data = self._path(sha256).read_bytes()
            except FileNotFoundError:
                raise _missing(sha256, self.url) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError(f"blob {sha256[:12]} in {self.url} is damaged", hint="push the adapter again")
        return data

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """A part of a blob."""
        with self._explained():
            try:
                with self._path(sha256).open("rb") as stream:
                    stream.seek(start)
                    return stream.read(size)
            except FileNotFoundError:
                raise _missing(sha256, self.url) from None

    def upload_url(self, blob: Blob, proof: str, *, aside: bool) -> None:
        """A folder takes nothing by itself."""
        return

    def was_uploaded(self, blob: Blob, proof: str, *, aside: bool) -> bool:
        """A folder takes nothing by itself."""
        return False

    def forget_upload(self, proof: str) -> None:
        """A folder takes nothing by itself."""

    def download_url(self, sha256: str) -> None:
        """A folder gives nothing by itself."""
        return

    def lay_out(self, name: str, files: Mapping[str, str]) -> None:
        """Only S3 can."""
        return

    def check(self) -> None:
        """Write and delete a file."""
        with self._explained():
            make_folder(self.folder)
            with tempfile.TemporaryFile(dir=self.folder):
                pass

    def _stream(self, source: Path) -> Iterator[bytes]:
        """The bytes of a blob. An error in reading is the store's, one in writing them elsewhere is not."""
        with self._explained():
            stream = source.open("rb")
        with stream:
            while True:
                with self._explained():
                    chunk = stream.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def _path(self, sha256: str) -> Path:
        return self.folder / key_of(sha256)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explain_os_errors(self.folder, "choose a store that you may write: export LOREG_STORAGE_URL=…")


def _missing(sha256: str, url: str) -> NotFoundError:
    return NotFoundError(
        f"blob {sha256[:12]} is not in {url}", hint="loreg doctor shows which store is in force, and why"
    )


def _copy_hashing(source: Iterable[bytes], sink: BinaryIO, on_bytes: OnBytes) -> Blob:
    hasher = hashlib.sha256()
    size = 0
    for chunk in source:
        hasher.update(chunk)
        sink.write(chunk)
        size += len(chunk)
        on_bytes(len(chunk))
    return Blob(hasher.hexdigest(), size)


def _reflink(source: Path, sink: BinaryIO) -> bool:
    """Share the blocks of ``source`` copy-on-write (Btrfs, XFS, bcachefs); False where it cannot be done."""
    with source.open("rb") as stream:
        try:
            fcntl.ioctl(sink.fileno(), _FICLONE, stream.fileno())
        except OSError:
            return False
    return True
