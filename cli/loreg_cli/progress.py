"""Show a progress bar on stderr for what takes more than a second; none where stderr is no terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loreg.entities import Progress


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield the function to call with what is being done, how much of it is done, and how much there is."""
    from loreg.entities import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from loreg.workspace.progress_bars import TerminalBars

    bars = TerminalBars()
    try:
        yield bars
    finally:
        bars.stop()
