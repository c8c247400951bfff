"""Keep what was computed in files of a folder: it can be computed again at any time.

A file is written at once and checked when it is read; what is damaged counts as missing. The files that were not used
for longest go when all of them exceed a limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from loreg.file_modes import make_folder, write_file

_log = logging.getLogger("loreg.previewing")
_SUFFIX = ".frames"
_CHECKSUM = 32  # bytes
MAX_BYTES = 1024**3


class ComputedFiles:
    """Files of ``folder``, ``max_bytes`` of them at most; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def find(self, words: Sequence[str]) -> tuple[Path, int] | None:
        """Return the file of what ``words`` say, which counts as used now, and when it was written; None for none."""
        if self._folder is None:
            return None
        path = self._path(self._folder, words)
        try:
            written = path.stat().st_mtime_ns
            os.utime(path, ns=(time.time_ns(), written))
        except OSError:
            return None
        return path, written

    def has(self, words: Sequence[str]) -> bool:
        """Return whether there is a file of what ``words`` say."""
        return self._folder is not None and self._path(self._folder, words).is_file()

    def write(self, words: Sequence[str], payload: bytes) -> None:
        """Keep ``payload`` as what ``words`` say; a folder that cannot be written is no error."""
        if self._folder is None or len(payload) > self._max_bytes:
            return
        checksum = hashlib.blake2b(payload, digest_size=_CHECKSUM).digest()
        try:
            make_folder(self._folder)
            write_file(self._path(self._folder, words), payload + checksum)
            self._evict(self._folder)
        except OSError as error:
            _log.warning("what a preview computed is not kept in %s: %s", self._folder, error)

    @staticmethod
    def _path(folder: Path, words: Sequence[str]) -> Path:
        return folder / f"{hashlib.sha256(chr(10).join(words).encode()).hexdigest()}{_SUFFIX}"

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


def read_computed(path: Path) -> bytes | None:
    """Return what is in a file of :class:`ComputedFiles`; None if it is gone or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    payload, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    return payload if hashlib.blake2b(payload, digest_size=_CHECKSUM).digest() == checksum else None
