"""Remember the sha256 of files that have not changed, so that a second plan of a large tree hashes nothing anew."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from loreg.file_modes import make_folder, write_file
from loreg.storage import digest_of

_MAX_REMEMBERED = 20_000


class DigestMemory:
    """The digests of files by path, in one file of this machine; a folder that cannot be written is no error.

    A file counts as the same while its inode, its bytes, and its two times do: no program can set the ctime.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_changed = False
        self._digests: dict[str, tuple[list[int], str]] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            document = json.loads(path.read_bytes())
            self._digests = {str(name): (list(stamp), str(sha256)) for name, (stamp, sha256) in document.items()}

    def sha256(self, file: Path) -> str:
        """Return the hex sha256 of the file, which is read unless it is remembered."""
        name, stamp = str(file.resolve()), _stamp(file)
        with self._lock:
            remembered = self._digests.get(name)
        if remembered is not None and remembered[0] == stamp:
            return remembered[1]
        sha256 = digest_of(file).sha256
        if _stamp(file) == stamp:
            with self._lock:
                self._digests.pop(name, None)  # the newest are last
                self._digests[name] = stamp, sha256
                self._is_changed = True
        return sha256

    def save(self) -> None:
        """Write what was learned."""
        with self._lock:
            if not self._is_changed:
                return
            newest = dict(list(self._digests.items())[-_MAX_REMEMBERED:])
            with contextlib.suppress(OSError):
                make_folder(self._path.parent)
                write_file(self._path, json.dumps(newest).encode())
            self._is_changed = False


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
