"""Ask a server in haste: for callers that would rather do without an answer than wait for one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_limit: ContextVar[float | None] = ContextVar("_limit", default=None)


@contextlib.contextmanager
def in_haste(seconds: float) -> Iterator[None]:
    """Within the block a request waits for at most so many ``seconds``, and is sent again once, without a pause.

    Once, because a connection that was kept open may have been closed at that moment: that says nothing of the server.
    Holds in this thread alone.
    """
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def time_limit() -> float | None:
    """Return the seconds of the block that is running; None outside one."""
    return _limit.get()
