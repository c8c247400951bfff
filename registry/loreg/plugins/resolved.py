"""Remember which version a name meant last, on disk, for when the registry does not answer."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from loreg.file_modes import make_folder, write_file
from loreg.value import Value

_NAMES = "names"
_RECORD = re.compile(r"([0-9a-f]{64}) (\S+)")


class Resolved(Value, frozen=True):
    """A version: its whole ``digest``, and the pinned ref that it is served under."""

    digest: str
    name: str


def remember(served: Path, request: str, version: Resolved) -> None:
    """Record below the folder ``served`` that ``request`` means the version, atomically."""
    path = _record_path(served, request)
    if recall(served, request) == version:
        return
    make_folder(path.parent)
    write_file(path, f"{version.digest} {version.name}".encode())


def recall(served: Path, request: str) -> Resolved | None:
    """Return the version recorded for ``request``; None if there is none that can be read."""
    return _read(_record_path(served, request))


def forget(served: Path, request: str) -> None:
    """Remove what is recorded for ``request``: the registry has said that it means nothing that may be served."""
    _record_path(served, request).unlink(missing_ok=True)


def forget_missing(served: Path) -> None:
    """Remove the records of versions that have no folder below ``served`` any more."""
    for path in (served / _NAMES).iterdir():
        record = _read(path)
        if record is None or not (served / record.digest).exists():
            path.unlink(missing_ok=True)


def _read(path: Path) -> Resolved | None:
    try:
        record = _RECORD.fullmatch(path.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return Resolved(*record.groups()) if record else None


def _record_path(served: Path, request: str) -> Path:
    return served / _NAMES / hashlib.sha256(request.encode()).hexdigest()
