"""What folders and servers follow: the versions that a selection means, and what a follower has of them."""

from __future__ import annotations

from loreg.entities.versions import Version
from loreg.value import Value


class SelectedVersion(Value, frozen=True):
    """A version that a selection means, under the ``name`` that it is to have.

    ``selector`` says which of the selection's parts means it. ``position`` counts the changes of what that part means
    for this adapter, and only ever grows: an answer with a lower one is older.
    """

    name: str
    version: Version
    selector: str
    position: int


class MissingVersion(Value, frozen=True):
    """A part of a selection that means no version now: what was selected, and why there is none."""

    selector: str
    reason: str


class Selection(Value, frozen=True):
    """What a selection means now, by name, in the registry with the id ``registry``."""

    registry: str
    versions: tuple[SelectedVersion, ...]
    missing: tuple[MissingVersion, ...] = ()
