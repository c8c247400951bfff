"""An independent look at a folder that ``loreg sync`` writes: whatever is shown in it is whole, and what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def look_at_followed(root: Path) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with the folder, and what it shows: the digest by name, and what lies in its store."""
    names = dict(_links(root)) if root.is_dir() else {}
    sentences = []
    for name, folder in names.items():
        if not folder.is_dir():
            sentences.append(f"followed: {name} shows nothing")
        elif (digest := _digest(folder)) != folder.name:
            sentences.append(f"followed: {name} shows {folder.name[:12]}, and what lies there is {digest[:12]}")
    shown = {name: folder.name for name, folder in names.items()}
    stored = root / ".loreg" / "versions"
    return sentences, {**shown, "stored": sorted(path.name for path in stored.iterdir()) if stored.is_dir() else []}


def _links(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.rglob("*"):
        if path.is_symlink() and ".loreg" not in path.relative_to(root).parts and not path.name.startswith("."):
            yield path.relative_to(root).as_posix(), path.parent / path.readlink()


def _digest(folder: Path) -> str:
    """The digest of the version whose files these are, as docs/format.md says."""
    files = [
        {
            "path": path.relative_to(folder).as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in folder.rglob("*")
        if path.is_file()
    ]
    document = {"files": sorted(files, key=lambda file: str(file["path"])), "schema": "loreg.manifest/1"}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
