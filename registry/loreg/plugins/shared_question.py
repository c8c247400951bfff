"""Put a question for many callers at once: one at a time, and nobody gets an answer older than his call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedQuestion(Generic[T]):
    """A question whose answer changes, asked from one event loop. ``put`` raises nothing.

    While one is under way, all callers wait together for the next: the answer to the first may be older than they are.
    """

    def __init__(self, put: Callable[[], Awaitable[T]]) -> None:
        self._put = put
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    def ask(self) -> asyncio.Task[T]:
        """Return the task of a question that is not put before this call. It is shared: do not cancel it."""
        if self._next is None:
            self._next = asyncio.create_task(self._put_after(self._running))
        return self._next

    async def _put_after(self, previous: asyncio.Task[T] | None) -> T:
        if previous is not None:
            await asyncio.wait([previous])
        self._running, self._next = self._next, None  # who calls from now on waits for another
        return await self._put()
