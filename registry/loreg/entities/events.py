"""Events as those who follow them get them."""

from __future__ import annotations

from loreg.entities.access import Event
from loreg.value import Value


class FollowedEvent(Value, frozen=True):
    """An event, and the ``position`` after which another follower goes on.

    Nothing is lost from there on; of several events that were committed at once some may come again.
    """

    event: Event
    position: str
