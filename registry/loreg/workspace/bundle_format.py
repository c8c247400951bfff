"""What a bundle is: a tar of blobs and records that is read without unpacking it, see docs/format.md.

Only the headers that this module writes are read: a name of the format, a plain file, a size that the file has room
for. There are no links, no folders and no extended headers, and no name ever becomes a path.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from loreg.entities import BaseDetails, Details, MetricDeclaration, OriginEvent, Sketch, Version
from loreg.errors import IntegrityError
from loreg.manifest import File
from loreg.refs import AdapterName
from loreg.storage.blobs import key_of

SCHEMA = "loreg.bundle/1"
SUFFIX = ".loreg"
INDEX = "bundle.json"
BASES = "bases.jsonl"
BLOCK = 512
_MAX_MEMBERS = 2_000_000
_NAME = re.compile(r"bundle\.json|bases\.jsonl|adapters/[1-9][0-9]{0,8}/(?:versions|events)\.jsonl")
_BLOB = re.compile(r"sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")


@dataclass(frozen=True)
class BundledVersion:
    """A line of ``versions.jsonl``: a version as the source's API shows it, its files, and its sketch if it has one."""

    version: Version
    files: tuple[File, ...]
    sketch: Sketch | None = None

    def details(self) -> Details:
        """Return it as details of a version, without what its files say themselves."""
        return Details(self.version, self.files, "", None, ())


@dataclass(frozen=True)
class BundledRecords:
    """A member with records: its sha256 in hex, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class BundledAdapter:
    """An adapter in a bundle: ``folder`` is where its records are, ``versions`` is how many."""

    adapter: str
    folder: str
    versions: int


@dataclass(frozen=True)
class BundleIndex:
    """``bundle.json``, the last member: what the bundle is of, and the digests of its records.

    ``registry`` is the id or URL of the source. ``since`` lists earlier bundles, by the digest of their index, whose
    blobs are left out. ``notes`` say what of the source could not be read, ``declarations`` what is declared of the
    metrics of its versions.
    """

    schema: str
    registry: str
    made_at: datetime
    adapters: tuple[BundledAdapter, ...]
    records: Mapping[str, BundledRecords]
    since: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    declarations: tuple[MetricDeclaration, ...] = ()


@dataclass(frozen=True)
class Member:
    """Where the bytes of a member lie in the file."""

    offset: int
    size: int


Line = BundledVersion | OriginEvent | BaseDetails


def versions_name(folder: str) -> str:
    """Return the name of the member with the versions of an adapter."""
    return f"{folder}/versions.jsonl"


def events_name(folder: str) -> str:
    """Return the name of the member with the events of an adapter."""
    return f"{folder}/events.jsonl"


def adapter_of(entry: BundledAdapter) -> AdapterName:
    """Return the name as it is; the reader has parsed it."""
    namespace, _, name = entry.adapter.rpartition("/")
    return AdapterName(namespace, name)


def header(name: str, size: int) -> bytes:
    """Return the tar header of a member, 512 bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a member."""
    return bytes(-size % BLOCK)


def scan(path: Path, stream: BinaryIO) -> tuple[dict[str, Member], dict[str, Member]]:
    """Return where the records lie, by name, and the blobs, by digest. Raises IntegrityError for any other tar."""
    total = stream.seek(0, 2)
    records: dict[str, Member] = {}
    blobs: dict[str, Member] = {}
    offset = 0
    while True:
        stream.seek(offset)
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise damaged(path, "it ends before its last block: it was cut off")
        if block == bytes(BLOCK):
            break
        name, size = _read_header(path, block)
        member = Member(offset + BLOCK, size)
        if not 0 <= size <= total - member.offset:
            raise damaged(path, f"{name} has {size:,} bytes, more than the file")
        blob = _BLOB.fullmatch(name)
        place, key = (blobs, blob[2]) if blob else (records, name)
        if key in place or len(records) + len(blobs) >= _MAX_MEMBERS:
            raise damaged(path, f"{name} is there twice, or there are more than {_MAX_MEMBERS:,} members")
        place[key] = member
        offset = member.offset + size + len(padding(size))
    return records, blobs


def _read_header(path: Path, block: bytes) -> tuple[str, int]:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
        raise damaged(path, f"a header cannot be read: {error}") from error
    if info.type != tarfile.REGTYPE or not (_NAME.fullmatch(info.name) or _BLOB.fullmatch(info.name)):
        raise damaged(path, f"it holds {info.name[:80]!r}, which no bundle has")
    return info.name, info.size


def blob_name(sha256: str) -> str:
    """Return the name of a blob's member."""
    return key_of(sha256)


def damaged(path: Path, reason: str) -> IntegrityError:
    """Return the error for a file that is no bundle."""
    return IntegrityError(f"{path} is no sound bundle: {reason}", hint="loreg mirror --help")
