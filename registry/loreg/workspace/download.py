"""Download the blobs of a version, or of an export of it, to files in a folder that are flushed to the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from loreg.entities import Progress
from loreg.errors import explain_os_errors
from loreg.file_modes import sync_folder
from loreg.manifest import File, resolve_inside
from loreg.storage import Blob, digest_of
from loreg.storage.durable import sync_file
from loreg.workspace.context import Context


def download_files(
    context: Context, files: Sequence[File], folder: Path, progress: Progress, source: Path | None = None
) -> int:
    """Write the files into the existing ``folder``; returns the bytes that were not there already.

    They come from the store, or from the folder ``source`` on this machine.
    """
    total = sum(file.size for file in files)
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("pulling", done, total)

    downloaded = 0
    for file in files:
        path = resolve_inside(folder, file.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = Blob(file.sha256, file.size)
        if path.exists() and digest_of(path) == blob:  # an interrupted pull had finished this one
            count(file.size)
            continue
        if source is not None:
            shutil.copyfile(resolve_inside(source, file.path), path)
            sync_file(path)
            count(file.size)
        else:
            context.store.get(blob, path, count)
        downloaded += file.size
    for below in {folder, *(parent for file in files for parent in resolve_inside(folder, file.path).parents)}:
        if below.is_relative_to(folder):
            sync_folder(below)
    return downloaded


def download_to_temporary(context: Context, files: Sequence[File], folder: Path, progress: Progress) -> None:
    """Write the files into the temporary ``folder``, whose errors are then not those of the store."""
    with explain_os_errors("the temporary folder", "set TMPDIR to a folder with space that you may write"):
        download_files(context, files, folder, progress)
