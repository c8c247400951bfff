"""Probe the versions of one chunk: what every worker does, a process of this machine or a task on Ray.

A worker reads the store and nothing else; what it says goes back to who drives the run, who alone writes the catalog.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from loreg.adapters.stored import read_stored_structure
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.entities import MapChunk, NewFacts, ProbedVersion
from loreg.errors import AdapterFormatError, ConflictError, IntegrityError, LoregError, NotFoundError
from loreg.probes.adapter import ProbedAdapter
from loreg.probes.probe import Probe, find_probe
from loreg.storage import Blob, BlobStore, open_store
from loreg.version import VERSION


@dataclass(frozen=True)
class ChunkTask:
    """A chunk, the probe, and where the store is. Keys are not in it: a worker has those of its own environment.

    ``version`` is that of the loreg that drives the run.
    """

    chunk: MapChunk
    probe: str
    release: str
    storage_url: str
    storage_endpoint: str
    version: str = VERSION

    def run(self) -> ChunkAnswer:
        """Probe every version of the chunk."""
        try:
            probe = find_probe(self.probe)
            _refuse_other_release(self, probe)
            store = _open(self.storage_url, self.storage_endpoint)
            return ChunkAnswer({version.id: probe_version(store, probe, version) for version in self.chunk.versions})
        except LoregError as error:
            return ChunkAnswer(error=error)


@dataclass(frozen=True)
class ChunkAnswer:
    """What the probe says of the versions of a chunk, by id; or the ``error`` for which no version is to blame."""

    facts: Mapping[int, NewFacts] = field(default_factory=dict)
    error: LoregError | None = None


def probe_version(store: BlobStore, probe: Probe, version: ProbedVersion) -> NewFacts:
    """Return what a probe says of a stored version; that its files are lost or damaged is what it says, too.

    Raises what the store raises for which no version is to blame: UnavailableError, NotAllowedError.
    """
    files = {file.path: file for file in version.files}
    names = tuple(files)
    try:
        if not probe.reads_weights:
            return probe.run(ProbedAdapter(read_stored_structure(store, version.ref, files), names))
        weights = files[WEIGHTS_NAME]
        with store.checked_file(Blob(weights.sha256, weights.size)) as path:
            structure = read_stored_structure(store, version.ref, files, path)
            return probe.run(ProbedAdapter(structure, names))
    except (AdapterFormatError, IntegrityError, NotFoundError) as error:
        return probe.failure(error)


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
