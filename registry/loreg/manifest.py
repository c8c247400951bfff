"""The manifest: canonical JSON that names every file of a version by digest. Its sha256 is the version's digest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loreg.errors import IntegrityError

SCHEMA = "loreg.manifest/1"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """One file of a version: ``path`` is relative with forward slashes, ``sha256`` is hex, ``size`` is bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The files of one version, in the order of their paths."""

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the canonical bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785 for these types): sorted keys, no spaces, UTF-8, files by path."""
        files = [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in sorted(self.files, key=lambda f: f.path)]
        document = {"files": files, "schema": SCHEMA}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refuse_wrong_files(manifest: Manifest) -> None:
    """Raise IntegrityError for a path that is there twice, or a digest or size that is none."""
    paths = [file.path for file in manifest.files]
    if len(set(paths)) != len(paths):
        raise IntegrityError("a manifest names a file twice", hint="push the folder again")
    for file in manifest.files:
        if not is_digest(file.sha256) or file.size < 0:
            raise IntegrityError(f"{file.sha256[:70]!r} is no sha256, or {file.size} no size", hint="push again")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 in hex."""
    return _DIGEST.fullmatch(text) is not None


def inside(root: Path, path: str) -> Path:
    """Where the file ``path`` of a manifest lies below ``root``. Raises IntegrityError if it would lie outside."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not pure.parts:
        raise IntegrityError(f"a version holds the file {path!r}, which would leave its folder", hint="do not pull it")
    return root.joinpath(*pure.parts)
