"""The manifest: canonical JSON that names every file of a version by digest. Its sha256 is the version's digest."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from loreg.canonical_json import canonical_json
from loreg.errors import IntegrityError
from loreg.value import Value

SCHEMA = "loreg.manifest/1"
MAX_NAME_BYTES = 255  # bytes, not characters: what Linux's file systems take (NAME_MAX)
_DIGEST = re.compile("[0-9a-f]{64}")


class File(Value, frozen=True):
    """One file of a version: ``path`` is relative with forward slashes, ``sha256`` is hex, ``size`` is bytes."""

    path: str
    sha256: str
    size: int


class Manifest(Value, frozen=True):
    """The files of one version, in the order of their paths.

    >>> manifest = Manifest((File("b", "0" * 64, 3), File("a", "1" * 64, 4)))
    >>> manifest.size, manifest.to_bytes()[:20]
    (7, b'{"files":[{"path":"a')
    >>> manifest.digest == hashlib.sha256(manifest.to_bytes()).hexdigest()
    True
    """

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the canonical bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """The size of all files together, in bytes."""
        return sum(file.size for file in self.files)

    def to_bytes(self) -> bytes:
        """Encode as canonical JSON (RFC 8785 for these types): sorted keys, no spaces, UTF-8, files by path."""
        files = [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in sorted(self.files, key=lambda f: f.path)]
        document = {"files": files, "schema": SCHEMA}
        return canonical_json(document, ascii_only=False)


def validate_files(manifest: Manifest) -> None:
    """Raise IntegrityError if a path is there twice or is also a folder, or if a digest or a size is invalid."""
    paths = {file.path for file in manifest.files}
    if len(paths) != len(manifest.files):
        raise IntegrityError("a manifest names a file twice", hint="push the folder again")
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents} - {"."}
    if conflicts := paths & folders:
        raise IntegrityError(
            f"a manifest names {min(conflicts)!r} as a file and as a folder", hint="push the folder again"
        )
    for file in manifest.files:
        if not is_digest(file.sha256) or file.size < 0:
            raise IntegrityError(f"{file.sha256[:70]!r} is no sha256, or {file.size} no size", hint="push again")


def is_digest(text: str) -> bool:
    """Return whether ``text`` is a sha256 in lowercase hex."""
    return _DIGEST.fullmatch(text) is not None


def resolve_inside(root: Path, path: str) -> Path:
    """Return where the file ``path`` of a manifest lies below ``root``. Raises IntegrityError if that is outside."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or "\\" in path or not relative.parts:
        raise IntegrityError(f"a version holds the file {path!r}, which would leave its folder", hint="do not pull it")
    return root.joinpath(*relative.parts)


def hidden_sibling(path: Path, mark: str) -> Path:
    """Return a hidden path beside ``path``, for a file or folder that is to replace it: its name and ``mark``.

    A name that would be too long for the file system is cut, and a digest of it added, which keeps it unique.
    """
    name = path.name
    encoded = os.fsencode(name)
    if len(encoded) + len(mark) + 2 > MAX_NAME_BYTES:
        name = f"{encoded[:64].decode(errors='ignore')}.{hashlib.sha256(encoded).hexdigest()[:12]}"
    return path.with_name(f".{name}.{mark}")
