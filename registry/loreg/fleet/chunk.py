"""Probe the versions of one chunk: what every worker does, a process of this machine or a task on Ray.

A worker reads the store and nothing else; what it says goes back to who drives the run, who alone writes the catalog.
"""

from __future__ import annotations

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
from loreg.fleet.worker_machine import refuse_other_version
from loreg.fleet.worker_store import StorePlace, checked_file, require_own_store
from loreg.manifest import File, Manifest
from loreg.probes.adapter import Output, ProbedAdapter
from loreg.probes.probe import Probe, find_probe
from loreg.storage import Blob, BlobTransfer, digest_of
from loreg.version import VERSION


@dataclass(frozen=True)
class ChunkTask:
    """A chunk, the probe with its options, and where the store is.

    ``version`` is that of the loreg that drives the run.
    """

    chunk: MapChunk
    probe: str
    release: str
    store: StorePlace
    options: MapOptions = MapOptions()
    version: str = VERSION

    def run(self) -> ChunkAnswer:
        """Probe every version of the chunk."""
        try:
            refuse_other_version(self.version)
            probe = find_probe(self.probe, self.options)
            _refuse_other_release(self, probe)
            prober = _Prober(self.store.open(), probe)
            facts = {version.id: prober.probe(version) for version in self.chunk.versions}
            return ChunkAnswer(facts, prober.made)
        except LoregError as error:
            return ChunkAnswer(error=error)


@dataclass(frozen=True)
class ChunkAnswer:
    """What the probe says of the versions of a chunk, by id; or the ``error`` for which no version is to blame.

    What it made of them is in the store, and in ``made``, by id.
    """

    facts: Mapping[int, NewFacts] = field(default_factory=dict)
    made: Mapping[int, NewExport | Commit] = field(default_factory=dict)
    error: LoregError | None = None


ToMade = Callable[[ProbedVersion, Path, Manifest], NewExport | Commit]


class _Prober:
    """Probes stored versions. What the probe makes of them is put into the store, and into ``made``, by id."""

    def __init__(self, store: BlobTransfer, probe: Probe) -> None:
        self._store, self._probe = store, probe
        self._bases: dict[str, BaseTensors] = {}
        self.made: dict[int, NewExport | Commit] = {}

    def probe(self, version: ProbedVersion) -> NewFacts:
        """Return what the probe says of a version; that its files are lost or damaged is what it says, too.

        Raises what the store raises for which no version is to blame: UnavailableError, NotAllowedError.
        """
        files = {file.path: file for file in version.files}
        try:
            if self._probe.to_made is not None:
                return self._make(version, files, self._probe.to_made)
            if not self._probe.reads_weights:
                structure = read_stored_structure(self._store, version.ref, files)
                return self._probe.run(ProbedAdapter(structure, tuple(files)))
            weights = files[WEIGHTS_NAME]
            with checked_file(self._store, Blob(weights.sha256, weights.size)) as path:
                structure = read_stored_structure(self._store, version.ref, files, path)
                return self._probe.run(ProbedAdapter(structure, tuple(files)))
        except (AdapterFormatError, IntegrityError, NotFoundError) as error:
            return self._probe.failure(error)

    def _make(self, version: ProbedVersion, files: Mapping[str, File], to_made: ToMade) -> NewFacts:
        require_own_store(self._store)
        with tempfile.TemporaryDirectory(prefix="loreg-map-") as name:
            folder = Path(name)
            for path in files.keys() & {CONFIG_NAME, WEIGHTS_NAME, CARD_NAME}:
                self._store.get(Blob(files[path].sha256, files[path].size), folder / path)
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


def _store_files(store: BlobTransfer, folder: Path) -> Manifest:
    """Put the files of a folder into the store; nobody refers to them yet."""
    blobs = {path: digest_of(path) for path in sorted(folder.iterdir())}
    for path, blob in blobs.items():
        store.put(blob, path)
    return Manifest(tuple(File(path.name, blob.sha256, blob.size) for path, blob in blobs.items()))


def _refuse_other_release(task: ChunkTask, probe: Probe) -> None:
    if probe.release != task.release:
        raise ConflictError(
            f"this worker has {probe.name} {probe.release}, the run was begun with {task.release}",
            hint="install the same packages everywhere",
        )
