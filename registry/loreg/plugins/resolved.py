"""Which version a name meant last, kept beside the versions that were served: for when the registry does not answer."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from loreg.file_modes import make_folder, write_file

_DIGEST = re.compile(r"[0-9a-f]{64}")


def remember(served: Path, asked: str, digest: str) -> None:
    """Write down that what was ``asked`` is the version ``digest``, at once or not at all."""
    file = _file(served, asked)
    if recall(served, asked) == digest:
        return
    make_folder(file.parent)
    write_file(file, digest.encode())


def recall(served: Path, asked: str) -> str | None:
    """The digest that was written down for what is ``asked``; None if there is none that can be read."""
    try:
        digest = _file(served, asked).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return digest if _DIGEST.fullmatch(digest) else None


def _file(served: Path, asked: str) -> Path:
    return served / "names" / hashlib.sha256(asked.encode()).hexdigest()
