"""What an import is going to do, and what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from loreg.entities.versions import Metric
from loreg.refs import AdapterName
from loreg.value import Value


class ImportOptions(Value, frozen=True):
    """How adapters are imported; what is left empty is read from what the trainer wrote.

    ``name`` is for a single adapter, ``namespace`` goes before every name. ``checkpoints`` is ``all``, or some of
    ``best``, ``last`` and steps, with commas. With ``mend`` names that only a wrapper, an adapter's name or ZeRO-3 put
    into a file are put right. ``base`` is the path of the model that all were trained on, or a name or digest that the
    registry knows.
    """

    name: str = ""
    namespace: str = ""
    tasks: Sequence[str] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    message: str = ""
    base: str | None = None
    checkpoints: str = "all"
    mend: bool = False


class ImportStatus(StrEnum):
    """What becomes of an adapter that an import looks at."""

    NEW = "new"
    PRESENT = "already there"
    MENDABLE = "needs --mend"
    REFUSED = "refused"


class PlannedVersion(Value, frozen=True):
    """What becomes of one saved state of an adapter.

    ``source`` is where it lies, ``number`` the version that it will be if nobody else pushes meanwhile, ``ref`` the
    version that has the same content already. ``reason`` says why it is refused, ``code`` which rule says so, ``mend``
    what is put right. ``has_new_card`` if a model card is written for it.
    """

    source: str
    adapter: AdapterName
    status: ImportStatus
    checkpoint: str = ""
    number: int | None = None
    ref: str = ""
    aliases: tuple[str, ...] = ()
    size: int = 0
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    message: str = ""
    has_new_card: bool = False
    mend: str = ""
    code: str = ""
    reason: str = ""
    hint: str = ""


class ImportPlan(Value, frozen=True):
    """What an import is going to do, in the order in which it is done for each adapter."""

    versions: tuple[PlannedVersion, ...]
    notes: tuple[str, ...] = ()

    def with_status(self, status: ImportStatus) -> tuple[PlannedVersion, ...]:
        """Return the versions of which this becomes."""
        return tuple(version for version in self.versions if version.status == status)


class ImportFailure(Value, frozen=True):
    """An adapter that was not imported, and why."""

    source: str
    message: str
    hint: str


class ImportReport(Value, frozen=True):
    """What an import did: the refs of new versions, of those that were there already, and what did not come in."""

    created: tuple[str, ...]
    present: tuple[str, ...]
    failures: tuple[ImportFailure, ...]
    notes: tuple[str, ...] = ()
    bytes_sent: int = 0
