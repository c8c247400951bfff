"""Locks on open files and folders, held by one process at a time: when it ends or dies, its locks are free at once.

On Linux and macOS a folder is locked itself, so that nothing has to lie in it or beside it. Windows opens no folder:
there a file in the user's temporary folder is locked in its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_INTERVAL = 0.05  # seconds


def pause() -> None:
    """Sleep for a moment, before the next look at a lock that another holds."""
    time.sleep(_INTERVAL)


def lock_file(descriptor: int) -> bool:
    """Lock what is open as ``descriptor`` until it is closed; return False if another holds the lock."""
    from filelock import lock_descriptor  # here: a command that locks nothing does not wait for the import

    return lock_descriptor(descriptor, blocking=False)


def lock_file_shared(descriptor: int) -> bool:
    """Lock what is open as ``descriptor`` until it is closed, as others may, too; return False if one has it alone.

    Windows has no such lock here: there one process holds it at a time.
    """
    try:
        import fcntl
    except ImportError:
        return lock_file(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def lock_folder(folder: Path, wait: Callable[[], None] = pause) -> Iterator[bool]:
    """Lock ``folder``, and yield whether it is still there and still the same when the lock is held.

    ``wait`` is called again and again while another holds the lock; what it raises ends the waiting.
    """
    from filelock import has_fcntl

    lock = _lock_itself if has_fcntl else _lock_by_name
    with lock(folder, wait) as is_there:
        yield is_there


@contextlib.contextmanager
def _lock_itself(folder: Path, wait: Callable[[], None]) -> Iterator[bool]:
    try:
        descriptor: int | None = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = None
    if descriptor is None:
        yield False
        return
    try:
        while not lock_file(descriptor):
            wait()
        try:
            is_there = os.path.samestat(folder.stat(), os.fstat(descriptor))
        except FileNotFoundError:  # who had the lock has moved the folder to its place
            is_there = False
        yield is_there
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock_by_name(folder: Path, wait: Callable[[], None]) -> Iterator[bool]:
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir()) / f"loreg-{name}.lock")
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            wait()
        else:
            break
    try:
        yield folder.is_dir()
    finally:
        lock.release()
