"""What becomes of adapters when their base is upgraded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from loreg.entities.bases import BaseModel, BaseUpgrade
from loreg.entities.queries import Page
from loreg.entities.versions import Version
from loreg.value import Value


class UpgradeVerdict(StrEnum):
    """What is to be done with an adapter of the old base, the best first."""

    #: Every tensor that it touches is the same in the new base.
    EXACT = "exact"
    #: It can be copied: what it touches has changed, by less than the adapter itself.
    COPY = "copy"
    #: A tensor is gone or has another shape, the change is as large as the adapter, or has the adapter in it.
    RETRAIN = "retrain"
    #: Not everything could be compared.
    UNKNOWN = "unknown"

    @property
    def in_words(self) -> str:
        """What people read of it."""
        return _IN_WORDS[self]


_IN_WORDS = {
    UpgradeVerdict.EXACT: "moves exactly",
    UpgradeVerdict.COPY: "copy, expect loss",
    UpgradeVerdict.RETRAIN: "train again",
    UpgradeVerdict.UNKNOWN: "not known",
}


class ModuleUpgrade(Value, frozen=True):
    """The change of one module's weight beside the delta on it, as Frobenius norms.

    ``delta`` is ‖Δ‖, ``weight`` ‖W‖ of the old base, ``change`` ‖W′ − W‖; ``read`` is the part of the change that acts
    on what the adapter reads (the row space of Δ), ``written`` the part in what it writes (the column space), and
    ``both`` in both. ``overlap`` is how much of Δ the change has in it: 1 where the upgrade took the adapter in.
    """

    module: str
    delta: float
    weight: float
    change: float
    read: float
    written: float
    both: float
    overlap: float


class ProbeLoss(Value, frozen=True):
    """Mean negative log-likelihood of a token of a task, in nats: of both bases, without the adapter and with it.

    ``before`` is that of the old base with the adapter, ``after`` that of the new one.
    """

    task: str
    tokens: int
    old_base: float
    before: float
    new_base: float
    after: float

    @property
    def gain_kept(self) -> float | None:
        """The gain over the new base alone by the gain over the old one; None where it gained nothing there."""
        gain = self.old_base - self.before
        return (self.new_base - self.after) / gain if gain > 0 else None


class AdapterUpgrade(Value, frozen=True):
    """What the upgrade means for one version; ``modules`` are those whose weight changed, the most changed first.

    ``tensors`` counts what it touches, ``changed`` those of them that are not the same. ``read`` is the change that it
    reads by the norm of its delta, over all of its modules: the figure of the verdict. ``written`` is the same of what
    it writes; ``change`` is ‖W′ − W‖/‖W‖ of what it touches; ``overlap`` is that of :class:`ModuleUpgrade`. They are
    None where nothing changed, or no weights were compared. ``moved_to`` is the ref of its version on the new base.
    """

    version: Version
    verdict: UpgradeVerdict
    reason: str
    tensors: int
    changed: int
    read: float | None = None
    written: float | None = None
    change: float | None = None
    overlap: float | None = None
    modules: tuple[ModuleUpgrade, ...] = ()
    losses: tuple[ProbeLoss, ...] = ()
    moved_to: str = ""


class NewVerdict(Value, frozen=True):
    """The verdict on the version ``ref`` with that ``digest``, to be recorded; else as :class:`AdapterUpgrade`."""

    ref: str
    digest: str
    verdict: UpgradeVerdict
    reason: str
    tensors: int
    changed: int
    read: float | None
    written: float | None
    change: float | None
    overlap: float | None
    losses: tuple[ProbeLoss, ...]


class NewUpgrade(Value, frozen=True):
    """Verdicts on versions of the base ``old`` for the base ``new``, both by digest, to be recorded.

    The other figures are those of :class:`UpgradeReport`.
    """

    old: str
    new: str
    tensors: int
    changed: int
    change: float | None
    verdicts: tuple[NewVerdict, ...]


class RecordedVerdict(NewVerdict, frozen=True):
    """A verdict that ``author`` had recorded; ``moved_to`` is the ref of the version's weights on the new base."""

    moved_to: str
    author: str
    at: datetime


class RecordedVerdicts(Page[RecordedVerdict], frozen=True):
    """A page of the verdicts that were recorded of an upgrade; ``counts`` has how many there are of each, in all."""

    items: tuple[RecordedVerdict, ...]
    cursor: str | None
    upgrade: BaseUpgrade
    counts: Mapping[UpgradeVerdict, int]


class UnreadableVersion(Value, frozen=True):
    """A version, or a part of the selection, that nothing can be said of, or that could not be moved; and why."""

    ref: str
    reason: str


class UpgradeReport(Value, frozen=True):
    """What an upgrade from ``old`` to ``new`` means for the adapters, those that move exactly first.

    Of the ``tensors`` of the old base ``changed`` are not the same; ``change`` is ‖W′ − W‖/‖W‖ of these, None where no
    weights were compared. ``others`` are selected versions of another base, or of one that is not known. ``recorded``
    counts the adapters whose verdict the registry keeps.
    """

    old: BaseModel
    new: BaseModel
    tensors: int
    changed: int
    change: float | None
    adapters: tuple[AdapterUpgrade, ...]
    unreadable: tuple[UnreadableVersion, ...] = ()
    others: tuple[UnreadableVersion, ...] = ()
    notes: tuple[str, ...] = ()
    recorded: int = 0
