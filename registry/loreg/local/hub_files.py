"""Take the path of the base out of what a client of the Hub commits, as a push takes it out of a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES, parse_config_bytes
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.errors import AdapterFormatError
from loreg.manifest import File, Manifest
from loreg.storage import digest_of
from loreg.storage.staged import StagedStore

_MAX_BYTES = 1024**2  # of a file that the path is looked for in
_MAX_TOTAL = 64 * 1024**2  # of all of them


def remove_staged_base_path(store: StagedStore, manifest: Manifest, base_path: str) -> tuple[Manifest, str]:
    """Return the manifest with files that do not name the base by a path, and what the configuration called the base.

    That is ``base_path`` where the configuration names none: it was taken out of it before. New files are staged in
    ``store`` in the place of those that were. A configuration that cannot be read stays as it is: reading the commit
    says what is wrong with it.
    """
    files = {file.path: file for file in manifest.files}
    config = files[CONFIG_NAME]
    if config.size > MAX_CONFIG_BYTES or store.size(config.sha256) != config.size:
        return manifest, ""
    try:
        base_hint = parse_config_bytes(Path(CONFIG_NAME), store.read(config.sha256, config.size)).base_hint
    except AdapterFormatError:
        return manifest, ""
    base_hint = base_hint or base_path
    with tempfile.TemporaryDirectory(dir=store.folder) as name:
        paths = _write_small_files(store, files, Path(name))
        for number, (path, content) in enumerate(sorted(remove_base_path(paths, base_hint).items())):
            cleaned = Path(name) / f"cleaned-{number}"
            cleaned.write_bytes(content)
            blob = digest_of(cleaned)
            store.put(blob, cleaned)
            files[path] = File(path, blob.sha256, blob.size)
    left = {file.sha256 for file in files.values()}
    for file in manifest.files:
        if file.sha256 not in left:
            store.discard(file.sha256)
    return Manifest(tuple(files[path] for path in sorted(files))), base_hint


def _write_small_files(store: StagedStore, files: dict[str, File], folder: Path) -> dict[str, Path]:
    """Write the configuration, and the small files beside the weights, into ``folder``; return where each lies."""
    paths, total = {}, 0
    for number, (path, file) in enumerate(sorted(files.items(), key=lambda item: item[0] != CONFIG_NAME)):
        is_small = file.size <= _MAX_BYTES and total + file.size <= _MAX_TOTAL and path != WEIGHTS_NAME
        if path == CONFIG_NAME or (is_small and store.size(file.sha256) == file.size):
            total += file.size
            paths[path] = folder / str(number)
            paths[path].write_bytes(store.read(file.sha256, file.size))
    return paths
