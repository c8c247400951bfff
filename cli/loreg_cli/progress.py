"""Show a progress bar on stderr for what takes more than a second; none where stderr is no terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loreg.entities import Progress

_DELAY = 1.0  # seconds before a bar appears


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield the function to call with what is being done, how much of it is done, and how much there is."""
    from loreg.entities import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.stop()


class _Bars:
    """One bar for each step, drawn once a second has passed."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._display: Any = None
        self._tasks: dict[str, object] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._display is None:
            if time.monotonic() - self._begin < _DELAY:
                return
            from rich.console import Console
            from rich.progress import Progress

            self._display = Progress(console=Console(stderr=True), transient=True)
            self._display.start()
        if what not in self._tasks:
            self._tasks[what] = self._display.add_task(what, total=total)
        self._display.update(self._tasks[what], completed=done, total=total)

    def stop(self) -> None:
        if self._display is not None:
            self._display.stop()
