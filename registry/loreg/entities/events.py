"""Which events are asked for, and events as those who follow them get them."""

from __future__ import annotations

from datetime import datetime

from loreg.entities.access import Event
from loreg.refs import AdapterName
from loreg.value import Value


class EventFilter(Value, frozen=True):
    """Which events are asked for; every given condition must hold.

    They are of one ``adapter``, or of those of a ``namespace``, ``-`` for adapters that have none; one of ``actions``,
    if there are any; at ``since`` or later, and before ``until``. Without ``pulls`` they are those that change
    something.
    """

    adapter: AdapterName | None = None
    namespace: str = ""
    author: str = ""
    actions: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    pulls: bool = True


#: Every event.
ALL_EVENTS = EventFilter()


class FollowedEvent(Value, frozen=True):
    """An event, and the ``position`` after which another follower goes on.

    Nothing is lost from there on; of several events that were committed at once some may come again.
    """

    event: Event
    position: str
