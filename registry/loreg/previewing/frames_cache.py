"""Keep what sources were reduced to in a folder, by their digests: it can be computed again at any time.

A file is written at once and checked when it is read; what is damaged, or of another release, counts as missing. The
files that were not used for longest go when all of them exceed a limit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loreg.file_modes import make_folder, write_file
from loreg.previewing.joint_frames import FrameGroup, ModuleKind
from loreg.previewing.reduced_sources import ReducedSources

_log = logging.getLogger("loreg.previewing")
_SCHEMA = "loreg.frames/1"
_MAX_BYTES = 1024**3
_SUFFIX = ".frames"
_CHECKSUM = 32  # bytes


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


class FramesCache:
    """Reduced sources in files of ``folder``, ``max_bytes`` of them at most; without a folder nothing is kept."""

    def __init__(self, folder: Path | None = None, max_bytes: int = _MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def load(self, digests: Sequence[str]) -> ReducedSources | None:
        """Return what the sources with these digests, in this order, were reduced to; None if it is not kept."""
        if self._folder is None:
            return None
        path = self._path(self._folder, digests)
        try:
            status = path.stat()
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))  # only when it was used
            return _read(path, status.st_mtime_ns, status.st_size)
        except OSError:
            return None

    def has(self, digests: Sequence[str]) -> bool:
        """Return whether what these sources were reduced to is kept."""
        return self._folder is not None and self._path(self._folder, digests).is_file()

    def store(self, digests: Sequence[str], reduced: ReducedSources) -> None:
        """Keep what the sources were reduced to. A folder that cannot be written is no error: it is computed again."""
        if self._folder is None:
            return
        groups = tuple(
            _StoredGroup(group.kind, group.modules, *(x.tobytes() for x in (group.left, group.right, group.gram)))
            for group in reduced.groups
        )
        payload = msgspec.msgpack.encode(_StoredSources(_SCHEMA, groups, reduced.other_bytes))
        checksum = hashlib.blake2b(payload, digest_size=_CHECKSUM).digest()
        if len(payload) > self._max_bytes:
            return
        try:
            make_folder(self._folder)
            write_file(self._path(self._folder, digests), payload + checksum)
            self._evict(self._folder)
        except OSError as error:
            _log.warning("what a merge preview computed is not kept in %s: %s", self._folder, error)

    @staticmethod
    def _path(folder: Path, digests: Sequence[str]) -> Path:
        key = hashlib.sha256("\n".join((_SCHEMA, *digests)).encode()).hexdigest()
        return folder / f"{key}{_SUFFIX}"

    def _evict(self, folder: Path) -> None:
        """Remove the files that were not used for longest, until the others are few enough."""
        files = []
        for path in folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                files.append((status.st_atime_ns, status.st_size, path))
        remaining = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if remaining <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            remaining -= size


@functools.lru_cache(4)
def _read(path: Path, mtime: int, size: int) -> ReducedSources | None:
    """Return what is in a file as it was at that time; the last ones are remembered. None if it is damaged."""
    content = path.read_bytes()
    payload, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if hashlib.blake2b(payload, digest_size=_CHECKSUM).digest() != checksum:
        return None
    try:
        stored = msgspec.msgpack.decode(payload, type=_StoredSources)
    except msgspec.MsgspecError:
        return None
    return ReducedSources(tuple(map(_unpack, stored.groups)), stored.other_bytes)


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
