"""pull: write a version to a folder, which appears under its name only when every file is there and hashed."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from loreg.adapters.base_path import differs_only_by_base_path, restore_base_path
from loreg.adapters.config import CONFIG_NAME
from loreg.checking.profile import read_profile
from loreg.entities import Details, Progress, PullResult, Version, no_progress
from loreg.errors import ConflictError, IntegrityError, NotFoundError, UsageError, explain_os_errors
from loreg.exporting.folder import read_summary
from loreg.file_locks import lock_folder, pause
from loreg.manifest import File, Manifest
from loreg.refs import parse_ref
from loreg.storage import digest_of
from loreg.storage.durable import make_folders
from loreg.verbs.export import export_for_profile
from loreg.workspace.atomic_folder import UNFINISHED, is_free, move_into_place, recover_moved, staging_path
from loreg.workspace.context import Context
from loreg.workspace.download import download_files

MAX_STALL = 30.0  # seconds that another pull of the same version to the same folder may stand still


def pull(
    context: Context,
    ref: str,
    folder: Path | str | None = None,
    *,
    profile: str | None = None,
    with_base_hint: bool = False,
    verify: bool = False,
    progress: Progress = no_progress,
) -> PullResult:
    """Write the files of a version to a folder. See :meth:`loreg.registry.Registry.pull`."""
    if verify and profile is None:
        raise UsageError("without a profile every file is verified by its digest", hint="--profile SERVER --verify")
    parsed = parse_ref(ref)
    if profile is not None:
        read_profile(profile)  # raises for an unknown profile before anything is requested
    details = context.backend.begin_pull(parsed)
    _refuse_another_digest(details)
    target = Path(folder if folder is not None else parsed.adapter.name)
    base_path = _find_base_path(details) if with_base_hint else ""
    if profile is None:
        downloaded = _write_files(context, details.version, details.files, None, target, base_path, progress)
        return PullResult(details.version, target, downloaded)
    rebuild = False
    while True:
        with export_for_profile(context, details, profile, verify, progress, rebuild=rebuild) as exported:
            files = exported.manifest.files
            try:
                downloaded = _write_files(context, details.version, files, exported.folder, target, base_path, progress)
                return PullResult(details.version, target, downloaded, read_summary(target.resolve()))
            except (NotFoundError, IntegrityError):
                if exported.folder is not None:
                    raise
        rebuild = True  # what is stored of the export is lost or damaged: no push would store it again


def _refuse_another_digest(details: Details) -> None:
    """Raise IntegrityError unless the version's digest is that of its files: a pinned ref promises these."""
    version = details.version
    if Manifest(details.files).digest != version.digest:
        raise IntegrityError(
            f"the registry lists other files for {version.ref} than its digest sha256:{version.digest[:12]} is of",
            hint="loreg doctor",
        )


def _find_base_path(details: Details) -> str:
    """Return the path of the base if the registry tells it to the caller; older releases tell it in the hint."""
    return details.base_path or details.version.facts.base_hint


def _write_files(
    context: Context,
    version: Version,
    files: tuple[File, ...],
    source: Path | None,
    target: Path,
    base_path: str,
    progress: Progress,
) -> int:
    """Write the files to ``target``, which appears when all are there; return the bytes that were not there already.

    ``base_path`` is written into the configuration, unless it is empty.
    """
    with explain_os_errors(target, f"choose another folder: loreg pull {version.ref} DIR"):
        real = target.resolve()  # "x/.." is a folder even where there is no x
        while is_free(real):
            staging = staging_path(real, f"{version.digest[:12]}.partial")
            make_folders(staging.parent)
            staging.mkdir(exist_ok=True)
            waiting = _OtherPull(staging, sum(file.size for file in files), progress)
            with lock_folder(staging, waiting) as alone:
                if not alone:  # another pull had it, and has made something of it: look again
                    continue
                try:
                    recover_moved(real, staging)
                    downloaded = download_files(context, files, staging, progress, source)
                    _remove_unexpected(staging, files)
                    restore_base_path(staging / CONFIG_NAME, base_path)
                    move_into_place(staging, real)
                except ConflictError:  # something else has the place by now
                    shutil.rmtree(staging)
                    continue
                finally:
                    with contextlib.suppress(OSError):
                        staging.rmdir()  # if nothing arrived there is nothing to go on with
                return downloaded
        if not _has_files(real, files):
            raise ConflictError(
                f"{target} is not empty and is not {version.ref}; nothing was changed",
                hint="name a folder that is not there yet",
            )
        restore_base_path(real / CONFIG_NAME, base_path)
        return 0


class _OtherPull:
    """Another pull that writes the same folder: call it to wait a little, for as long as the other makes progress."""

    def __init__(self, folder: Path, total: int, progress: Progress) -> None:
        self._folder, self._total, self._progress = folder, total, progress
        self._size, self._deadline = -1, 0.0

    def __call__(self) -> None:
        """Report how far the other pull is, and pause. Raises ConflictError if it stands still."""
        arrived = _folder_size(self._folder)
        if arrived != self._size:
            self._size, self._deadline = arrived, time.monotonic() + MAX_STALL
        elif time.monotonic() > self._deadline:
            raise ConflictError(
                f"another pull is writing {self._folder}, and has got no further for {MAX_STALL:.0f} seconds",
                hint="wait until it has ended, or stop it, and pull again",
            )
        self._progress("waiting for another pull", arrived, self._total)
        pause()


def _folder_size(folder: Path) -> int:
    """Return how many bytes the folder holds by now, while another process writes to it."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.lstat().st_size
    return size


def _remove_unexpected(staging: Path, files: tuple[File, ...]) -> None:
    """Remove the files that are not of this version: they must not appear under its name."""
    names = {file.path for file in files}
    for path in staging.rglob("*"):
        if not path.is_dir() and path.relative_to(staging).as_posix() not in names:
            path.unlink()


def _has_files(folder: Path, files: tuple[File, ...]) -> bool:
    """Return whether ``folder`` has exactly these files; the configuration may have got the base's path."""
    expected = {file.path: (file.sha256, file.size) for file in files}
    present = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    paths_by_name = {path.relative_to(folder).as_posix(): path for path in present}
    paths = {name: path for name, path in paths_by_name.items() if not name.startswith(UNFINISHED)}
    if paths.keys() != expected.keys():
        return False
    blobs = {name: digest_of(path) for name, path in paths.items()}
    changed = [name for name in expected if (blobs[name].sha256, blobs[name].size) != expected[name]]
    return not changed or (
        changed == [CONFIG_NAME] and differs_only_by_base_path(paths[CONFIG_NAME], expected[CONFIG_NAME][0])
    )
