"""What a client and a server send each other beside the records themselves: the bodies of requests, and two answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from loreg.entities import BaseModel, Commit, LineageEdge, NewUpgrade, Sketch, Token, Version, Webhook


@dataclass(frozen=True)
class BlobSpec:
    """A blob that somebody would send: its sha256 in hex, its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class UploadTicket:
    """Where to PUT one blob, with which headers; ``id`` is named in the commit."""

    id: str
    sha256: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class CommitRequest:
    """A version, the ids of the uploads by which its blobs came, and those that come along, in base64."""

    commit: Commit
    uploads: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportRequest:
    """The server that an export is for: a profile that loreg comes with, e.g. ``vllm:max_lora_rank=64``."""

    profile: str = ""


@dataclass(frozen=True)
class MetricDirection:
    """Which direction of a metric is better, and what it is measured in."""

    higher_is_better: bool
    unit: str = ""


@dataclass(frozen=True)
class BaseRequest:
    """A base, and the ids of the uploads by which its list of tensors came, or that list itself, in base64."""

    base: BaseModel
    uploads: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaseRelationRequest:
    """The base ``child`` came from ``parent``; both by name or digest."""

    child: str
    parent: str
    kind: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class UpgradeRequest:
    """Verdicts on versions of a base for its upgrade, to be recorded."""

    upgrade: NewUpgrade


@dataclass(frozen=True)
class AttachmentRequest:
    """Which base is attached or detached, by name or digest, and for which refs; for all that declare it if none."""

    base: str = ""
    refs: tuple[str, ...] = ()
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True)
class LineageResponse:
    """A version, and the merges that it descends from, or that descend from it, nearest first."""

    version: Version
    edges: tuple[LineageEdge, ...]


@dataclass(frozen=True)
class SketchResponse:
    """What is stored of a version's weights; null if nothing is."""

    sketch: Sketch | None


@dataclass(frozen=True)
class YankRequest:
    """Whether a version is hidden, and why."""

    yanked: bool
    reason: str = ""


@dataclass(frozen=True)
class AliasTarget:
    """The ref that an alias is to mean, and why, as its event says."""

    ref: str
    reason: str = ""


@dataclass(frozen=True)
class PromotionRequest:
    """A version that an alias is to mean, and on which metrics it goes back."""

    ref: str
    rollback_if: tuple[str, ...]


@dataclass(frozen=True)
class CanaryRequest:
    """A version that is to have a share, between 0 and 1, of an alias, and on which metrics that ends."""

    ref: str
    share: float
    rollback_if: tuple[str, ...] = ()


@dataclass(frozen=True)
class VisibilityRequest:
    """Whether everyone may read a namespace."""

    public: bool


@dataclass(frozen=True)
class TokenRequest:
    """A token: what it is called, ``ACTION:NAMESPACE`` scopes, and until when it holds."""

    name: str
    scopes: tuple[str, ...]
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Whoami:
    """Who asks: ``grants`` maps a namespace, or ``*`` for all, to read, write or admin.

    ``token_id`` and ``expires_at`` are those of the token that says so; None without a token, and for one without end.
    """

    author: str
    grants: Mapping[str, str]
    token_id: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class TokenCreated:
    """A token with its secret, which is shown this once."""

    token: Token
    secret: str


@dataclass(frozen=True)
class WebhookRequest:
    """A URL that is to be told of events: those of the actions, of adapters that match; all if empty."""

    url: str
    patterns: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class WebhookCreated:
    """A webhook with its secret, which is shown this once; empty if it has no new one."""

    webhook: Webhook
    secret: str


@dataclass(frozen=True)
class WebhookRotation:
    """Whether the older secret of a webhook goes, or a new one comes."""

    drop_old: bool = False


@dataclass(frozen=True)
class WebhookPing:
    """The id of the delivery by which a webhook is pinged."""

    delivery: int


@dataclass(frozen=True)
class JobRequest:
    """``kind`` is merge, rerank, bake, verify, repair or gc; ``request`` has the arguments of the verb of that name."""

    kind: str
    request: Mapping[str, object]
