"""Bars for what takes more than a second: as HTML in a notebook, else on stderr; and methods that draw them unasked.

A method of the library that is given no ``progress`` draws bars in a notebook, or where ``connect`` was told to.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from importlib import import_module
from typing import Any, Protocol, TypeVar

from loreg.entities import Progress

_DELAY = 1.0  # seconds before a bar appears
_INTERVAL = 0.1  # seconds between two pictures of a bar in a notebook

C = TypeVar("C")


class Bars(Protocol):
    """Bars that are called as ``progress(what, done, total)``, one bar for each ``what``."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw how far ``what`` is."""

    def stop(self) -> None:
        """Take the bars away."""


class TerminalBars:
    """Bars on stderr, drawn by rich once a second has passed."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._display: Any = None
        self._steps: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw how far ``what`` is."""
        if self._display is None:
            if time.monotonic() - self._begin < _DELAY:
                return
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._display = RichProgress(console=Console(stderr=True), transient=True)
            self._display.start()
        if what not in self._steps:
            self._steps[what] = self._display.add_task(what, total=total)
        self._display.update(self._steps[what], completed=done, total=total)

    def stop(self) -> None:
        """Take the bars away."""
        if self._display is not None:
            self._display.stop()


class NotebookBars:
    """Bars below a cell, of HTML alone: every front end shows them, and none needs a widget."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._drawn = 0.0
        self._handle: Any = None
        self._steps: dict[str, tuple[int, int]] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draw how far ``what`` is."""
        self._steps[what] = (done, total)
        now = time.monotonic()
        if now - self._begin < _DELAY or (now - self._drawn < _INTERVAL and done < total):
            return
        self._drawn = now
        self._show("".join(_bar(name, *step) for name, step in list(self._steps.items())))

    def stop(self) -> None:
        """Take the bars away."""
        if self._handle is not None:
            self._show("")

    def _show(self, html: str) -> None:
        """Show the HTML in the one place that belongs to these bars."""
        notebook: Any = import_module("IPython.display")
        if self._handle is None:
            self._handle = notebook.display(notebook.HTML(html), display_id=True)
        else:
            self._handle.update(notebook.HTML(html))


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


@contextlib.contextmanager
def drawn_bars() -> Iterator[Progress]:
    """Yield what draws bars where this process is looked at; they are gone in the end."""
    bars: Bars = NotebookBars() if is_notebook() else TerminalBars()
    try:
        yield bars
    finally:
        bars.stop()


def draws_progress(group: type[C]) -> type[C]:
    """Give every method of a class that takes ``progress`` bars of its own where its caller gives none.

    An object of the class draws them if its ``shows_progress`` is true.
    """
    for name, method in list(vars(group).items()):
        if "progress" in (getattr(method, "__kwdefaults__", None) or {}):
            setattr(group, name, _with_bars(method))
    return group


def _with_bars(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "progress" in kwargs or not self.shows_progress:
            return method(self, *args, **kwargs)
        with drawn_bars() as progress:
            return method(self, *args, progress=progress, **kwargs)

    return call


def _bar(what: str, done: int, total: int) -> str:
    share = f" {100 * done // total} %" if total > 0 else ""
    value = f" value='{done}' max='{total}'" if total > 0 else ""  # without a value it only shows that it goes on
    return f"<div><progress{value} style='width:20em;vertical-align:middle'></progress> {escape(what)}{share}</div>"
