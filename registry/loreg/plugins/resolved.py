"""Remember which version a name meant last, on disk, for when the registry does not answer."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from loreg.file_modes import make_folder, write_file

_DIGEST = re.compile(r"[0-9a-f]{64}")


def remember(served: Path, request: str, digest: str) -> None:
    """Record below the folder ``served`` that ``request`` means the version ``digest``, atomically."""
    path = _record_path(served, request)
    if recall(served, request) == digest:
        return
    make_folder(path.parent)
    write_file(path, digest.encode())


def recall(served: Path, request: str) -> str | None:
    """Return the digest recorded for ``request``; None if there is none that can be read."""
    try:
        digest = _record_path(served, request).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return digest if _DIGEST.fullmatch(digest) else None


def _record_path(served: Path, request: str) -> Path:
    return served / "names" / hashlib.sha256(request.encode()).hexdigest()
