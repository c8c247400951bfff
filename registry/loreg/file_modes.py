"""Make files and folders with the right permissions: one rule for the catalog, the store and the caches.

They are for the user alone who makes them, folders 0700 and files 0600 under any umask, unless they are made in a
shared folder. A folder is shared if its group may write into it and is the group of what is made there:

- by its setgid bit (``chmod g+ws DIR``): what is made there has the permissions of the folder, for the group and for
  others, as in Git's ``core.sharedRepository``;
- because it is the user's own group: then the group has the permissions of the folder, and others have none.

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
#: Whether files have owners, groups and modes: everywhere but on Windows, where a folder of the user's is his alone.
HAS_OWNERS = hasattr(os, "geteuid")


def inherited_permissions(folder: Path) -> int:
    """Return the permissions (of 0o777) for what is made in ``folder``; files take them without the execute bits."""
    if not HAS_OWNERS:
        return PRIVATE
    status = folder.stat()
    mode = status.st_mode
    if mode & stat.S_IWGRP and not mode & stat.S_ISVTX:
        if mode & stat.S_ISGID:
            return stat.S_IMODE(mode) & 0o777
        if status.st_gid == os.getegid():
            return stat.S_IMODE(mode) & 0o770
    return PRIVATE


def permissions_of(folder: Path) -> int:
    """Return the permissions (of 0o777) of ``folder`` itself."""
    return stat.S_IMODE(folder.stat().st_mode) & 0o777


def make_folder(folder: Path, within: Path | None = None) -> None:
    """Make ``folder`` and what is missing above it; below ``within``, a store, with the permissions of what is above.

    It is never visible with other permissions than its final ones, so that two processes that make it at once can both
    use it; its name is on the disk when this returns. Raises OSError.
    """
    if folder.is_dir():
        return
    parent = folder.parent
    if parent != folder:
        make_folder(parent, within)
    is_inside = within is not None and parent != within and parent.is_relative_to(within)
    mode = permissions_of(parent) if is_inside else inherited_permissions(parent)
    try:
        if not HAS_OWNERS or (mode == PRIVATE and not _is_root_in_foreign_folder(parent)):
            folder.mkdir(PRIVATE)
        else:
            _make_shared(folder, mode)
    except OSError as error:
        if not folder.is_dir():
            raise OSError(error.errno, error.strerror, str(folder)) from error
    sync_folder(parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk (fsync)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable without being readable
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def apply_permissions(descriptor: int, folder: Path, mode: int) -> None:
    """Set the permissions ``mode`` of an open file or folder; root also sets its owner to that of ``folder``.

    It is named by descriptor: another user who may write into the folder could replace what a path names.
    """
    if not HAS_OWNERS:
        return
    if _is_root_in_foreign_folder(folder):
        status = folder.stat()
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, mode | (os.fstat(descriptor).st_mode & stat.S_ISGID))


def make_file(path: Path) -> None:
    """Make an empty file, unless there is one; it is never visible with other permissions than its final ones.

    Where files cannot be linked none is made. Raises OSError if nothing can be made in the folder.
    """
    try:
        temporary = _write_beside(path, b"")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    with contextlib.suppress(OSError):
        path.hardlink_to(temporary)
    temporary.unlink()


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically, in the place of one that is there. Raises OSError."""
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _write_beside(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as stream:
        apply_permissions(descriptor, path.parent, inherited_permissions(path.parent) & 0o666)
        stream.write(content)
    return Path(name)


def _make_shared(folder: Path, mode: int) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            apply_permissions(descriptor, folder.parent, mode)
        finally:
            os.close(descriptor)
        temporary.rename(folder)  # replaces one that another process made meanwhile only while that is empty
    except BaseException:
        temporary.rmdir()
        raise


def _is_root_in_foreign_folder(folder: Path) -> bool:
    return HAS_OWNERS and os.geteuid() == 0 and folder.stat().st_uid != 0
