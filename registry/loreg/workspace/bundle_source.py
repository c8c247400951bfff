"""Read a bundle as a registry that is mirrored from: one member at a time, everything hashed, nothing unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from loreg.entities import (
    BaseDetails,
    BaseModel,
    BaseUpgrade,
    Canary,
    Details,
    MetricDeclaration,
    OriginEvent,
    RecordedVerdict,
    Sketch,
    Version,
)
from loreg.errors import NotFoundError, UsageError, explain_os_errors
from loreg.refs import AdapterName, parse_adapter_name
from loreg.storage import Blob
from loreg.storage.blobs import CHUNK
from loreg.workspace.bundle_format import (
    BASES,
    INDEX,
    SCHEMA,
    BundledAdapter,
    BundledVersion,
    BundleIndex,
    Member,
    adapter_of,
    damaged,
    events_name,
    scan,
    versions_name,
)

T = TypeVar("T")
_MAX_INDEX = 64 * 1024**2  # bytes
_MAX_LINE = 32 * 1024**2  # bytes: a version with a hundred thousand files has half


class BundleSource:
    """A bundle in the file at ``path``. ``blobs`` are its blobs by digest, ``digest`` is that of its index.

    Raises NotFoundError for no such file, IntegrityError for one that is no sound bundle.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFoundError(f"there is no bundle {path}", hint="loreg mirror --help")
        self.path = path
        self.name = str(path)
        with explain_os_errors(path, "check the file and its permissions"), path.open("rb") as stream:
            self._records, self.blobs = scan(path, stream)
            content = _read(stream, self._record(INDEX), _MAX_INDEX)
        if content is None:
            raise damaged(path, f"{INDEX} has more than {_MAX_INDEX:,} bytes")
        self.digest = hashlib.sha256(content).hexdigest()
        self.index = self._decode(content, BundleIndex)
        if self.index.schema != SCHEMA:
            raise damaged(path, f"its schema is {self.index.schema[:40]!r}, expected {SCHEMA}")
        self.registry = self.index.registry
        self._adapters = {str(_parse_name(path, entry)): entry for entry in self.index.adapters}
        self._verified: set[str] = set()
        self._lines: tuple[str, dict[int, Member]] = ("", {})
        self._bases: dict[str, Member] = {}

    def adapters(self) -> Iterator[AdapterName]:
        """Yield the adapters of the bundle."""
        return map(adapter_of, self._adapters.values())

    def versions(self, adapter: AdapterName) -> Iterator[Version]:
        """Yield the versions line by line."""
        return (self._decode(line, BundledVersion).version for _, line in self._read_lines(self._versions(adapter)))

    def details(self, adapter: AdapterName, number: int) -> Details:
        """Return the version of one line."""
        return self._bundled(adapter, number).details()

    def sketch(self, adapter: AdapterName, number: int) -> Sketch | None:
        """Return the sketch of one line."""
        return self._bundled(adapter, number).sketch

    def _bundled(self, adapter: AdapterName, number: int) -> BundledVersion:
        name = self._versions(adapter)
        if self._lines[0] != name:
            numbers = {self._decode(line, BundledVersion).version.number: at for at, line in self._read_lines(name)}
            self._lines = name, numbers
        if number not in self._lines[1]:
            raise NotFoundError(f"there is no {adapter}:v{number} in {self.path}", hint="mirror from another place")
        return self._decode(self._read_at(self._lines[1][number]), BundledVersion)

    def events(self, adapter: AdapterName) -> Iterator[OriginEvent]:
        """Yield the events line by line."""
        name = events_name(self._entry(adapter).folder)
        return (self._decode(line, OriginEvent) for _, line in self._read_lines(name))

    def canaries(self, adapter: AdapterName) -> tuple[Canary, ...] | None:
        """Return None: a bundle has what lasts, and is of one moment."""
        return None

    def declarations(self) -> tuple[MetricDeclaration, ...]:
        """Return those of the index."""
        return self.index.declarations

    def base(self, base: BaseModel) -> BaseDetails:
        """Return the base of one line."""
        if not self._bases:
            lines = self._read_lines(BASES)
            self._bases = {self._decode(line, BaseDetails).base.digest: at for at, line in lines}
        if base.digest not in self._bases:
            return BaseDetails(base, (), 0)
        return self._decode(self._read_at(self._bases[base.digest]), BaseDetails)

    def verdicts(self, upgrade: BaseUpgrade) -> Iterator[RecordedVerdict]:
        """Yield none: a bundle has what belongs to its versions, and the new base of an upgrade does not."""
        return iter(())

    def size(self, sha256: str) -> int | None:
        """Return the size of a blob's member."""
        return self.blobs[sha256].size if sha256 in self.blobs else None

    def copy(self, blob: Blob, path: Path) -> None:
        """Write the blob to ``path``, hashed."""
        member = self.blobs.get(blob.sha256)
        if member is None:
            hint = "mirror from the bundle before it first" if self.index.since else "mirror from another place"
            raise NotFoundError(f"blob {blob.sha256[:12]} is not in {self.path}", hint=hint)
        hasher, left = hashlib.sha256(), member.size
        with path.open("wb") as sink, self.path.open("rb") as stream:
            stream.seek(member.offset)
            while left and (chunk := stream.read(min(CHUNK, left))):
                hasher.update(chunk)
                sink.write(chunk)
                left -= len(chunk)
        if Blob(hasher.hexdigest(), member.size - left) != blob:
            path.unlink()
            raise damaged(self.path, f"blob {blob.sha256[:12]} has other bytes")

    def _entry(self, adapter: AdapterName) -> BundledAdapter:
        return self._adapters[str(adapter)]

    def _versions(self, adapter: AdapterName) -> str:
        return versions_name(self._entry(adapter).folder)

    def _record(self, name: str) -> Member:
        if name not in self._records:
            raise damaged(self.path, f"it has no {name}")
        return self._records[name]

    def _read_lines(self, name: str) -> Iterator[tuple[Member, bytes]]:
        """Yield the lines of a member of records, and where they lie, after its digest was compared."""
        member = self._record(name)
        with self.path.open("rb") as stream:
            if name not in self._verified:
                self._verify(stream, name, member)
                self._verified.add(name)
            offset, end = member.offset, member.offset + member.size
            stream.seek(offset)
            while offset < end:
                line = stream.readline(min(_MAX_LINE, end - offset))
                if not line.endswith(b"\n"):
                    raise damaged(self.path, f"a line of {name} has no end, or over {_MAX_LINE:,} bytes")
                yield Member(offset, len(line)), line
                offset += len(line)

    def _verify(self, stream: BinaryIO, name: str, member: Member) -> None:
        expected = self.index.records.get(name)
        hasher, left = hashlib.sha256(), member.size
        stream.seek(member.offset)
        while left and (chunk := stream.read(min(CHUNK, left))):
            hasher.update(chunk)
            left -= len(chunk)
        if expected is None or (hasher.hexdigest(), member.size) != (expected.sha256, expected.size):
            raise damaged(self.path, f"{name} is not what {INDEX} says")

    def _read_at(self, member: Member) -> bytes:
        with self.path.open("rb") as stream:
            return _read(stream, member, _MAX_LINE) or b""

    def _decode(self, content: bytes, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise damaged(self.path, f"a record is not understood: {error}") from error


def _read(stream: BinaryIO, member: Member, most: int) -> bytes | None:
    """Return the bytes of a member; None for more than ``most``."""
    if member.size > most:
        return None
    stream.seek(member.offset)
    return stream.read(member.size)


def _parse_name(path: Path, entry: BundledAdapter) -> AdapterName:
    try:
        return parse_adapter_name(entry.adapter)
    except UsageError as error:
        raise damaged(path, error.message[:200]) from error
