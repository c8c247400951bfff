"""What was hashed once need not be hashed again: digests of tensors by a file's path and what tells of its change."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loreg.file_modes import make_folder, write_file

Stamp = tuple[str, int, int, int, int]


def file_stamp(file: Path) -> Stamp:
    """What tells one state of a file from another: path, inode, bytes, and the times of its content and of any change.

    The last cannot be set: a copy that keeps size and time of the file that it replaces (``cp -p``, ``rsync -t``) has
    another one.
    """
    status = file.stat()
    return str(file.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def recall(folder: Path | None, file: Path) -> dict[str, dict[str, Any]] | None:
    """The tensor digests of the file's tensors by name, if it has not changed since they were remembered."""
    if folder is None:
        return None
    try:
        document = json.loads(_entry(folder, file).read_bytes())
        return dict(document["tensors"]) if document["stamp"] == list(file_stamp(file)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path | None, file: Path, tensor_digests: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep the tensor digests of the file's tensors; a place that cannot be written is no error."""
    if folder is None:
        return
    with contextlib.suppress(OSError):
        entry = _entry(folder, file)
        make_folder(entry.parent)
        write_file(entry, json.dumps({"stamp": file_stamp(file), "tensors": tensor_digests}).encode())


def _entry(folder: Path, file: Path) -> Path:
    return folder / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()}.json"
