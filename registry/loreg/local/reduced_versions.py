"""Reduce stored versions to small matrices: their files are read once, within limits, by one caller at a time."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.bases.common_base import FindPath, find_common_base
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import parse_tensor_digests
from loreg.entities import BaseModel, Version
from loreg.errors import ConflictError, NotAllowedError
from loreg.manifest import File
from loreg.merging.inputs import MergeInput
from loreg.previewing.computed_files import ComputedFiles
from loreg.previewing.frames_cache import FramesCache
from loreg.previewing.reduced_sources import ReducedSources, reduce_inputs
from loreg.storage import Blob, BlobTransfer

_MAX_BYTES = 2 * 1024**3  # of the weights of all sources
_MAX_STEPS = 1 << 38  # multiplications to reduce them: about a minute
_MAX_FRAMES = 256 * 1024**2  # bytes of what they are reduced to
_MAX_WAIT = 5.0  # seconds
#: Held while sources are read, by one caller at a time.
_LOCK = threading.Lock()

Stored = tuple[Version, Sequence[File]]


@dataclass(frozen=True)
class VersionReader:
    """What reads stored versions: their files from ``store``, what was computed before from ``files``.

    ``find_path`` returns the relations between two bases.
    """

    store: BlobTransfer
    files: ComputedFiles
    find_path: FindPath

    def load_base(self, base: BaseModel) -> BaseTensors:
        """Return a base with its tensor digests from the store."""
        return BaseTensors(base, parse_tensor_digests(self.store.read(base.digest), base))


def is_reduced(reader: VersionReader, sources: Sequence[Stored]) -> bool:
    """Return whether what the sources are reduced to is kept: nothing is read then."""
    return FramesCache(reader.files).has(name_sources(sources))


def reduce_versions(reader: VersionReader, sources: Sequence[Stored]) -> ReducedSources:
    """Return what versions that the caller may read are reduced to, in this order.

    Raises CheckFailedError for two bases, MergeError for what cannot be merged, NotAllowedError for what is too much
    for a registry, and ConflictError while it reads others.
    """
    cache, words = FramesCache(reader.files), name_sources(sources)
    if (reduced := cache.load(words)) is not None:
        return reduced
    with one_at_a_time():
        if (reduced := cache.load(words)) is not None:  # who held the lock has made it
            return reduced
        with fetch_inputs(reader, sources, allow_derived=False) as (inputs, one_base):
            reduced = reduce_inputs(inputs, one_base=one_base)
        cache.store(words, reduced)
        return reduced


def name_sources(sources: Sequence[Stored]) -> list[str]:
    """Return words that stand for all that is computed of the sources: their files, and what is known of their bases.

    Of a source without a known base that is whether it declares a name of each of the others.
    """
    versions = [version for version, _ in sources]
    bases = {version.base.digest: version.base for version in versions if version.base}
    known = [f"{version.digest} on {version.base.digest if version.base else ''}" for version in versions]
    declared = [
        f"{digest} is declared"
        for digest, base in sorted(bases.items())
        if all(version.base or version.facts.base_hint in base.names for version in versions)
    ]
    return [*known, *declared]


@contextlib.contextmanager
def fetch_inputs(
    reader: VersionReader, sources: Sequence[Stored], *, allow_derived: bool
) -> Iterator[tuple[list[MergeInput], bool]]:
    """Fetch the sources, which are removed at the end; with whether all are known to be of one base.

    Raises CheckFailedError for sources of bases that do not fit, as :func:`loreg.bases.common_base.find_common_base`
    says, and NotAllowedError for what is too much for a registry.
    """
    _refuse_oversized([file for _, files in sources for file in files if file.path == WEIGHTS_NAME])
    with tempfile.TemporaryDirectory(prefix="loreg-preview-") as folder:
        fetched = [
            _Fetched(version.ref, _fetch(reader.store, files, Path(folder, str(i))), version.base)
            for i, (version, files) in enumerate(sources)
        ]
        common, _ = find_common_base(fetched, reader.load_base, reader.find_path, allow_derived=allow_derived)
        _refuse_slow([source.structure for source in fetched])
        inputs = [
            MergeInput(source.structure, source.label, version.digest)
            for source, (version, _) in zip(fetched, sources, strict=True)
        ]
        yield inputs, common is not None


@dataclass(frozen=True)
class _Fetched:
    label: str
    structure: AdapterStructure
    base: BaseModel | None


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for whoever reads sources now. Raises ConflictError after some seconds."""
    if not _LOCK.acquire(timeout=_MAX_WAIT):
        raise ConflictError("the registry reads other adapters now", hint="try again in a minute")
    try:
        yield
    finally:
        _LOCK.release()


def _fetch(store: BlobTransfer, files: Sequence[File], folder: Path) -> AdapterStructure:
    folder.mkdir()
    for file in files:
        if file.path in (CONFIG_NAME, WEIGHTS_NAME):
            store.get(Blob(file.sha256, file.size), folder / file.path)
    return read_structure(folder)


def _refuse_oversized(weights: Sequence[File]) -> None:
    if sum(file.size for file in weights) > _MAX_BYTES:
        raise _too_much()


def _refuse_slow(structures: Sequence[AdapterStructure]) -> None:
    """Raise NotAllowedError for sources of which the decompositions, or what they leave, are too much."""
    ranks: dict[str, int] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for structure in structures:
        for name, module in structure.modules.items():
            if module.shape is not None:
                ranks[name] = ranks.get(name, 0) + module.shape.rank
                shapes[name] = module.shape.out + module.shape.in_, module.shape.matrices
    steps = sum(matrices * (length + 8 * ranks[name]) * ranks[name] ** 2 for name, (length, matrices) in shapes.items())
    frames = sum(16 * matrices * ranks[name] ** 2 for name, (_, matrices) in shapes.items())
    if steps > _MAX_STEPS or frames > _MAX_FRAMES:
        raise _too_much()


def _too_much() -> NotAllowedError:
    return NotAllowedError(
        "these sources are too much for a registry to compute with: their owner can", hint="loreg compare --help"
    )
