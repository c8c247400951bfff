"""Files of an adapter that travel to a worker with what it is to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loreg.errors import explain_os_errors

Files = Mapping[str, bytes]  # by name


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write_files(folder: Path, files: Files) -> None:
    """Write files into a folder that exists. Raises LoregError if there is no room for them."""
    with explain_os_errors(folder, "free some space there, or set TMPDIR to a folder with space"):
        for name, content in files.items():
            (folder / name).write_bytes(content)
