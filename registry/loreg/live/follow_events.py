"""Follow the events of a registry as they are committed, through every outage."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence

from loreg.backend import Backend
from loreg.entities import FollowedEvent
from loreg.errors import LoregError, UnavailableError
from loreg.refs import AdapterPattern

_QUIET = 1.0  # seconds without an event after which the caller is asked whether to go on
_FIRST_PAUSE = 0.5  # seconds; each further pause is twice as long
_MAX_PAUSE = 30.0  # seconds

#: Gets the error of a registry that does not answer, and after how many seconds it is asked again.
OutageCallback = Callable[[LoregError, float], None]


def follow_events(
    backend: Backend,
    patterns: Sequence[AdapterPattern],
    position: str,
    *,
    on_outage: OutageCallback,
    is_wanted: Callable[[], bool],
) -> Iterator[FollowedEvent]:
    """Yield the events of the adapters that match one of ``patterns``, or of all, until ``is_wanted`` says no.

    It is asked after every event, and every 20 seconds at least. A registry that stops answering is asked again after
    pauses that grow; nothing is lost meanwhile. Raises UnavailableError if it does not answer at the beginning.
    """
    failures, has_begun = 0, False
    with contextlib.closing(backend.stream_events(patterns, position, pulls=True)) as stream:
        while is_wanted():
            before = stream.position
            try:
                events = stream.read(_QUIET if has_begun else 0)
            except UnavailableError as error:
                if not has_begun:
                    raise
                pause = min(_FIRST_PAUSE * 2**failures, _MAX_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
                failures += 1
                on_outage(error, pause)
                threading.Event().wait(pause)
                continue
            failures, has_begun = 0, True
            for number, event in enumerate(events, 1):
                yield FollowedEvent(event, stream.position if number == len(events) else before)
                if not is_wanted():
                    return
