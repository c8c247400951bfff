"""What a store of blobs promises. A blob is bytes under their sha256; it is written once and never changes."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from loreg.errors import IntegrityError
from loreg.manifest import hidden_beside

CHUNK = 1024 * 1024
SMALL = 64 * 1024  # what it takes as long to ask about as to send or read
_MOST_RECENT = 256

#: Called with the number of bytes that were handled since the last call.
OnBytes = Callable[[int], None]


def ignore_bytes(count: int) -> None:
    """Count nothing."""


@dataclass(frozen=True)
class Blob:
    """The digest (hex sha256) and the size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Presigned:
    """A URL for one PUT, with the headers that its signature covers."""

    url: str
    headers: Mapping[str, str]


class BlobStore(Protocol):
    """Bytes by content. Raises UnavailableError where the store does not answer."""

    url: str

    def size(self, sha256: str) -> int | None:
        """How many bytes the blob has; None if it is not stored."""
        ...

    def announce(self, blobs: Sequence[Blob]) -> None:
        """Say what will be put: a store that somebody else keeps is asked once for all of it."""
        ...

    def put(self, blob: Blob, path: Path, on_bytes: OnBytes = ignore_bytes) -> bool:
        """Store the file at ``path``; False if the blob was there already and nothing was sent.

        The bytes are hashed while they stream. Raises IntegrityError if they are not ``blob``: the file
        changed since its digest was taken; then nothing is stored.
        """
        ...

    def get(self, blob: Blob, path: Path, on_bytes: OnBytes = ignore_bytes) -> None:
        """Write the blob to ``path``, which appears only when whole and hashed.

        What an interrupted call left beside it is gone on with. Raises NotFoundError if there is no such
        blob, IntegrityError if its bytes do not have its digest.
        """
        ...

    def read(self, sha256: str) -> bytes:
        """A small blob's bytes. Raises NotFoundError, IntegrityError."""
        ...

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """``size`` bytes of a blob from ``start`` on, fewer at its end; not compared with the digest of the whole.

        Raises NotFoundError.
        """
        ...

    def upload_url(self, blob: Blob, proof: str, *, aside: bool) -> Presigned | None:
        """Where somebody without the store's keys may PUT exactly this blob, for an hour; None if the store cannot.

        ``proof`` is a word that only who was given the URL knows; ``aside`` lets the blob lie apart under it.
        """
        ...

    def was_uploaded(self, blob: Blob, proof: str, *, aside: bool) -> bool:
        """Whether the blob was PUT with that ``proof``, and is what it should be, as the store says.

        One that lies ``aside`` is then taken to where blobs lie.
        """
        ...

    def forget_upload(self, proof: str) -> None:
        """Remove what may lie aside of an upload that nobody committed."""
        ...

    def download_url(self, sha256: str) -> str | None:
        """Where somebody without the store's keys may GET the blob, for an hour; None if the store cannot."""
        ...

    def lay_out(self, name: str, files: Mapping[str, str]) -> str | None:
        """Where blobs lie under their files' names, for readers that want a folder; None if the store cannot.

        ``files`` are digests by path, ``name`` is the folder's; it is made once, without the bytes leaving the store.
        """
        ...

    def check(self) -> None:
        """Raise UnavailableError, NotFoundError or NotAllowedError, with a hint, if the store is not usable."""
        ...


class RecentBlobs:
    """Small blobs that were read lately, 16 MiB at most: what has a digest never changes. Safe for threads."""

    def __init__(self) -> None:
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str) -> bytes | None:
        """The bytes, if they are remembered."""
        with self._lock:
            if sha256 in self._blobs:
                self._blobs.move_to_end(sha256)
            return self._blobs.get(sha256)

    def add(self, sha256: str, data: bytes) -> None:
        """Remember bytes that have that digest, unless they are many."""
        if len(data) <= SMALL:
            with self._lock:
                self._blobs[sha256] = data
                if len(self._blobs) > _MOST_RECENT:
                    self._blobs.popitem(last=False)


def chunks(stream: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """The rest of ``stream`` in pieces of ``size`` bytes."""
    while chunk := stream.read(size):
        yield chunk


def digest_of(path: Path, on_bytes: OnBytes = ignore_bytes) -> Blob:
    """The sha256 and size of a file, streamed."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        for chunk in chunks(stream):
            hasher.update(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
    return Blob(hasher.hexdigest(), size)


def key_of(sha256: str) -> str:
    """Where a blob lies, in every store: ``sha256/ab/abcdef…``."""
    return f"sha256/{sha256[:2]}/{sha256}"


def put_bytes(store: BlobStore, content: bytes) -> Blob:
    """Store a small document that was made just now."""
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
    with tempfile.TemporaryDirectory(prefix="loreg-push-") as folder:
        path = Path(folder) / blob.sha256
        path.write_bytes(content)
        store.put(blob, path)
    return blob


def partial_of(path: Path, blob: Blob) -> Path:
    """Where a download of ``blob`` to ``path`` grows. The digest in its name makes going on with it safe."""
    return hidden_beside(path, f"{blob.sha256[:16]}.part")


def take_up(url: str, blob: Blob, path: Path, download: Callable[[Path, OnBytes], Blob], on_bytes: OnBytes) -> None:
    """Bring the blob to ``path``, from where an earlier try stopped; it appears there only when whole and hashed.

    ``download`` brings a partial file to its size and returns what it then holds. Raises IntegrityError if that is not
    the blob.
    """
    partial = partial_of(path, blob)
    resumed = partial.exists()
    found = download(partial, on_bytes)
    if found != blob and resumed:  # what an earlier try left was not of this blob
        partial.unlink()
        found = download(partial, ignore_bytes)
    if found != blob:
        partial.unlink()
        raise damaged(url, blob, found)
    partial.replace(path)


def changed(path: Path, blob: Blob, found: Blob) -> IntegrityError:
    """The error for a file that is not what was hashed a moment ago."""
    return IntegrityError(
        f"{path} changed while it was read: it had {blob.size} bytes with sha256 {blob.sha256[:12]}, now "
        f"{found.size} with {found.sha256[:12]}",
        hint="wait until training has written it, then push again",
    )


def damaged(url: str, blob: Blob, found: Blob) -> IntegrityError:
    """The error for stored bytes that do not have their digest."""
    return IntegrityError(
        f"blob {blob.sha256[:12]} in {url} is damaged: expected {blob.size} bytes, found {found.size} with "
        f"sha256 {found.sha256[:12]}",
        hint="pull again; if it stays so, restore that object, or delete it and push the adapter again",
    )
