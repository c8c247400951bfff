"""Import what draws, and write pictures to files: matplotlib is an extra, and formats are few."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from loreg.errors import MissingExtraError, UsageError, explain_os_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".pdf", ".svg")


def import_figures() -> ModuleType:
    """Return the module that draws. Raises MissingExtraError without matplotlib."""
    try:
        return import_module("loreg.entities.display.figures")
    except ImportError as error:
        raise MissingExtraError(
            "a picture needs matplotlib, which is not installed", hint="pip install 'loreg[plot]'"
        ) from error


def refuse_picture(path: Path | str | None) -> None:
    """Raise UsageError for a picture that could not be written, MissingExtraError for one that could not be drawn.

    A command asks before it computes what is to be drawn; None, for no picture, is fine.
    """
    if path is None:
        return
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path} cannot be drawn: expected .png, .pdf or .svg", hint=f"--plot {path.stem or 'it'}.png")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path} cannot be drawn: there is no folder {path.parent}", hint=f"--plot {path.name}")
    import_figures()


def save_picture(figure: Figure, path: Path | str) -> None:
    """Write a figure to a file, in the format of its suffix. Raises NotAllowedError, UnavailableError."""
    with explain_os_errors(path, "choose another file for --plot"):
        figure.savefig(path, dpi=150)
