"""Workers and who drives them have the same loreg."""

from __future__ import annotations

from loreg.errors import ConflictError
from loreg.version import VERSION


def refuse_other_version(version: str) -> None:
    """Raise ConflictError unless this worker has that version of loreg."""
    if version != VERSION:
        raise ConflictError(
            f"this worker has loreg {VERSION}, the command is of loreg {version}",
            hint=f"pip install loreg=={version} on every node",
        )
