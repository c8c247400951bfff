"""Keep the folders of served versions few, and never remove one that a server may still read.

A vLLM that finds no folder where it had read an adapter before ends, and every request with it. So each process has a
shared lock on the folders that it has loaded. Processes on one machine share the folders.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from loreg.file_locks import lock_file, lock_file_shared
from loreg.file_modes import make_file, make_folder
from loreg.plugins.resolved import forget_missing

MAX_FOLDERS = 64  # that stay in any case, those used last
MIN_AGE = 600.0  # seconds since it was used; what a client has given up may be in vLLM's queue a while longer
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REMOVED = ".removed-"


class FolderLocks:
    """The folders that this process may read at any moment; not for several threads at once."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}

    def lock(self, folder: Path) -> None:
        """Keep the folder from being removed by any process, until :meth:`release` or the end of this one."""
        while folder not in self._descriptors:
            descriptor = _open_lock(folder)
            if lock_file_shared(descriptor) and _is_current(descriptor, folder):
                self._descriptors[folder] = descriptor
            else:  # a process is removing the folder at this moment
                os.close(descriptor)

    def release(self, folder: Path) -> None:
        """Let the folder be removed, once it has not been used for a while."""
        touch(folder)
        os.close(self._descriptors.pop(folder))


def touch(folder: Path) -> None:
    """Mark the folder as used now."""
    with contextlib.suppress(OSError):  # another user's, in a shared home: he marks it himself
        os.utime(folder)


def remove_unused(served: Path) -> None:
    """Remove the folders below ``served`` that were used longest ago, and that no process has a lock on."""
    for path in served.glob(f"{_REMOVED}*"):  # what a process that ended here has left
        shutil.rmtree(path, ignore_errors=True)
    used = {path: path.stat().st_mtime for path in served.iterdir() if _DIGEST.fullmatch(path.name)}
    by_age = sorted(used, key=used.__getitem__)
    surplus = by_age[: max(len(by_age) - MAX_FOLDERS, 0)]
    removed = [_remove(path) for path in surplus if used[path] < time.time() - MIN_AGE]
    if any(removed):
        forget_missing(served)


def _remove(folder: Path) -> bool:
    """Remove the folder unless a process has a lock on it; return whether it is gone."""
    descriptor = _open_lock(folder)
    try:
        if not lock_file(descriptor) or not _is_current(descriptor, folder):
            return False
        removed = folder.with_name(f"{_REMOVED}{folder.name}-{os.getpid()}")
        folder.rename(removed)
        _lock_path(folder).unlink()
    finally:
        os.close(descriptor)
    shutil.rmtree(removed, ignore_errors=True)
    return True


def _lock_path(folder: Path) -> Path:
    """Return the file to lock: not the folder itself, which those wait for who pull the same version beside."""
    return folder.parent / "locks" / folder.name


def _open_lock(folder: Path) -> int:
    path = _lock_path(folder)
    make_folder(path.parent)
    make_file(path)
    return os.open(path, os.O_RDONLY)


def _is_current(descriptor: int, folder: Path) -> bool:
    """Return whether the file that was locked is still the one that others lock."""
    try:
        return os.path.samestat(_lock_path(folder).stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
