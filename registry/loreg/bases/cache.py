"""Remember the tensor digests of a file that has not changed, so that it is not hashed again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from loreg.bases.tensor_digest import TensorDigest
from loreg.file_modes import make_folder, write_file

Stamp = tuple[str, int, int, int, int]


def file_stamp(file: Path) -> Stamp:
    """Return what tells one state of a file from another: path, inode, bytes, mtime and ctime (nanoseconds).

    No program can set the ctime: a copy that keeps size and mtime of the file that it replaces (``cp -p``,
    ``rsync -t``) has another one.
    """
    status = file.stat()
    return str(file.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def recall(folder: Path | None, file: Path) -> dict[str, TensorDigest] | None:
    """Return the digests of the file's tensors by name; None unless they are remembered and the file is unchanged."""
    if folder is None:
        return None
    try:
        document = json.loads(_entry_path(folder, file).read_bytes())
        return dict(document["tensors"]) if document["stamp"] == list(file_stamp(file)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path | None, file: Path, tensor_digests: Mapping[str, TensorDigest]) -> None:
    """Store the digests of the file's tensors; a folder that cannot be written is no error."""
    if folder is None:
        return
    with contextlib.suppress(OSError):
        entry = _entry_path(folder, file)
        make_folder(entry.parent)
        write_file(entry, json.dumps({"stamp": file_stamp(file), "tensors": tensor_digests}).encode())


def _entry_path(folder: Path, file: Path) -> Path:
    return folder / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()}.json"
