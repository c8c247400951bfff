"""Write a mirror into one file, for where no network leads: a bundle, which is complete or absent."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from loreg.entities import BaseDetails, BaseModel, MirrorReport, Progress, no_progress
from loreg.errors import NotAllowedError, NotFoundError, explain_os_errors
from loreg.file_modes import HAS_OWNERS, inherited_permissions
from loreg.manifest import Manifest, validate_files
from loreg.refs import AdapterName
from loreg.storage import Blob
from loreg.storage.blobs import read_chunks
from loreg.storage.durable import AtomicFile
from loreg.verbs.mirror import select_adapters
from loreg.workspace.bundle_format import (
    BASES,
    BLOCK,
    INDEX,
    SCHEMA,
    BundledAdapter,
    BundledRecords,
    BundledVersion,
    BundleIndex,
    Line,
    blob_name,
    events_name,
    header,
    padding,
    versions_name,
)
from loreg.workspace.bundle_source import BundleSource
from loreg.workspace.mirror_source import MirrorSource

_AT_ONCE = 4


def write_bundle(
    source: MirrorSource,
    path: Path,
    patterns: Sequence[str],
    *,
    since: BundleSource | None = None,
    progress: Progress = no_progress,
) -> MirrorReport:
    """Write what matches from ``source`` to the file at ``path``, in place of one that is there.

    With ``since``, an earlier bundle, blobs are left out that it has: whoever reads this one has read that. The file
    appears when it is complete. Raises NotFoundError if nothing matches, or a blob is lost.
    """
    with (
        explain_os_errors(path, "choose another file"),
        AtomicFile(path.resolve().parent) as file,
        tempfile.TemporaryDirectory(prefix="loreg-bundle-") as folder,
    ):
        if HAS_OWNERS:  # private adapters are in it
            os.fchmod(file.sink.fileno(), inherited_permissions(path.resolve().parent) & 0o666)
        bundle = _BundleWriter(source, file.sink, Path(folder), since)
        for adapter in select_adapters(source, patterns):
            bundle.add_adapter(adapter, progress)
        bundle.finish()
        file.commit(path.resolve())
    return bundle.report(str(path))


class _BundleWriter:
    """A bundle that is being written: each member's bytes are complete before its header is written."""

    def __init__(self, source: MirrorSource, sink: BinaryIO, folder: Path, since: BundleSource | None) -> None:
        self._source = source
        self._sink = sink
        self._folder = folder
        self._since = since
        self._left_out = frozenset(since.blobs) if since else frozenset()
        self._blobs: set[str] = set()
        self._bases: dict[str, BaseDetails] = {}
        self._metrics: set[str] = set()
        self._adapters: list[BundledAdapter] = []
        self._records: dict[str, BundledRecords] = {}
        self._notes: dict[str, None] = {}
        self._versions = self._count = self._size = 0
        self._refs: list[str] = []

    def add_adapter(self, adapter: AdapterName, progress: Progress) -> None:
        """Write the blobs of an adapter's versions, then its records."""
        folder = f"adapters/{len(self._adapters) + 1}"
        before = self._versions
        self._write_lines(versions_name(folder), self._add_versions(adapter, progress))
        self._write_lines(events_name(folder), self._read_events(adapter))
        self._adapters.append(BundledAdapter(str(adapter), folder, self._versions - before))

    def finish(self) -> None:
        """Write the bases, the index and the end of the tar."""
        self._write_lines(BASES, self._bases.values())
        since = (*self._since.index.since, self._since.digest) if self._since else ()
        index = BundleIndex(
            SCHEMA,
            self._source.registry,
            datetime.now(UTC),
            tuple(self._adapters),
            self._records,
            since,
            tuple(self._notes),
            tuple(item for item in self._source.declarations() if item.name in self._metrics),
        )
        content = msgspec.json.encode(index)
        self._sink.write(header(INDEX, len(content)) + content + padding(len(content)) + bytes(2 * BLOCK))

    def report(self, target: str) -> MirrorReport:
        """Return what was written."""
        return MirrorReport(
            self._source.registry,
            target,
            len(self._adapters),
            self._versions,
            blobs=self._count,
            size=self._size,
            refs=tuple(self._refs),
            notes=tuple(self._notes),
        )

    def _add_versions(self, adapter: AdapterName, progress: Progress) -> Iterator[BundledVersion]:
        for version in self._source.versions(adapter):
            progress(f"bundling {adapter}", self._size, self._size + version.size)
            details = self._source.details(adapter, version.number)
            validate_files(Manifest(details.files))
            self._add_blobs([Blob(file.sha256, file.size) for file in details.files])
            if version.base is not None:
                self._add_base(version.base)
            self._metrics |= {metric.name for metric in version.metrics}
            self._versions += 1
            self._refs.append(version.ref)
            yield BundledVersion(details.version, details.files, self._source.sketch(adapter, version.number))

    def _read_events(self, adapter: AdapterName) -> Iterator[Line]:
        try:
            yield from self._source.events(adapter)
        except NotAllowedError as error:
            self._notes[f"the events of {adapter} cannot be read in {self._source.name}: {error.message}"] = None

    def _add_base(self, base: BaseModel) -> None:
        """Write the list of a base's tensors, and those of the bases that it came from."""
        if base.digest in self._bases:
            return
        try:
            details = self._source.base(base)
        except NotAllowedError:
            details = BaseDetails(base, (), 0)
            self._notes[f"what {base.title} came from cannot be read in {self._source.name}"] = None
        size = self._source.size(base.digest)
        if size is None and base.digest not in self._left_out:
            raise NotFoundError(f"the list of the tensors of {base.title} is lost", hint="loreg verify there")
        if size is not None:
            self._add_blobs([Blob(base.digest, size)])
        self._bases[base.digest] = details
        for edge in details.edges:
            if edge.child == base.digest:
                self._add_base(BaseModel(edge.parent))

    def _add_blobs(self, blobs: Sequence[Blob]) -> None:
        """Write those of the blobs that are in neither this bundle nor the earlier one, a few fetched at once."""
        missing = [
            blob
            for blob in dict.fromkeys(blobs)
            if blob.sha256 not in self._blobs and blob.sha256 not in self._left_out
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, len(missing), _AT_ONCE):
                batch = missing[start : start + _AT_ONCE]
                list(pool.map(lambda blob: self._source.copy(blob, self._folder / blob.sha256), batch))
                for blob in batch:
                    self._write_file(blob_name(blob.sha256), self._folder / blob.sha256)
                    self._blobs.add(blob.sha256)
                    self._count += 1
                    self._size += blob.size

    def _write_lines(self, name: str, lines: Iterable[Line]) -> None:
        """Write records, which lie in a file of their own until all of them, and what they name, are written."""
        path = self._folder / "records"
        hasher, size = hashlib.sha256(), 0
        with path.open("wb") as sink:
            for line in lines:
                content = msgspec.json.encode(line) + b"\n"
                hasher.update(content)
                size += len(content)
                sink.write(content)
        self._write_file(name, path)
        self._records[name] = BundledRecords(hasher.hexdigest(), size)

    def _write_file(self, name: str, path: Path) -> None:
        size = path.stat().st_size
        self._sink.write(header(name, size))
        with path.open("rb") as stream:
            for chunk in read_chunks(stream):
                self._sink.write(chunk)
        self._sink.write(padding(size))
        path.unlink()
