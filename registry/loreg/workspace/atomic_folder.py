"""Write a folder under another name, then move it into place, so that nobody sees half of it.

Where there is no folder, a rename makes it appear at once. An empty folder is filled and never replaced: it may be the
working directory of a process or a mount point, and the folder above it may belong to another user.
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
    """Return whether ``target`` does not exist, or is a folder with nothing but what an interrupted call left."""
    real = target.resolve()
    if not real.is_dir():
        return not (real.exists() or real.is_symlink())
    if next(real.iterdir(), None) is None:
        return True
    moved = _read_moved_list(real)
    folders = {str(folder) for name in moved for folder in Path(name).parents}
    for path in real.rglob("*"):
        name = path.relative_to(real)
        is_ours = name.parts[0].startswith(UNFINISHED) or (str(name) in folders and not path.is_symlink())
        if not is_ours and moved.get(str(name)) != _file_stamp(path):
            return False
    return True


def staging_path(target: Path, mark: str) -> Path:
    """Return the folder to write what becomes ``target``: inside ``target`` if that exists, else beside it."""
    real = target.resolve()
    return real / f"{UNFINISHED}.{mark}" if real.is_dir() else hidden_sibling(real, mark)


@contextlib.contextmanager
def temporary_staging(target: Path) -> Iterator[Path]:
    """Yield a new folder in which what becomes ``target`` is written; it is removed at the end in any case."""
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
    """Move the content of ``staging`` to ``target`` and flush it to the disk; ``staging`` is gone then.

    Raises ConflictError if there is something else at ``target`` by now; then nothing is changed.
    """
    real = target.resolve()
    for path in (*staging.rglob("*"), staging):
        _flush(path)
    if not real.is_dir():
        try:
            staging.rename(real)
        except OSError:
            if not real.is_dir():  # it is by now if another process was faster
                raise
        else:
            _flush(real.parent)
            return
    try:
        _fill_folder(real, staging)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _fill_folder(real, shutil.copytree(staging, real / f"{UNFINISHED}.copied", dirs_exist_ok=True))
        shutil.rmtree(real / f"{UNFINISHED}.copied")
    shutil.rmtree(staging)


def refuse_unless_free(target: Path, record: str) -> None:
    """Raise ConflictError unless ``target`` is free or has the file ``record``, as an earlier result of the verb has.

    Whether that is the same result is known once the new one is written: see :func:`has_same_files`.
    """
    if not is_free(target) and not (target / record).is_file():
        raise ConflictError(f"{target} is not empty; nothing was changed", hint="choose a new folder for --to")


def has_same_files(written: Path, target: Path) -> bool:
    """Return whether ``target`` has the same files as ``written``, which may lie inside it, and no others."""
    names = {path.name for path in written.iterdir()}
    there = {path.name for path in target.iterdir() if not path.name.startswith(UNFINISHED)}
    return names == there and all(
        (target / name).is_file() and filecmp.cmp(written / name, target / name, shallow=False) for name in names
    )


def recover_moved(target: Path, staging: Path) -> None:
    """Move back to ``staging`` what an interrupted call had moved from there to the folder ``target``."""
    for name, path in _find_moved(target.resolve()):
        if not (staging / name).exists():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(staging / name)


def _fill_folder(folder: Path, staging: Path) -> None:
    with lock_folder(folder):  # held for renames only
        if not is_free(folder):
            raise ConflictError(f"{folder} is not empty any more; nothing was changed", hint="choose another folder")
        for _, path in _find_moved(folder):  # of another call, which nobody goes on with
            path.unlink()
        paths = {path.relative_to(staging): path for path in staging.rglob("*") if not path.is_dir()}
        moved = {str(name): _file_stamp(path) for name, path in paths.items()}
        moved_list = folder / _MOVED
        moved_list.write_text(json.dumps(moved), encoding="utf-8")
        _flush(moved_list)
        for name in sorted(paths, key=lambda name: (str(name) in _LAST, name)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            paths[name].replace(folder / name)
        for path in {parent for name in paths for parent in name.parents}:
            _flush(folder / path)
        moved_list.unlink()


def _read_moved_list(folder: Path) -> dict[str, _Stamp]:
    """Return the list of files that an interrupted call had moved into the folder, or was going to."""
    try:
        return dict(json.loads((folder / _MOVED).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def _find_moved(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the listed files that are in the folder: they are looked for, as a list may name files elsewhere."""
    moved = _read_moved_list(folder)
    for path in list(folder.rglob("*")) if moved else []:
        name = str(path.relative_to(folder))
        if moved.get(name) == _file_stamp(path) and path.is_file() and not path.is_symlink():
            yield name, path


def _file_stamp(path: Path) -> _Stamp:
    status = path.lstat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _flush(path: Path) -> None:
    """Flush a file's bytes to the disk, or a folder's names where the system allows it."""
    if not path.is_dir():
        sync_file(path)
        return
    with contextlib.suppress(OSError):
        sync_folder(path)
