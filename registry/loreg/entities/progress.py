"""How far a long call is."""

from __future__ import annotations

from collections.abc import Callable

#: Called as ``progress(what, done, total)`` with bytes or modules; lower rooms call it, the CLI draws it.
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Draw nothing."""
