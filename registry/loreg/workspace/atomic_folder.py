"""A folder that was written under another name takes its own.

Where there is none, a rename makes it appear at once. A folder that is there already is filled and never replaced:
somebody may stand in it, something may be mounted on it, and the folder above it may not be his who fills it.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.errors import ConflictError
from loreg.file_locks import lock_folder
from loreg.file_modes import sync_folder
from loreg.manifest import hidden_sibling
from loreg.storage.durable import make_folders, sync_file

#: In a folder that is being filled: what becomes its content, and the list of what is its content already.
UNFINISHED = ".loreg-unfinished"
_MOVED = f"{UNFINISHED}.moved"
_LAST = (CONFIG_NAME, "config.json")  # without these nobody takes the folder for an adapter or a model

#: What tells a file that was moved from one that somebody wrote later under its name.
_Stamp = list[int]


def is_free(target: Path) -> bool:
    """Whether there is nothing at ``target``, or a folder with nothing in it but what an interrupted call left."""
    real = target.resolve()
    if not real.is_dir():
        return not (real.exists() or real.is_symlink())
    if next(real.iterdir(), None) is None:
        return True
    moved = _moved_into(real)
    folders = {str(folder) for name in moved for folder in Path(name).parents}
    for path in real.rglob("*"):
        name = path.relative_to(real)
        is_ours = name.parts[0].startswith(UNFINISHED) or (str(name) in folders and not path.is_symlink())
        if not is_ours and moved.get(str(name)) != _file_stamp(path):
            return False
    return True


def staging_path(target: Path, mark: str) -> Path:
    """Where what becomes ``target`` grows: in the folder that is there already, else beside it."""
    real = target.resolve()
    return real / f"{UNFINISHED}.{mark}" if real.is_dir() else hidden_sibling(real, mark)


@contextlib.contextmanager
def temporary_staging(target: Path) -> Iterator[Path]:
    """A folder to grow in that is removed at the end, whatever happens."""
    real = target.resolve()
    inside = real.is_dir()
    if not inside:
        make_folders(real.parent)
    prefix, parent = (f"{UNFINISHED}.", real) if inside else (".loreg-merge-", real.parent)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        staging = Path(name) / "adapter"
        staging.mkdir()
        yield staging


def move_into_place(staging: Path, target: Path) -> None:
    """Let ``target`` be what ``staging`` is, which is gone then; both are on the disk when this returns.

    Raises ConflictError if there is something else at ``target`` by now; then nothing is changed.
    """
    real = target.resolve()
    for path in (*staging.rglob("*"), staging):
        _flush(path)
    if not real.is_dir():
        try:
            staging.rename(real)
        except OSError:
            if not real.is_dir():  # it is by now if somebody else was faster
                raise
        else:
            _flush(real.parent)
            return
    try:
        _fill(real, staging)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _fill(real, shutil.copytree(staging, real / f"{UNFINISHED}.copied", dirs_exist_ok=True))
        shutil.rmtree(real / f"{UNFINISHED}.copied")
    shutil.rmtree(staging)


def refuse_unless_free(target: Path, record: str) -> None:
    """Raise ConflictError for a folder with something in it that cannot be what is to be written.

    That has the file ``record``; whether it is the same is known when the new one is written: see :func:`is_the_same`.
    """
    if not is_free(target) and not (target / record).is_file():
        raise ConflictError(f"{target} is not empty; nothing was changed", hint="choose a new folder for --to")


def has_same_files(written: Path, target: Path) -> bool:
    """Whether ``target`` has the very files that were written just now, and no others; these may lie inside it."""
    names = {path.name for path in written.iterdir()}
    there = {path.name for path in target.iterdir() if not path.name.startswith(UNFINISHED)}
    return names == there and all(
        (target / name).is_file() and filecmp.cmp(written / name, target / name, shallow=False) for name in names
    )


def recover_moved(target: Path, staging: Path) -> None:
    """Move to ``staging`` what an interrupted call had moved from there to the folder ``target``."""
    for name, path in _moved_into_place(target.resolve()):
        if not (staging / name).exists():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(staging / name)


def _fill(folder: Path, staging: Path) -> None:
    with lock_folder(folder):  # who holds it only renames
        if not is_free(folder):
            raise ConflictError(f"{folder} is not empty any more; nothing was changed", hint="choose another folder")
        for _, path in _moved_into_place(folder):  # of another call, which nobody goes on with
            path.unlink()
        paths = {path.relative_to(staging): path for path in staging.rglob("*") if not path.is_dir()}
        moved = {str(name): _file_stamp(path) for name, path in paths.items()}
        listed = folder / _MOVED
        listed.write_text(json.dumps(moved), encoding="utf-8")
        _flush(listed)
        for name in sorted(paths, key=lambda name: (str(name) in _LAST, name)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            paths[name].replace(folder / name)
        for path in {parent for name in paths for parent in name.parents}:
            _flush(folder / path)
        listed.unlink()


def _moved_into(folder: Path) -> dict[str, _Stamp]:
    """What an interrupted call had moved into the folder, or would have."""
    try:
        return dict(json.loads((folder / _MOVED).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def _moved_into_place(folder: Path) -> Iterator[tuple[str, Path]]:
    """Those of them that are there. They are looked for, and not believed: a list may name what is elsewhere."""
    moved = _moved_into(folder)
    for path in list(folder.rglob("*")) if moved else []:
        name = str(path.relative_to(folder))
        if moved.get(name) == _file_stamp(path) and path.is_file() and not path.is_symlink():
            yield name, path


def _file_stamp(path: Path) -> _Stamp:
    status = path.lstat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _flush(path: Path) -> None:
    """Make sure that a file's bytes are on the disk, or the names in a folder where the system lets us."""
    if not path.is_dir():
        sync_file(path)
        return
    with contextlib.suppress(OSError):
        sync_folder(path)
