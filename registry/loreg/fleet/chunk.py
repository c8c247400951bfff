"""Probe the versions of one chunk: what every worker does, a process of this machine or a task on Ray.

A worker reads the store and nothing else; what it says goes back to who drives the run, who alone writes the catalog.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.stored import read_stored_structure
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import parse_tensor_digests
from loreg.entities import Commit, MapChunk, MapOptions, NewExport, NewFacts, ProbedVersion
from loreg.errors import AdapterFormatError, ConflictError, IntegrityError, LoregError, NotFoundError
from loreg.manifest import File, Manifest
from loreg.probes.adapter import Output, ProbedAdapter
from loreg.probes.probe import Probe, find_probe
from loreg.storage import Blob, BlobStore, digest_of, open_store
from loreg.version import VERSION

_IN_MEMORY = 64 * 1024**2  # bytes of weights that are read at once; larger ones are copied to a file


@dataclass(frozen=True)
class ChunkTask:
    """A chunk, the probe with its options, and where the store is. Keys are those of the worker's own environment.

    ``version`` is that of the loreg that drives the run.
    """

    chunk: MapChunk
    probe: str
    release: str
    storage_url: str
    storage_endpoint: str
    options: MapOptions = MapOptions()
    version: str = VERSION


@dataclass(frozen=True)
class ChunkAnswer:
    """What the probe says of the versions of a chunk, by id; or the ``error`` for which no version is to blame.

    What it made of them is in the store, and in ``made``, by id. ``was_stopped`` if there is neither, for the
    machine of the worker was lost or had no memory left, by whomever.
    """

    facts: Mapping[int, NewFacts] = field(default_factory=dict)
    made: Mapping[int, NewExport | Commit] = field(default_factory=dict)
    error: LoregError | None = None
    was_stopped: bool = False


def probe_chunk(task: ChunkTask) -> ChunkAnswer:
    """Probe every version of a chunk. Nothing is raised: an error that is no version's is part of the answer."""
    try:
        probe = find_probe(task.probe, task.options)
        _refuse_other_release(task, probe)
        prober = _Prober(_open(task.storage_url, task.storage_endpoint), probe)
        facts = {version.id: prober.probe(version) for version in task.chunk.versions}
        return ChunkAnswer(facts, prober.made)
    except LoregError as error:
        return ChunkAnswer(error=error)


class _Prober:
    """Probes stored versions. What the probe makes of them is put into the store, and into ``made``, by id."""

    def __init__(self, store: BlobStore, probe: Probe) -> None:
        self._store, self._probe = store, probe
        self._bases: dict[str, BaseTensors] = {}
        self.made: dict[int, NewExport | Commit] = {}

    def probe(self, version: ProbedVersion) -> NewFacts:
        """Return what the probe says of a version; that its files are lost or damaged is what it says, too.

        Raises what the store raises for which no version is to blame: UnavailableError, NotAllowedError.
        """
        files = {file.path: file for file in version.files}
        try:
            if not self._probe.reads_weights:
                structure = read_stored_structure(self._store, version.ref, files)
                return self._probe.run(ProbedAdapter(structure, tuple(files)))
            with tempfile.TemporaryDirectory(prefix="loreg-map-") as name:
                folder = Path(name)
                for path in (CONFIG_NAME, WEIGHTS_NAME):
                    _fetch(self._store, files[path], folder / path)
                if self._probe.to_made is not None:
                    return self._make(version, files, folder, self._probe.to_made)
                return self._probe.run(ProbedAdapter(read_structure(folder), tuple(files)))
        except (AdapterFormatError, IntegrityError, NotFoundError) as error:
            return self._probe.failure(error)

    def _make(
        self,
        version: ProbedVersion,
        files: Mapping[str, File],
        folder: Path,
        to_made: Callable[[ProbedVersion, Path, Manifest], NewExport | Commit],
    ) -> NewFacts:
        if CARD_NAME in files:
            _fetch(self._store, files[CARD_NAME], folder / CARD_NAME)
        made = folder / "made"
        made.mkdir()
        output = Output(made, version.ref, version.digest, self._base_of(version))
        facts = self._probe.run(ProbedAdapter(read_structure(folder), tuple(files), output))
        if not facts.error:
            self.made[version.id] = to_made(version, made, _store_files(self._store, made))
        return facts

    def _base_of(self, version: ProbedVersion) -> BaseTensors | None:
        base = version.base
        if base is None:
            return None
        if base.digest not in self._bases:
            digests = parse_tensor_digests(self._store.read(base.digest), base)
            self._bases[base.digest] = BaseTensors(base, digests)
        return self._bases[base.digest]


def _store_files(store: BlobStore, folder: Path) -> Manifest:
    """Put the files of a folder into the store; nobody refers to them yet."""
    blobs = {path: digest_of(path) for path in sorted(folder.iterdir())}
    for path, blob in blobs.items():
        store.put(blob, path)
    return Manifest(tuple(File(path.name, blob.sha256, blob.size) for path, blob in blobs.items()))


def _fetch(store: BlobStore, file: File, path: Path) -> None:
    """Write a stored file to ``path``, compared with its digest; it need not survive the machine."""
    if file.size > _IN_MEMORY:
        store.get(Blob(file.sha256, file.size), path)
    else:
        path.write_bytes(store.read(file.sha256, file.size))


def _refuse_other_release(task: ChunkTask, probe: Probe) -> None:
    if (VERSION, probe.release) != (task.version, task.release):
        raise ConflictError(
            f"this worker has loreg {VERSION} and {probe.name} {probe.release}, the run was begun by loreg "
            f"{task.version} with {task.release}",
            hint="install the same packages everywhere",
        )


@functools.cache
def _open(url: str, endpoint: str) -> BlobStore:
    return open_store(url, endpoint, is_new=lambda: False)
