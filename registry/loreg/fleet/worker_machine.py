"""What the machine of a worker must have before it begins: the loreg of who drives, and the files at the same path."""

from __future__ import annotations

import socket
from pathlib import Path

from loreg.errors import ConflictError, NotFoundError
from loreg.version import VERSION


def refuse_other_version(version: str) -> None:
    """Raise ConflictError unless this worker has that version of loreg."""
    if version != VERSION:
        raise ConflictError(
            f"this worker has loreg {VERSION}, the command is of loreg {version}",
            hint=f"pip install loreg=={version} on every node",
        )


def require_shared(path: Path, option: str) -> None:
    """Raise NotFoundError unless this machine has a path that the command was given by ``option``."""
    if not path.exists():
        raise NotFoundError(
            f"{socket.gethostname()} has no {path}",
            hint=f"{option} in a folder that every machine of the cluster has at the same path",
            outside="a machine of the cluster has no such folder",
        )
