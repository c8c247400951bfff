"""Events as they are committed, read from the catalog when it tells of a change, and now and then beside that."""

from __future__ import annotations

import time
from collections.abc import Sequence

from loreg.catalog import Catalog
from loreg.catalog.event_feed import end_of_feed, list_public, parse_position, read_feed
from loreg.entities import Access, Event
from loreg.refs import AdapterPattern

_BATCH = 500
_RECHECK = 5.0  # seconds after which the catalog is asked though it told of nothing
_UNHEARD = 1.0  # seconds between two questions where the catalog cannot tell


class LocalEventStream:
    """The events that a caller with ``access`` may read, of the adapters that match one of ``patterns`` if any.

    Those of pulls are among them if ``pulls``.
    """

    def __init__(
        self, catalog: Catalog, access: Access, patterns: Sequence[AdapterPattern], position: str, *, pulls: bool
    ) -> None:
        self._catalog, self._access, self._patterns, self._pulls = catalog, access, patterns, pulls
        self._position = parse_position(position) if position else None
        self._listener = catalog.listen_for_events()
        self._is_listening = False

    @property
    def position(self) -> str:
        """Return the position after the events that were read last; empty before the first reading."""
        return str(self._position or "")

    def read(self, seconds: float) -> tuple[Event, ...]:
        """Return what was committed since the last call. See :class:`loreg.backend.EventStream`."""
        deadline = time.monotonic() + seconds
        if not self._is_listening:
            self._listener.wait(0, 0)
            self._is_listening = True
            return self._read_new()
        while not (events := self._read_new()) and (remaining := deadline - time.monotonic()) > 0:
            self._listener.wait(min(remaining, _RECHECK), min(remaining, _UNHEARD))
        return events

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        self._is_listening = False

    def _read_new(self) -> tuple[Event, ...]:
        with self._catalog.read() as tx:
            if self._position is None:
                self._position = end_of_feed(tx)
                return ()
            events, self._position = read_feed(tx, self._position, _BATCH)
            public = list_public(tx) if events else frozenset()
        wanted = (event for event in events if self._pulls or not event.is_pull)
        return tuple(event.event for event in wanted if event.is_for(self._access, public, self._patterns))
