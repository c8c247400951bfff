"""Who may read and write what loreg keeps on this machine: one rule for the catalog, the store and the caches.

They are their maker's alone, folders 0700 and files 0600 under any umask, unless the folder in which they are made is
shared. Shared is a folder whose group may write into it and is handed on to what is made there:

- by its setgid bit (``chmod g+ws DIR``): what is made there has the permissions of the folder, for the group and for
  others, as in Git's ``core.sharedRepository``;
- because it is the maker's own group: then the group has the permissions of the folder, and others have none.

A sticky folder such as ``/tmp`` is never shared. A store that is there already goes on as it is: what is added has the
permissions of the part of the store that it is added to, so that ``chmod -R`` opens or closes one for good. What root
makes belongs to the owner of the folder. SQLite itself gives ``-wal`` and ``-shm`` the permissions of the database. The
token that ``loreg login`` keeps is 0600 everywhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

PRIVATE = 0o700


def permissions_in(folder: Path) -> int:
    """The permissions (0o777 for all) of what is made in ``folder``; files have those of them that files can have."""
    status = folder.stat()
    mode = status.st_mode
    if mode & stat.S_IWGRP and not mode & stat.S_ISVTX:
        if mode & stat.S_ISGID:
            return stat.S_IMODE(mode) & 0o777
        if status.st_gid == os.getegid():
            return stat.S_IMODE(mode) & 0o770
    return PRIVATE


def permissions_of(folder: Path) -> int:
    """The permissions of ``folder`` itself."""
    return stat.S_IMODE(folder.stat().st_mode) & 0o777


def make_folder(folder: Path, within: Path | None = None) -> None:
    """Make ``folder`` and what is missing above it; below ``within``, a store, with the permissions of what is above.

    It never shows with other permissions than it will have, so that two who make it at once both can use it; its name
    is on the disk when this returns. Raises OSError.
    """
    if folder.is_dir():
        return
    parent = folder.parent
    if parent != folder:
        make_folder(parent, within)
    below = within is not None and parent != within and parent.is_relative_to(within)
    mode = permissions_of(parent) if below else permissions_in(parent)
    try:
        if mode == PRIVATE and not _root_in_the_folder_of_another(parent):
            folder.mkdir(PRIVATE)
        else:
            _make_shared(folder, mode)
    except OSError as error:
        if not folder.is_dir():
            raise OSError(error.errno, error.strerror, str(folder)) from None
    sync_folder(parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # who may make names in a folder need not be able to read them
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def give(descriptor: int, folder: Path, mode: int) -> None:
    """Give what is open as ``descriptor`` the permissions ``mode``; what root made in ``folder``, to its owner too.

    It is named by descriptor: a path could be made to mean something else by others who may write into the folder.
    """
    if _root_in_the_folder_of_another(folder):
        status = folder.stat()
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, mode | (os.fstat(descriptor).st_mode & stat.S_ISGID))


def make_file(path: Path) -> None:
    """Make an empty file, unless there is one; it never shows with other permissions than it will have.

    Where files cannot be linked none is made. Raises OSError if nothing can be made in the folder.
    """
    try:
        temporary = _write_beside(path, b"")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    with contextlib.suppress(OSError):
        path.hardlink_to(temporary)
    temporary.unlink()


def write_file(path: Path, content: bytes) -> None:
    """Write a file at once or not at all, in the place of one that is there. Raises OSError."""
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _write_beside(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as stream:
        give(descriptor, path.parent, permissions_in(path.parent) & 0o666)
        stream.write(content)
    return Path(name)


def _make_shared(folder: Path, mode: int) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            give(descriptor, folder.parent, mode)
        finally:
            os.close(descriptor)
        temporary.rename(folder)  # over one that somebody else made meanwhile only while that is empty
    except BaseException:
        temporary.rmdir()
        raise


def _root_in_the_folder_of_another(folder: Path) -> bool:
    return os.geteuid() == 0 and folder.stat().st_uid != 0
