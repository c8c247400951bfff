"""The contract of every store of blobs, and what their implementations share. A blob is bytes under their sha256."""

from __future__ import annotations

import builtins
import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import msgspec
from cachetools import TTLCache

from loreg.errors import ConflictError, IntegrityError, NotFoundError
from loreg.manifest import hidden_sibling
from loreg.storage.durable import move_durably

CHUNK = 1024 * 1024
SMALL = 64 * 1024  # bytes that are sent or read in the time of one request
_IN_MEMORY = 64 * 1024 * 1024  # bytes of a blob that are read by one request to be a file for a while
MAX_DOCUMENT = 256 * 1024 * 1024  # bytes of a document of unknown size: the largest lists of tensors have a tenth
PUSH_AGAIN = "push the adapter again, or add its base again: that replaces what is lost or damaged"
_MAX_VERIFIED = 4096  # blobs
_TRUST_SECONDS = 60.0

#: Called with the number of bytes that were handled since the last call.
BytesCallback = Callable[[int], None]


def ignore_bytes(count: int) -> None:
    """Ignore the count: the default :data:`BytesCallback`."""


class Blob(msgspec.Struct, frozen=True):
    """A blob's digest (hex sha256) and size in bytes."""

    sha256: str
    size: int


class PresignedUpload(msgspec.Struct, frozen=True):
    """A URL for one PUT, and the headers that its signature covers: they are to be sent as they are."""

    url: str
    headers: Mapping[str, str]


class AcceptedUpload(msgspec.Struct, frozen=True):
    """An upload that was received and stored: its size, and its ``content`` if that is small and was read."""

    size: int
    content: bytes | None = None


class StoredObject(msgspec.Struct, frozen=True):
    """What a store says of an object without reading it: its size, and the hex SHA-256 that it keeps of the whole.

    ``sha256`` is empty where the store keeps none.
    """

    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Leftover:
    """What a writer began and has not finished: where, when it last wrote or, if that is not known, when it began.

    ``size`` is its bytes. ``remove`` removes it; that it is gone already is no error.
    """

    where: str
    at: datetime
    size: int
    remove: Callable[[], None] = field(repr=False, compare=False)


class IncomingUpload(msgspec.Struct, frozen=True):
    """What somebody PUT by a URL of the store, in quarantine: under which id, when, and how many bytes."""

    upload_id: str
    at: datetime
    size: int


class CopiedFile(msgspec.Struct, frozen=True):
    """A file of a folder that was laid out for a server: the folder's name, the path in it, its bytes, when it was."""

    name: str
    path: str
    at: datetime
    size: int


class BlobTransfer(Protocol):
    """Bytes by content, in and out: what a store can do, and a server for a caller without a store of its own.

    What each of them promises, and callers may rely on:

    - A blob is complete or absent: an interrupted ``put``, whatever ended it, leaves nothing under the blob's digest.
      It is never changed; only one that is damaged is replaced, by the right bytes.
    - Every call may be repeated: a second one finds the work done, or does it. Several threads and processes may use
      one store at once, also for the same blob.
    - Whether a blob is there is asked of the store each time. That its bytes are sound is remembered for a minute, for
      as long as the store says that the object is unchanged.
    - Every method that contacts the store raises UnavailableError if it does not answer or its disk fails,
      NotAllowedError if it refuses, and NotFoundError if its bucket does not exist.
    """

    #: Where the blobs are, as messages name it: a path, ``s3://bucket/prefix`` or a server; without secrets.
    url: str

    def size(self, sha256: str) -> int | None:
        """Return how many bytes the stored blob has; None if it is not stored."""
        ...

    def has(self, blob: Blob) -> bool:
        """Return whether the blob is stored and sound: by the store's own checksum, or else by its bytes."""
        ...

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Store the file at ``path``; return False if the blob was there already, sound, and nothing was sent.

        One that is damaged or cut off is replaced. The bytes are hashed while they stream: raises IntegrityError if
        they are not ``blob``, for the file changed since its digest was taken; then nothing is stored. Of an
        interrupted call nothing is left under the blob's digest. Every byte is counted once by ``on_bytes``.
        """
        ...

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Write the blob to ``path``, in a folder that exists, in place of a file that is there.

        The file appears complete, hashed and durable, or not at all. Its permissions are the caller's defaults, and
        changes of it never reach the store. ``on_bytes`` adds up to the size of the blob, what was there included.

        If it is interrupted, a store that is reached by a network leaves a partial file beside ``path``, see
        :func:`partial_path`, and the next call continues there. Raises NotFoundError if there is no such blob, and
        IntegrityError if its bytes do not have its digest; then the partial file is removed. An error in writing to
        ``path`` is the caller's to explain, and stays an OSError.
        """
        ...

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """Return the bytes of a small blob. Raises NotFoundError, IntegrityError for others or more than ``most``."""
        ...

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """Return ``size`` bytes of a blob from ``start`` on, fewer at its end, none behind it. Raises NotFoundError.

        They are not compared with the digest of the whole.
        """
        ...

    def check(self) -> None:
        """Raise UnavailableError, NotFoundError or NotAllowedError, with a hint, if nothing can be stored."""
        ...


@runtime_checkable
class BlobStore(BlobTransfer, Protocol):
    """Where blobs lie: each under its sha256, written once. What every store can do; tests/storage holds it to that."""

    #: How many calls at once it answers sooner than one after the other.
    parallelism: int

    def list(self) -> Iterator[Blob]:
        """Return every stored blob with the size that it has, in no order; others may come and go meanwhile."""
        ...

    def inspect(self, sha256: str) -> StoredObject | None:
        """Return what the store says of a blob's object, by one request; None if there is none."""
        ...

    def hash_stored(self, sha256: str, on_bytes: BytesCallback = ignore_bytes) -> Blob | None:
        """Return digest and size of the bytes under a blob's name, read now; None if there are none."""
        ...

    def checked_file(self, blob: Blob) -> AbstractContextManager[Path]:
        """Return a file with the blob's bytes, to be read until the context ends, and never changed.

        They are compared with the digest first: raises NotFoundError if there is no such blob, and IntegrityError.
        """
        ...

    def list_leftovers(self) -> Iterator[Leftover]:
        """Return what interrupted writers left: files or uploads that no name of a blob leads to.

        A writer that is at work at this moment has such a thing as well: only their age tells them apart. A writer
        whose own is removed fails, and stores nothing.
        """
        ...

    def owner(self) -> str:
        """Return the id of the registry that the store is marked with; empty if it is not marked."""
        ...

    def claim(self, registry_id: str) -> str:
        """Mark the store as that registry's unless it is marked; return whose it is. Two that call at once agree.

        A store that does not exist yet is not marked.
        """
        ...

    def unmark_command(self) -> str:
        """Return the command of a shell that removes the mark, for hints: its registry may be gone for good."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not there is no error. After it returns, :meth:`size` is None."""
        ...


@runtime_checkable
class SigningStore(BlobStore, Protocol):
    """A store that others may use without its keys, by URLs that it signs, and that can copy within itself."""

    def upload_url(self, blob: Blob, upload_id: str) -> PresignedUpload:
        """Return where somebody without the store's keys may PUT this blob, once, for an hour.

        The URL holds for an hour, and for one PUT of exactly these bytes. They lie apart from the blobs, under
        ``upload_id``, until :meth:`accept_upload`. The store is not asked: another call returns another such URL.
        """
        ...

    def accept_upload(self, blob: Blob, upload_id: str) -> AcceptedUpload | None:
        """Store what was PUT under that id, if it is the blob; return None if it has not come, or is another one.

        Only the bytes are taken of what came: type, encoding and the rest are the store's own. What was PUT stays until
        :meth:`forget_uploads`, so that a second call, after an error too, returns the same.
        """
        ...

    def forget_uploads(self, upload_ids: Collection[str]) -> None:
        """Remove what was PUT under these ids; ids under which nothing came are ignored. No blob is removed."""
        ...

    def list_uploads(self) -> Iterator[IncomingUpload]:
        """Return everything that was PUT and not forgotten yet, in no order; others may come and go meanwhile."""
        ...

    def download_url(self, sha256: str) -> str:
        """Return where somebody without the store's keys may GET the blob, for an hour."""
        ...

    def materialize_folder(self, name: str, files: Mapping[str, str]) -> str:
        """Lay blobs out under their files' names, for readers that want a folder; return where. Made once.

        ``files`` are digests by path, ``name`` is the folder's. Raises NotFoundError for a blob that is not stored.
        """
        ...

    def list_copied_files(self) -> Iterator[CopiedFile]:
        """Return the files of all folders that :meth:`materialize_folder` made; those of one folder in a row."""
        ...

    def inspect_copy(self, name: str, path: str) -> StoredObject | None:
        """Return what the store says of a file in the folder ``name``, by one request; None if there is none."""
        ...

    def remove_copy(self, name: str) -> None:
        """Remove the folder ``name`` of copies; none of that name is no error. Another call makes it again."""
        ...


@runtime_checkable
class DocumentStore(BlobStore, Protocol):
    """A store that can also hold small documents under names of their own, beside the blobs: a backup is one."""

    def create(self) -> None:
        """Create the folder of a store that is not there yet, so that it can be marked."""
        ...

    def write_document(self, name: str, content: bytes) -> None:
        """Store a document, complete or not at all, in the place of one of that name. A name is ``folder/file``."""
        ...

    def read_document(self, name: str) -> bytes:
        """Return a document. Raises NotFoundError."""
        ...

    def list_documents(self, folder: str) -> builtins.list[str]:
        """Return the names of the documents in a folder, in the order of the alphabet."""
        ...

    def delete_document(self, name: str) -> None:
        """Remove a document for good; one that is not there is no error."""
        ...


@runtime_checkable
class UploadReserver(Protocol):
    """A transfer that asks once for several uploads, and so saves a request for each."""

    def reserve_uploads(self, blobs: Sequence[Blob]) -> None:
        """Ask where each of the blobs that will be put may go."""
        ...


class VerifiedCache:
    """The states of stored blobs whose bytes were verified in the last minute. Safe for threads.

    A state is what the store answers about an object (its times, its ETag), and changes with the content: so a blob
    need not be hashed again for every client. Not for longer, because decay on a disk changes no state.
    """

    def __init__(self) -> None:
        self._states: TTLCache[str, Hashable] = TTLCache(_MAX_VERIFIED, ttl=_TRUST_SECONDS, timer=time.monotonic)
        self._lock = threading.Lock()

    def contains(self, sha256: str, state: Hashable) -> bool:
        """Whether the blob was verified in this state, within the last minute."""
        with self._lock:
            try:
                return self._states[sha256] == state
            except KeyError:
                return False

    def add(self, sha256: str, state: Hashable) -> None:
        """Record that the blob is sound in this state."""
        with self._lock:
            self._states[sha256] = state


def read_chunks(stream: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """Yield the rest of ``stream`` in chunks of ``size`` bytes; the last may be shorter."""
    while chunk := stream.read(size):
        yield chunk


def digest_of(path: Path, on_bytes: BytesCallback = ignore_bytes) -> Blob:
    """Return the sha256 and size of a file, which is streamed."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        for chunk in read_chunks(stream):
            hasher.update(chunk)
            size += len(chunk)
            on_bytes(len(chunk))
    return Blob(hasher.hexdigest(), size)


def key_of(sha256: str) -> str:
    """Return the key of a blob in every store: ``sha256/ab/abcdef…``."""
    return f"sha256/{sha256[:2]}/{sha256}"


OWNER = "owner"
"""The name, beside the blobs, of the mark that says whose the store is: a registry's id, 32 hexadecimal digits."""


def put_bytes(store: BlobTransfer, content: bytes) -> Blob:
    """Store a small document that was made just now."""
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
    with tempfile.TemporaryDirectory(prefix="loreg-push-") as folder:
        path = Path(folder) / blob.sha256
        path.write_bytes(content)
        store.put(blob, path)
    return blob


@contextmanager
def download_checked(store: BlobTransfer, blob: Blob) -> Iterator[Path]:
    """Download the blob into a folder that is removed afterwards, a small one by one request; see ``checked_file``."""
    with tempfile.TemporaryDirectory(prefix="loreg-blob-") as folder:
        path = Path(folder) / blob.sha256
        if blob.size > _IN_MEMORY:
            store.get(blob, path)
        else:
            path.write_bytes(store.read(blob.sha256, blob.size))
        yield path


def partial_path(path: Path, blob: Blob) -> Path:
    """Where a download of ``blob`` to ``path`` grows. The digest in its name makes going on with it safe."""
    return hidden_sibling(path, f"{blob.sha256[:16]}.part")


def resume_download(
    url: str, blob: Blob, path: Path, download: Callable[[Path, BytesCallback], Blob], on_bytes: BytesCallback
) -> None:
    """Download the blob to ``path``, from where an interrupted call stopped; it appears there complete and hashed.

    ``download`` completes a partial file and returns the digest and size that it then has. Raises IntegrityError if
    they are not the blob's.
    """
    partial = partial_path(path, blob)
    resumed = partial.exists()
    downloaded = download(partial, on_bytes)
    if downloaded != blob and resumed:  # the partial file was not of this blob
        partial.unlink()
        downloaded = download(partial, ignore_bytes)
    if downloaded != blob:
        partial.unlink()
        raise damaged_error(url, blob, downloaded)
    move_durably(partial, path)


def file_changed_error(path: Path, blob: Blob, actual: Blob) -> IntegrityError:
    """Return the error for a file that changed since it was hashed."""
    return IntegrityError(
        f"{path} changed while it was read: it had {blob.size} bytes with sha256 {blob.sha256[:12]}, now "
        f"{actual.size} with {actual.sha256[:12]}",
        hint="wait until training has written it, then push again",
    )


def damaged_error(url: str, blob: Blob, actual: Blob) -> IntegrityError:
    """Return the error for stored bytes that do not have their digest; of too many, ``actual`` has only the first."""
    size = f"over {blob.size} bytes" if actual.size > blob.size else f"{actual.size} with sha256 {actual.sha256[:12]}"
    return IntegrityError(
        f"blob {blob.sha256[:12]} in {url} is damaged: expected {blob.size} bytes, found {size}",
        hint=f"pull again; if it stays so, {PUSH_AGAIN}",
        outside=_damaged(blob.sha256),
    )


def damaged_document_error(url: str, sha256: str) -> IntegrityError:
    """Return the error for a small blob that does not have its digest, or is larger than it may be."""
    return IntegrityError(f"blob {sha256[:12]} in {url} is damaged", hint=PUSH_AGAIN, outside=_damaged(sha256))


def missing_error(url: str, sha256: str) -> NotFoundError:
    """Return the error for a blob that is not stored."""
    return NotFoundError(
        f"blob {sha256[:12]} is not in {url}",
        hint=f"loreg doctor shows which store is in force, and why; if it is the right one, {PUSH_AGAIN}",
        outside=f"blob {sha256[:12]} is not in the store",
    )


def foreign_store_error(store: BlobStore, owner: str, registry_id: str) -> ConflictError:
    """Return the error for a store that is marked as that of the registry ``owner``."""
    return ConflictError(
        f"the store {store.url} belongs to registry {owner[:8]}, this catalog is of registry {registry_id[:8]}: two on "
        "one store would remove each other's blobs",
        hint="loreg doctor shows which store is in force, and why; if that registry is gone for good, first: "
        f"{store.unmark_command()}",
        outside="the server's store belongs to another registry",
    )


def missing_document_error(url: str, name: str) -> NotFoundError:
    """Return the error for a document that is not stored."""
    return NotFoundError(f"{name} is not in {url}", hint="check where the backup is", outside=f"{name} is not there")


def _damaged(sha256: str) -> str:
    return f"blob {sha256[:12]} in the store is damaged"
