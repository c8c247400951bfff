"""Keep what sources were reduced to, by their digests, as :mod:`loreg.previewing.computed_files` keeps anything."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loreg.previewing.computed_files import ComputedFiles, read_computed
from loreg.previewing.joint_frames import FrameGroup, ModuleKind
from loreg.previewing.reduced_sources import ReducedSources

_SCHEMA = "loreg.frames/2"


class _StoredGroup(msgspec.Struct):
    kind: ModuleKind
    modules: tuple[str, ...]
    left: bytes
    right: bytes
    gram: bytes


class _StoredSources(msgspec.Struct):
    schema: str
    groups: tuple[_StoredGroup, ...]
    other_bytes: int
    biased: tuple[int, ...]


class FramesCache:
    """Reduced sources in ``files``, which may have other things too."""

    def __init__(self, files: ComputedFiles) -> None:
        self._files = files

    def load(self, words: Sequence[str]) -> ReducedSources | None:
        """Return what the sources that ``words`` name, in this order, were reduced to; None if it is not kept."""
        place = self._files.find([_SCHEMA, *words])
        return _read(*place) if place else None

    def has(self, words: Sequence[str]) -> bool:
        """Return whether what these sources were reduced to is kept."""
        return self._files.has([_SCHEMA, *words])

    def store(self, words: Sequence[str], reduced: ReducedSources) -> None:
        """Keep what the sources were reduced to."""
        groups = tuple(
            _StoredGroup(group.kind, group.modules, *(x.tobytes() for x in (group.left, group.right, group.gram)))
            for group in reduced.groups
        )
        payload = msgspec.msgpack.encode(_StoredSources(_SCHEMA, groups, reduced.other_bytes, reduced.biased))
        self._files.write([_SCHEMA, *words], payload)


@functools.lru_cache(4)
def _read(path: Path, written: int) -> ReducedSources | None:
    """Return what is in a file as it was at that time; the last ones are remembered. None if it is damaged."""
    payload = read_computed(path)
    if payload is None:
        return None
    try:
        stored = msgspec.msgpack.decode(payload, type=_StoredSources)
    except msgspec.MsgspecError:
        return None
    return ReducedSources(tuple(map(_unpack, stored.groups)), stored.other_bytes, stored.biased)


def _unpack(group: _StoredGroup) -> FrameGroup:
    kind = group.kind
    n, sources, k = len(group.modules) * kind.shape.matrices, len(kind.ranks), sum(kind.ranks)

    def array(content: bytes, *shape: int) -> NDArray[Any]:
        return np.frombuffer(content, np.float64).reshape(shape)

    return FrameGroup(
        kind,
        group.modules,
        array(group.left, n, -1, k),
        array(group.right, n, -1, k),
        array(group.gram, n, sources, sources),
    )
