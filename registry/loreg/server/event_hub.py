"""Tell everybody who listens of new events: the catalog is read once for all of them, when it tells of a change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from loreg.catalog.event_feed import FeedEvent, FeedPosition, end_of_feed, list_public, read_feed
from loreg.entities import Access
from loreg.errors import LoregError
from loreg.server.connections import LIMITS
from loreg.server.state import Service

_BATCH = 500
_LOOK = 0.5  # seconds that a thread listens for before it looks whether the server ends
_RECHECK = 5.0  # seconds after which the catalog is read though it told of nothing
_MAX_WAITING = 50  # batches that a listener may be behind; then its connection ends, and it reads the catalog anew
_ACCESS_ACTIONS = ("token create", "token revoke", "namespace")
_log = logging.getLogger("loreg.events")


@dataclass(frozen=True)
class Batch:
    """Events that were committed, the position after them, and the namespaces that everybody could read then.

    ``changes_access`` says that a token or a namespace is among them.
    """

    events: tuple[FeedEvent, ...]
    position: FeedPosition
    public: frozenset[str]

    @property
    def changes_access(self) -> bool:
        """Whether what a caller may do has changed."""
        return any(event.event.action in _ACCESS_ACTIONS for event in self.events)


@dataclass(eq=False)
class Listener:
    """One connection that is told of new events, of the caller ``caller``."""

    caller: str
    start: FeedPosition
    _batches: deque[Batch] = field(default_factory=deque)
    _is_told: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: bool = False

    def tell(self, batch: Batch) -> None:
        """Add a batch for this listener, or end it if it is too far behind."""
        self._batches.append(batch)
        if len(self._batches) > _MAX_WAITING:
            self.has_ended = True
        self._is_told.set()

    def end(self) -> None:
        """Let the connection end."""
        self.has_ended = True
        self._is_told.set()

    async def next_batch(self, seconds: float) -> Batch | None:
        """Return the next batch; None if none comes within ``seconds``, or if the listener has ended."""
        if not self._batches and not self.has_ended:
            self._is_told.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_told.wait(), seconds)
        return self._batches.popleft() if self._batches and not self.has_ended else None


class EventHub:
    """Those who listen to the events of one server process. The catalog is read only while there are some."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._listeners: dict[Listener, None] = {}
        self._position: FeedPosition | None = None
        self._is_wanted = asyncio.Event()
        self._is_failing = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen to the catalog as long as the context lasts; then every connection ends."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.end_all()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextlib.asynccontextmanager
    async def listening(self, access: Access, host: str) -> AsyncIterator[Listener]:
        """Yield a listener for a caller who reaches the server from ``host``.

        Where there are too many, the oldest of the caller with the most is ended: half of all connections are for
        requests.
        """
        if len(self._listeners) >= LIMITS.connections // 2:
            self._end_one()
        if self._position is None:
            end = await self._service.catalog.run_async(self._read_end)
            self._position = self._position or end  # another may have read it meanwhile, and was told what came since
        caller = f"token {access.token_id}" if access.token_id is not None else host
        listener = Listener(caller, self._position)
        self._listeners[listener] = None
        self._is_wanted.set()
        try:
            yield listener
        finally:
            self._listeners.pop(listener, None)

    def end_all(self) -> None:
        """End every connection, because the server ends."""
        for listener in self._listeners:
            listener.end()

    def _end_one(self) -> None:
        callers = [listener.caller for listener in self._listeners]
        busiest = max(callers, key=callers.count)
        next(listener for listener in self._listeners if listener.caller == busiest).end()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        listener, last_read = self._service.catalog.listen_for_events(), 0.0
        with ThreadPoolExecutor(1, "loreg-events") as thread, contextlib.closing(listener):
            while True:
                await self._is_wanted.wait()
                is_changed = await loop.run_in_executor(thread, listener.wait, _LOOK, _LOOK)
                if not self._listeners:
                    self._is_wanted.clear()
                    self._position = None
                    listener.close()  # what nobody reads, PostgreSQL would keep
                    continue
                if is_changed or loop.time() - last_read > _RECHECK:
                    last_read = loop.time()
                    await self._tell()

    async def _tell(self) -> None:
        try:
            while (batch := await self._service.catalog.run_async(self._read_new)).events:
                self._position = batch.position
                for listener in tuple(self._listeners):
                    listener.tell(batch)
        except LoregError as error:
            if not self._is_failing:
                _log.warning("no events can be read, which is tried again twice a second: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False

    def _read_end(self) -> FeedPosition:
        with self._service.catalog.read() as tx:
            return end_of_feed(tx)

    def _read_new(self) -> Batch:
        return self.read_after(self._position or FeedPosition(0))

    def read_after(self, position: FeedPosition) -> Batch:
        """Return some of the events after the position; none if there are none."""
        with self._service.catalog.read() as tx:
            events, after = read_feed(tx, position, _BATCH)
            return Batch(events, after, list_public(tx) if events else frozenset())
