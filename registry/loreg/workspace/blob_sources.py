"""Places from which lost blobs come back: folders, stores, servers. Nothing is believed without its hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.config import CONFIG_NAME
from loreg.errors import AdapterFormatError, IntegrityError, NotFoundError
from loreg.storage import Blob, BlobTransfer, digest_of
from loreg.storage.blobs import key_of


class BlobSource(Protocol):
    """A place that may have the bytes of a blob."""

    #: Where it is, for people.
    name: str

    def copy(self, blob: Blob, path: Path) -> bool:
        """Write the blob to ``path`` and return True, if these bytes are here and have its digest."""
        ...


class TreeSource:
    """A folder with adapters, a store or a registry in it, however deep: every file of the right size is hashed.

    A store's own file of a blob is looked for first; the tree is walked when that is not there, and once. Of adapters
    as they were before they were pushed, files are tried without the base's path, too, as push stored them.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder {folder}", hint="loreg repair --help")
        self.name = str(folder)
        self._folder = folder
        self._by_size: dict[int, list[str]] | None = None
        self._digests: dict[str, Blob] = {}
        self._cleaned: dict[Blob, tuple[Path, str]] | None = None

    def copy(self, blob: Blob, path: Path) -> bool:
        """Copy the first file that has the digest; what cannot be read is passed over."""
        for candidate in self._candidates(blob):
            if self._digest(candidate) == blob:
                shutil.copyfile(candidate, path)
                if digest_of(path) == blob:  # it may have changed since it was hashed
                    return True
        if self._cleaned is None:
            self._cleaned = {
                Blob(hashlib.sha256(content).hexdigest(), len(content)): (folder, name)
                for folder in self._adapter_folders()
                for name, content in _without_base_path(folder).items()
            }
        if blob not in self._cleaned:
            return False
        folder, name = self._cleaned[blob]
        path.write_bytes(_without_base_path(folder).get(name, b""))
        return digest_of(path) == blob

    def _adapter_folders(self) -> Iterator[Path]:
        for files in self._files_by_size().values():
            yield from (Path(file).parent for file in files if Path(file).name == CONFIG_NAME)

    def _candidates(self, blob: Blob) -> Iterator[str]:
        for store in (self._folder, self._folder / "store"):
            stored = store / key_of(blob.sha256)
            if stored.is_file():
                yield str(stored)
        yield from self._files_by_size().get(blob.size, ())

    def _files_by_size(self) -> dict[int, list[str]]:
        if self._by_size is None:
            self._by_size = _index_by_size(self._folder)
        return self._by_size

    def _digest(self, file: str) -> Blob | None:
        if file not in self._digests:
            try:
                self._digests[file] = digest_of(Path(file))
            except OSError:
                return None
        return self._digests[file]


class TransferSource:
    """A store in S3, or a server: asked for the blob by its digest."""

    def __init__(self, store: BlobTransfer) -> None:
        self.name = store.url
        self._store = store

    def copy(self, blob: Blob, path: Path) -> bool:
        """Download the blob, which is hashed on the way; one that is lost or damaged there is not here."""
        try:
            if self._store.size(blob.sha256) != blob.size:
                return False
            self._store.get(blob, path)
        except (NotFoundError, IntegrityError):
            return False
        return True


def _index_by_size(folder: Path) -> dict[int, list[str]]:
    """Return the files of a tree by their size. Links are not followed: they lead to other trees, or around."""
    by_size: dict[int, list[str]] = {}
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        by_size.setdefault(entry.stat(follow_symlinks=False).st_size, []).append(entry.path)
        except (NotADirectoryError, FileNotFoundError, PermissionError):
            continue
    return by_size


def _without_base_path(folder: Path) -> dict[str, bytes]:
    """Return what a push stores instead of those files of the folder that have the base's path in them."""
    try:
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        document = json.loads(files[CONFIG_NAME].read_bytes())
        return remove_base_path(files, str(document.get("base_model_name_or_path") or ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, AdapterFormatError):
        return {}
