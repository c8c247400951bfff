"""What killed processes left on this machine: the temporary folders of verbs, and half-written files of the cache."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import gettempdir

from loreg.errors import explain_os_errors
from loreg.file_modes import HAS_OWNERS
from loreg.storage import Leftover

#: How the folders begin that verbs and servers work in.
PREFIXES = (
    "loreg-push-", "loreg-merge-", "loreg-commit-", "loreg-export-", "loreg-upload-", "loreg-repair-",
    "loreg-identify-", "loreg-sketch-", "loreg-import-", "loreg-sweep-", "loreg-backup-", "loreg-bake-", "loreg-blob-",
    "loreg-bundle-", "loreg-check-", "loreg-copy-", "loreg-forget-", "loreg-map-", "loreg-mirror-", "loreg-move-",
    "loreg-preview-", "loreg-ray-", "loreg-reproduce-", "loreg-restore-", "loreg-upgrade-",
)  # fmt: skip


def list_temporary(cache: Path) -> Iterator[Leftover]:
    """Yield this user's temporary folders of loreg, and the files of ``cache`` that were never given their name.

    Those that are in use are among them. The time of a folder is when something in it was last changed.
    """
    temporary = Path(gettempdir())
    with explain_os_errors(temporary, "check the folder that TMPDIR names and its permissions"):
        for prefix in PREFIXES:
            for path in temporary.glob(f"{prefix}*"):
                with contextlib.suppress(FileNotFoundError):
                    yield from _list_folder(path)
    for path in cache.rglob(".new-*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if _is_own(status) and not path.is_dir():
                at = datetime.fromtimestamp(status.st_mtime, UTC)
                yield Leftover(str(path), at, status.st_size, partial(path.unlink, missing_ok=True))


def _list_folder(path: Path) -> Iterator[Leftover]:
    if path.is_symlink() or not path.is_dir() or not _is_own(path.lstat()):
        return
    changed, size = path.lstat().st_mtime, 0
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                status = Path(folder, name).lstat()
                changed = max(changed, status.st_mtime)
                size += status.st_size if name in names else 0
    yield Leftover(str(path), datetime.fromtimestamp(changed, UTC), size, partial(_remove_folder, path))


def _is_own(status: os.stat_result) -> bool:
    return not HAS_OWNERS or status.st_uid == os.getuid()


def _remove_folder(path: Path) -> None:
    """Remove a folder; rmtree follows no link, also not one that is put there meanwhile."""
    with explain_os_errors(path, f"remove it: rm -r {path}"), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
