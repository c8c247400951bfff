"""Write files that survive a loss of power: their bytes are synced, and the folder that holds their name."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from loreg.file_modes import HAS_OWNERS, sync_folder

_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)  # as the file system and kernel say it


class AtomicFile:
    """A read-only file that gets its name when it is complete: a writer that is killed leaves nothing.

    Where the file system has no unnamed files (NFS, macOS), it has a hidden name until then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name: Path | None = None
        self.sink: BinaryIO = os.fdopen(self._open(), "wb")

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sink.close()
        if self._name is not None:
            self._name.unlink(missing_ok=True)

    def commit(self, target: Path) -> None:
        """Sync the file and name it ``target``, in its folder, in place of a file that is there."""
        self.sink.flush()
        os.fsync(self.sink.fileno())
        if self._name is None:
            try:
                self._link(target)
            except FileExistsError:  # a name that is taken can only be renamed over
                self._name = self._hidden_name()
                self._link(self._name)
        if self._name is not None:
            self.sink.close()  # Windows renames no open file
            self._name.replace(target)
        sync_folder(self._folder)

    def commit_new(self, target: Path) -> bool:
        """Sync the file and name it ``target``, unless there is a file of that name: then return False."""
        self.sink.flush()
        os.fsync(self.sink.fileno())
        try:
            if self._name is None:
                self._link(target)
            else:
                os.link(self._name, target)
        except FileExistsError:
            return False
        sync_folder(self._folder)
        return True

    def _open(self) -> int:
        try:
            return os.open(self._folder, os.O_WRONLY | os.O_TMPFILE, 0o444)
        except AttributeError:  # not Linux
            pass
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
        self._name = self._hidden_name()
        return os.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)

    def _link(self, target: Path) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:  # with a folder's descriptor Python follows the link to the file itself, as linkat(2) says to do
            os.link(f"/proc/self/fd/{self.sink.fileno()}", target.name, dst_dir_fd=folder)
        finally:
            os.close(folder)

    def _hidden_name(self) -> Path:
        return self._folder / f".put-{secrets.token_hex(8)}"


def sync_file(path: Path) -> None:
    """Put the bytes of a file on the disk."""
    with path.open("rb" if HAS_OWNERS else "r+b") as stream:  # Windows does it for writers alone
        os.fsync(stream.fileno())


def move_durably(path: Path, target: Path) -> None:
    """Rename a file within its folder; both its bytes and its name are on the disk when this returns."""
    sync_file(path)
    path.replace(target)
    sync_folder(target.parent)


def make_folders(folder: Path) -> None:
    """Create a folder and its missing parents; their names are on the disk when this returns."""
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)
