"""Reduce stored versions to small matrices: their files are read once, within limits, by one caller at a time."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.entities import Version
from loreg.errors import ConflictError, NotAllowedError
from loreg.manifest import File
from loreg.merging.inputs import MergeInput
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


def is_reduced(cache: FramesCache, sources: Sequence[Stored]) -> bool:
    """Return whether what the sources are reduced to is kept: nothing is read then."""
    return cache.has(_key(sources))


def reduce_versions(store: BlobTransfer, cache: FramesCache, sources: Sequence[Stored]) -> ReducedSources:
    """Return what versions that the caller may read are reduced to, in this order.

    Raises MergeError for what cannot be merged, NotAllowedError for what is too much for a registry, and ConflictError
    while it reads others.
    """
    key = _key(sources)
    if (reduced := cache.load(key)) is not None:
        return reduced
    with one_at_a_time():
        if (reduced := cache.load(key)) is not None:  # who held the lock has made it
            return reduced
        with fetch_inputs(store, sources) as inputs:
            reduced = reduce_inputs(inputs, one_base=_one_base(sources))
        cache.store(key, reduced)
        return reduced


@contextlib.contextmanager
def fetch_inputs(store: BlobTransfer, sources: Sequence[Stored]) -> Iterator[list[MergeInput]]:
    """Fetch the sources, which are removed at the end. Raises NotAllowedError for what is too much for a registry."""
    _refuse_oversized([file for _, files in sources for file in files if file.path == WEIGHTS_NAME])
    with tempfile.TemporaryDirectory(prefix="loreg-preview-") as folder:
        structures = [_fetch(store, files, Path(folder, str(i))) for i, (_, files) in enumerate(sources)]
        _refuse_slow(structures)
        yield [
            MergeInput(structure, version.ref, version.digest)
            for structure, (version, _) in zip(structures, sources, strict=True)
        ]


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for whoever reads sources now. Raises ConflictError after some seconds."""
    if not _LOCK.acquire(timeout=_MAX_WAIT):
        raise ConflictError("the registry reads other adapters now", hint="try again in a minute")
    try:
        yield
    finally:
        _LOCK.release()


def _key(sources: Sequence[Stored]) -> list[str]:
    return [*(version.digest for version, _ in sources), f"one base: {_one_base(sources)}"]


def _one_base(sources: Sequence[Stored]) -> bool:
    bases = {version.base.digest if version.base else None for version, _ in sources}
    return len(bases) == 1 and None not in bases


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
