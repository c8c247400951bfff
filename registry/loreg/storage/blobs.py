"""What a store of blobs promises. A blob is bytes under their sha256; it is written once and never changes."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from loreg.errors import IntegrityError, NotFoundError
from loreg.manifest import hidden_beside
from loreg.storage.durable import move_durably

CHUNK = 1024 * 1024
SMALL = 64 * 1024  # what it takes as long to ask about as to send or read
MAX_DOCUMENT = 256 * 1024 * 1024  # of a document whose size nobody promised: the largest lists of tensors have a tenth
PUSH_AGAIN = "push the adapter again, or add its base again: that replaces what is lost or damaged"
_MOST_PROVEN = 4096
_TRUSTED_FOR = 60.0

#: Called with the number of bytes that were handled since the last call.
BytesCallback = Callable[[int], None]


def ignore_bytes(count: int) -> None:
    """Count nothing."""


@dataclass(frozen=True)
class Blob:
    """The digest (hex sha256) and the size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class PresignedUpload:
    """A URL for one PUT, with the headers that its signature covers."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class AcceptedUpload:
    """An upload that has come and is stored; with its ``content`` if that is small and was read."""

    size: int
    content: bytes | None = None


class BlobStore(Protocol):
    """Bytes by content. Raises UnavailableError where the store does not answer.

    No answer comes from memory: whether a blob is there, and sound, is asked of what keeps it each time.
    """

    url: str

    def size(self, sha256: str) -> int | None:
        """How many bytes the blob has; None if it is not stored."""
        ...

    def has(self, blob: Blob) -> bool:
        """Whether the blob is stored and sound, as the store's own checksum says, or its bytes where it keeps none."""
        ...

    def reserve_uploads(self, blobs: Sequence[Blob]) -> None:
        """Say what will be put: a store that somebody else keeps is asked once for all of it."""
        ...

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Store the file at ``path``; False if the blob was there already, sound, and nothing was sent.

        One that is damaged or cut off is replaced. The bytes are hashed while they stream. Raises IntegrityError if
        they are not ``blob``: the file changed since its digest was taken; then nothing is stored.
        """
        ...

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Write the blob to ``path``, which appears only when whole and hashed.

        What an interrupted call left beside it is gone on with. Raises NotFoundError if there is no such
        blob, IntegrityError if its bytes do not have its digest.
        """
        ...

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """A small blob's bytes, ``most`` at most. Raises NotFoundError, IntegrityError."""
        ...

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """``size`` bytes of a blob from ``start`` on, fewer at its end; not compared with the digest of the whole.

        Raises NotFoundError.
        """
        ...

    def upload_url(self, blob: Blob, upload_id: str) -> PresignedUpload | None:
        """Where somebody without the store's keys may PUT this blob, once, for an hour; None if the store cannot.

        It lies apart from the blobs, under the ``upload_id``, until it is accepted.
        """
        ...

    def accept_upload(self, blob: Blob, upload_id: str) -> AcceptedUpload | None:
        """Store what was PUT under that id, if it is the blob; None if it has not come, or is another one.

        Of all that came with it only the bytes are taken: type, encoding and the rest are the store's own.
        """
        ...

    def forget_uploads(self, upload_ids: Collection[str]) -> None:
        """Remove what was PUT under these ids, if anything was."""
        ...

    def download_url(self, sha256: str) -> str | None:
        """Where somebody without the store's keys may GET the blob, for an hour; None if the store cannot."""
        ...

    def materialize_folder(self, name: str, files: Mapping[str, str]) -> str | None:
        """Where blobs lie under their files' names, for readers that want a folder; None if the store cannot.

        ``files`` are digests by path, ``name`` is the folder's; it is made once, without the bytes leaving the store.
        """
        ...

    def has_blobs(self) -> bool | None:
        """Whether there is any blob; None if only somebody else can know."""
        ...

    def check(self) -> None:
        """Raise UnavailableError, NotFoundError or NotAllowedError, with a hint, if the store is not usable."""
        ...


class VerifiedCache:
    """Which state of a stored blob was seen to hold its content, for a minute. Safe for threads.

    A state is what the store says of it when it is asked, and changes with the content: so the same blob need not be
    hashed for each of many who ask at once. Not for longer: what decays on a disk changes no state.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[str, tuple[Hashable, float]] = OrderedDict()
        self._lock = threading.Lock()

    def contains(self, sha256: str, state: Hashable) -> bool:
        """Whether the blob was sound in this state."""
        with self._lock:
            known, until = self._states.get(sha256, (None, 0.0))
            return known == state and time.monotonic() < until

    def add(self, sha256: str, state: Hashable) -> None:
        """Remember that the blob is sound in this state."""
        with self._lock:
            self._states.pop(sha256, None)
            self._states[sha256] = (state, time.monotonic() + _TRUSTED_FOR)
            if len(self._states) > _MOST_PROVEN:
                self._states.popitem(last=False)


def chunks(stream: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """The rest of ``stream`` in pieces of ``size`` bytes."""
    while chunk := stream.read(size):
        yield chunk


def digest_of(path: Path, on_bytes: BytesCallback = ignore_bytes) -> Blob:
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


def partial_path(path: Path, blob: Blob) -> Path:
    """Where a download of ``blob`` to ``path`` grows. The digest in its name makes going on with it safe."""
    return hidden_beside(path, f"{blob.sha256[:16]}.part")


def resume_download(
    url: str, blob: Blob, path: Path, download: Callable[[Path, BytesCallback], Blob], on_bytes: BytesCallback
) -> None:
    """Bring the blob to ``path``, from where an earlier try stopped; it appears there only when whole and hashed.

    ``download`` brings a partial file to its size and returns what it then holds. Raises IntegrityError if that is not
    the blob.
    """
    partial = partial_path(path, blob)
    resumed = partial.exists()
    found = download(partial, on_bytes)
    if found != blob and resumed:  # what an earlier try left was not of this blob
        partial.unlink()
        found = download(partial, ignore_bytes)
    if found != blob:
        partial.unlink()
        raise damaged_error(url, blob, found)
    move_durably(partial, path)


def file_changed_error(path: Path, blob: Blob, found: Blob) -> IntegrityError:
    """The error for a file that is not what was hashed a moment ago."""
    return IntegrityError(
        f"{path} changed while it was read: it had {blob.size} bytes with sha256 {blob.sha256[:12]}, now "
        f"{found.size} with {found.sha256[:12]}",
        hint="wait until training has written it, then push again",
    )


def damaged_error(url: str, blob: Blob, found: Blob) -> IntegrityError:
    """The error for stored bytes that do not have their digest; no more of ``found`` is read than was promised."""
    size = f"over {blob.size} bytes" if found.size > blob.size else f"{found.size} with sha256 {found.sha256[:12]}"
    return IntegrityError(
        f"blob {blob.sha256[:12]} in {url} is damaged: expected {blob.size} bytes, found {size}",
        hint=f"pull again; if it stays so, {PUSH_AGAIN}",
        outside=_damaged(blob.sha256),
    )


def damaged_document_error(url: str, sha256: str) -> IntegrityError:
    """The error for a small blob that does not have its digest, or is larger than it may be."""
    return IntegrityError(f"blob {sha256[:12]} in {url} is damaged", hint=PUSH_AGAIN, outside=_damaged(sha256))


def missing_error(url: str, sha256: str) -> NotFoundError:
    """The error for a blob that is not stored."""
    return NotFoundError(
        f"blob {sha256[:12]} is not in {url}",
        hint=f"loreg doctor shows which store is in force, and why; if it is the right one, {PUSH_AGAIN}",
        outside=f"blob {sha256[:12]} is not in the store",
    )


def _damaged(sha256: str) -> str:
    return f"blob {sha256[:12]} in the store is damaged"
