"""Base models, how they came from one another, and how well they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BaseModel:
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
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a message calls it: its first name, and the beginning of its digest."""
        return f"{self.names[0] if self.names else 'a base'} (sha256:{self.digest[:12]})"


#: How one base comes from another.
BASE_RELATIONS = ("cast_of", "quantized_from", "renamed_from", "finetuned_from")


@dataclass(frozen=True)
class BaseEdge:
    """``child`` came from ``parent``: ``kind`` is cast_of, quantized_from, renamed_from or finetuned_from.

    ``detail`` says how, e.g. ``{"bits": 4}``; ``verified`` is whether the two contents prove it.
    """

    child: str
    parent: str
    kind: str
    detail: Mapping[str, Any]
    verified: bool
    author: str = ""


@dataclass(frozen=True)
class Verdict:
    """How well a base fits an adapter. ``kind`` is one of :data:`VERDICTS`; ``reason`` says why, in words."""

    kind: str
    reason: str

    def __lt__(self, other: Verdict) -> bool:
        """Whether this one is weaker."""
        return VERDICTS.index(self.kind) > VERDICTS.index(other.kind)


#: Strongest first. Only the first two say that the adapter meets the weights that it was trained on.
VERDICTS = ("exact", "target-exact", "verified-derived", "declared-derived", "struct-only", "mismatch")


@dataclass(frozen=True)
class BaseMatch:
    """A known base, and how well it fits an adapter."""

    base: BaseModel
    verdict: Verdict


@dataclass(frozen=True)
class BaseAdded:
    """A base that is known now: ``created`` is False if this content was known before."""

    base: BaseModel
    created: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BaseDetails:
    """All that is known of a base; ``versions`` counts the versions that were trained on it.

    ``files`` has the sha256 of each shard, where headers alone are known of it.
    """

    base: BaseModel
    edges: tuple[BaseEdge, ...]
    versions: int
    files: Mapping[str, str] = field(default_factory=dict)
