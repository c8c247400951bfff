"""A folder that was written under another name takes its own."""

from __future__ import annotations

from pathlib import Path


def is_free(target: Path) -> bool:
    """Whether there is nothing at ``target``, or an empty folder."""
    return not target.exists() or (target.is_dir() and not any(target.iterdir()))


def move_into_place(staging: Path, target: Path) -> None:
    """Rename ``staging`` to ``target``, at once; into an empty folder that cannot be replaced, file by file.

    That is the folder that a shell stands in, or one behind a symlink.
    """
    real = target.resolve()
    try:
        staging.rename(real)
    except OSError:
        if not real.is_dir() or any(real.iterdir()):
            raise
        for path in staging.iterdir():
            path.rename(real / path.name)
        staging.rmdir()
