"""Import the plotting module, and explain what is missing or wrong for ``--plot``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from loreg.errors import MissingExtraError, UsageError, explain_os_errors


@contextlib.contextmanager
def open_plotting(path: Path) -> Iterator[ModuleType]:
    """Yield the module that draws, for drawing to ``path``. Raises MissingExtraError, UsageError, NotAllowedError."""
    try:
        from loreg.merging import plot
    except ImportError as error:
        raise MissingExtraError(
            "--plot needs matplotlib, which is not installed", hint="pip install 'loreg[plot]'"
        ) from error
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"{path} cannot be drawn: expected .png, .pdf or .svg", hint=f"--plot {path.stem}.png")
    with explain_os_errors(path, "choose another file for --plot"):
        yield plot
