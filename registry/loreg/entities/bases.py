"""Base models, how they came from one another, and how well they fit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from loreg.entities.displayed import Displayed
from loreg.value import Value


class BaseModel(Displayed, frozen=True):
    """A base model: ``digest`` is the hex digest over its tensors, ``names`` what people call it.

    ``struct`` is a digest over names and shapes alone. If not ``complete``, only headers are known of it, and
    ``digest`` says nothing of its weights. ``license`` is what its card says, empty if that is not known;
    ``config`` has what its ``config.json`` says of its class and of tied weights, empty where there is none.
    """

    digest: str
    names: tuple[str, ...] = ()
    tensors: int = 0
    parameters: int = 0
    struct: str = ""
    complete: bool = True
    license: str = ""
    config: Mapping[str, object] = msgspec.field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a message calls it: its first name, and the beginning of its digest."""
        return f"{self.names[0] if self.names else 'a base'} (sha256:{self.digest[:12]})"


class BaseRelation(StrEnum):
    """How one base comes from another."""

    CAST_OF = "cast_of"
    QUANTIZED_FROM = "quantized_from"
    RENAMED_FROM = "renamed_from"
    FINETUNED_FROM = "finetuned_from"


class BaseEdge(Value, frozen=True):
    """``child`` came from ``parent``, as ``kind`` says.

    ``detail`` says how, e.g. ``{"bits": 4}``; ``verified`` is whether the two contents prove it.
    """

    child: str
    parent: str
    kind: BaseRelation
    detail: Mapping[str, object]
    verified: bool
    author: str = ""


class RelatedBase(Value, frozen=True):
    """A base of the same family as another, and how many adapters and versions that may be read are on it."""

    base: BaseModel
    adapters: int
    versions: int


class VerdictKind(StrEnum):
    """How well a base fits, strongest first; only the first two say that the weights are those of the training."""

    EXACT = "exact"
    TARGET_EXACT = "target-exact"
    VERIFIED_DERIVED = "verified-derived"
    DECLARED_DERIVED = "declared-derived"
    STRUCT_ONLY = "struct-only"
    MISMATCH = "mismatch"


class Verdict(Value, frozen=True):
    """How well a base fits an adapter; ``reason`` says why, in words."""

    kind: VerdictKind
    reason: str

    def __lt__(self, other: Verdict) -> bool:
        """Whether this one is weaker."""
        kinds = tuple(VerdictKind)
        return kinds.index(self.kind) > kinds.index(other.kind)


class BaseMatch(Value, frozen=True):
    """A known base, and how well it fits an adapter."""

    base: BaseModel
    verdict: Verdict


class AttachmentOutcome(StrEnum):
    """What became of a version when its base was looked for, or taken back."""

    ATTACHED = "attached"
    #: It fits, and declares another base, or none: it stays as it is.
    LEFT = "left"
    MISMATCH = "mismatch"
    DETACHED = "detached"
    #: Its base is known, and was not attached.
    KEPT = "kept"
    #: A policy guards an alias that means it.
    REFUSED = "refused"


class BaseAttachment(Value, frozen=True):
    """What became of the version ``ref``, which calls its base ``declared``; ``reason`` says why, in words."""

    ref: str
    declared: str
    outcome: AttachmentOutcome
    reason: str


class BaseAdded(Value, frozen=True):
    """A base that is known now: ``created`` is False if this content was known before.

    ``attachments`` are the versions that declare this base, and those of other names that it fits.
    """

    base: BaseModel
    created: bool
    notes: tuple[str, ...]
    attachments: tuple[BaseAttachment, ...] = ()


class BaseUpgrade(Value, frozen=True):
    """What was recorded of the upgrade from one base to another, and who last measured it, when.

    Of the ``tensors`` of the old base ``changed`` are not the same; ``change`` is ‖W′ − W‖/‖W‖ of these, None where no
    weights were compared.
    """

    old: BaseModel
    new: BaseModel
    tensors: int
    changed: int
    change: float | None
    author: str
    at: datetime


class BaseDetails(Value, frozen=True):
    """All that is known of a base; ``versions`` counts the versions that were trained on it.

    ``files`` has the sha256 of each shard, where headers alone are known of it. ``upgrades`` are those that were
    recorded, from this base or to it, the newest first.
    """

    base: BaseModel
    edges: tuple[BaseEdge, ...]
    versions: int
    files: Mapping[str, str] = msgspec.field(default_factory=dict)
    upgrades: tuple[BaseUpgrade, ...] = ()
