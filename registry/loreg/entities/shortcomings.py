"""What is wrong with versions, or missing of them: counted, and listed one by one."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from loreg.value import Value


class MissingKind(StrEnum):
    """What a version may lack that others want to know of it."""

    CARD = "card"
    LICENSE = "license"
    TASK = "task"
    METRIC = "metric"
    BASE = "base"


class MissingCount(Value, frozen=True):
    """How many versions of a namespace lack one kind of thing."""

    kind: MissingKind
    namespace: str
    versions: int


class MissingCounts(Value, frozen=True):
    """What the newest ``versions`` lack that are not yanked; ``is_capped`` if there are more than these."""

    versions: int
    is_capped: bool
    counts: tuple[MissingCount, ...]


class FlaggedVersion(Value, frozen=True):
    """A version that has a finding, with its ``message``, or that lacks something, without."""

    ref: str
    author: str
    created_at: datetime
    message: str = ""
