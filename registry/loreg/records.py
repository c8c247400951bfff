"""Values that every room may name: what is in an adapter, what the catalog knows of a version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from loreg.manifest import File, Manifest
from loreg.refs import AdapterName

T = TypeVar("T")

#: Called as ``progress(what, done, total)`` with bytes or modules; lower rooms call it, the CLI draws it.
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Draw nothing."""


@dataclass(frozen=True)
class Access:
    """Who acts, and what on: ``grants`` maps a namespace, or ``*`` for all, to one of :data:`LEVELS`."""

    author: str
    grants: Mapping[str, str]

    def may(self, level: str, namespace: str) -> bool:
        """Whether that much is allowed there; ``namespace`` is empty for names that have none."""
        given = (self.grants.get(namespace), self.grants.get("*"))
        return any(one is not None and LEVELS.index(one) >= LEVELS.index(level) for one in given)

    def may_somewhere(self, level: str) -> bool:
        """Whether that much is allowed in any namespace."""
        return any(LEVELS.index(one) >= LEVELS.index(level) for one in self.grants.values())


#: Each allows what those before it do.
LEVELS = ("read", "write", "admin")


def everything(author: str) -> Access:
    """Whoever has the database and the store may do everything."""
    return Access(author, {"*": "admin"})


@dataclass(frozen=True)
class Token:
    """A token without its secret. ``grants`` as in :class:`Access`; ``author`` is who made it."""

    id: int
    name: str
    grants: Mapping[str, str]
    author: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class Namespace:
    """Adapters of a team; ``public`` ones are read without a token. Its name is empty for adapters without one."""

    name: str
    public: bool
    adapters: int


@dataclass(frozen=True)
class Upload:
    """A blob that was announced: ``id`` is known to who announced it alone.

    ``aside`` if somebody else is sending the same: then neither can take the other's place.
    """

    id: str
    sha256: str
    size: int
    aside: bool = False


@dataclass(frozen=True)
class Job:
    """Work for a worker: ``kind`` is merge, rerank or bake, ``request`` the verb's arguments by name.

    ``state`` is queued, running, done, failed or cancelled; ``done`` of ``total`` of ``what`` say how far it is.
    ``result`` names what was made, ``error`` has code, message and hint. ``namespace`` is where it goes.
    """

    id: int
    kind: str
    request: Mapping[str, Any]
    namespace: str
    author: str
    state: str
    attempts: int
    worker: str
    what: str
    done: int
    total: int
    result: Mapping[str, Any]
    error: Mapping[str, str]
    created_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """Who did what, and when; ``ref`` is empty where it was not about one adapter."""

    id: int
    at: datetime
    author: str
    action: str
    ref: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class ModuleType:
    """How often a kind of module (the last part of its name) carries factors, and at which ranks."""

    name: str
    count: int
    rank_min: int
    rank_max: int


@dataclass(frozen=True)
class Facts:
    """What the tensors and the configuration of an adapter say, without any mathematics.

    ``alpha`` is ``lora_alpha``; ``parameters`` counts elements of every tensor; ``dtype`` is the most common
    one by elements, in safetensors' words (``F32``); ``base_hint`` is ``base_model_name_or_path``.
    """

    variant: str
    task_type: str
    rank_min: int
    rank_max: int
    alpha: float
    parameters: int
    dtype: str
    module_types: tuple[ModuleType, ...]
    base_hint: str


@dataclass(frozen=True)
class Metric:
    """One measured number of one version."""

    name: str
    value: float
    dataset: str = ""
    split: str = ""
    higher_is_better: bool = True

    def __str__(self) -> str:
        where = f"@{self.dataset}" if self.dataset else ""
        return f"{self.name}={self.value:g}{where}" + (f":{self.split}" if self.split else "")


@dataclass(frozen=True)
class BaseModel:
    """A base model: ``digest`` is the hex digest over its tensors, ``names`` what people call it.

    ``struct`` is a digest over names and shapes alone. If not ``complete``, only headers are known of it, and
    ``digest`` says nothing of its weights. ``license`` is what its card says, empty if that is not known.
    """

    digest: str
    names: tuple[str, ...] = ()
    tensors: int = 0
    parameters: int = 0
    struct: str = ""
    complete: bool = True
    license: str = ""

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


@dataclass(frozen=True)
class Version:
    """An immutable pushed state of an adapter, with what people have said of it since."""

    adapter: AdapterName
    number: int
    digest: str
    facts: Facts
    size: int
    author: str
    message: str
    created_at: datetime
    yanked: bool
    base: BaseModel | None
    target: str | None
    aliases: tuple[str, ...]
    tasks: tuple[str, ...]
    labels: Mapping[str, str]
    metrics: tuple[Metric, ...]

    @property
    def ref(self) -> str:
        """The shortest ref that always means this version."""
        return f"{self.adapter}:v{self.number}"

    @property
    def pinned(self) -> str:
        """The ref with its digest, as every command prints it."""
        return f"{self.ref}@sha256:{self.digest[:12]}"


@dataclass(frozen=True)
class Source:
    """One adapter that a merge was made from: ``label`` is what the person typed, ``digest`` its manifest's."""

    label: str
    digest: str
    weight: float


@dataclass(frozen=True)
class Provenance:
    """Where a version came from: the sources, everything needed to repeat it, and what it kept and lost."""

    sources: tuple[Source, ...]
    recipe: Mapping[str, Any]
    certificate: Mapping[str, Any]


@dataclass(frozen=True)
class Draft:
    """A version that is about to be recorded: all of its blobs are stored already."""

    adapter: AdapterName
    manifest: Manifest
    facts: Facts
    card: str = ""
    message: str = ""
    base: BaseModel | None = None
    target: str | None = None
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    aliases: tuple[str, ...] = ()
    provenance: Provenance | None = None


@dataclass(frozen=True)
class Commit:
    """What is asked to become a version: the blobs of ``manifest`` are stored already, and those of ``base``.

    ``base`` may be one that is not known yet; the blob under its digest lists its tensors. ``base_hint`` is what the
    adapter called its base before a private path was taken out of its files.
    """

    adapter: AdapterName
    manifest: Manifest
    base: BaseModel | None = None
    base_hint: str = ""
    message: str = ""
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Committed:
    """The version, whether it is a new one, and what a person should know."""

    version: Version
    created: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PushResult:
    """What a push did: ``created`` is False when this content was there already."""

    version: Version
    created: bool
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """An adapter as ``server`` takes it: what was changed, and ``epsilon = ‖Δ' − Δ‖ / ‖Δ‖`` over all of its deltas.

    ``moved`` counts the modules whose delta is not the same to the last bit; ``worst`` is the one that moved most.
    """

    server: str
    changes: tuple[str, ...]
    epsilon: float
    moved: int
    worst: str
    worst_epsilon: float


@dataclass(frozen=True)
class ExportResult:
    """Where the adapter of ``source`` was written for a server."""

    source: str
    folder: Path
    fitted: Fitted


@dataclass(frozen=True)
class PullResult:
    """Where a version now lies; ``downloaded`` counts the bytes that were not there before.

    ``fitted`` says what was changed if it was pulled for a server.
    """

    version: Version
    folder: Path
    downloaded: int
    fitted: Fitted | None = None


@dataclass(frozen=True)
class MergeResult:
    """A merge: always a certificate; a version if it was pushed, a folder if it was written to one."""

    provenance: Provenance
    notes: tuple[str, ...]
    pushed: PushResult | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Finding:
    """One rule's complaint. ``severity`` is ``error`` or ``warning``; ``remedy`` says what to do."""

    code: str
    severity: str
    message: str
    remedy: str


@dataclass(frozen=True)
class CheckReport:
    """What was found on one adapter; ``path`` is its folder on this machine, empty for a version."""

    name: str
    path: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def count(self, severity: str) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)


@dataclass(frozen=True)
class BakeResult:
    """A model with adapters baked in: ``changed`` and ``copied`` count tensors, ``size`` is in bytes.

    ``verdicts`` say how well the base fits each source; ``resumed`` counts the shards that an earlier, interrupted
    bake had written; ``verified`` the tensors that were computed again and compared.
    """

    folder: Path
    changed: int
    copied: int
    size: int
    verdicts: tuple[Verdict, ...]
    resumed: int
    verified: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ExtractedModule:
    """One changed matrix as factors of ``rank``: ``retained`` is the share that they keep of ``norm``² (Frobenius)."""

    module: str
    shape: tuple[int, int]
    rank: int
    retained: float
    norm: float


@dataclass(frozen=True)
class ExtractResult:
    """An adapter out of a fine-tune: ``retained`` is the share of the energy of all factored modules together.

    ``whole`` are the tensors that no factors can hold, with the reason; a version if it was pushed, else a folder.
    """

    modules: tuple[ExtractedModule, ...]
    retained: float
    whole: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    pushed: PushResult | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Reproduced:
    """A stored merge, done again: ``identical`` to the bit, or the largest relative ``difference`` of a delta."""

    version: Version
    identical: bool
    difference: float
    folder: Path | None = None


@dataclass(frozen=True)
class Likeness:
    """How alike the deltas of two adapters are, over the ``modules`` that both have.

    ``cosine`` of the deltas; ``left_overlap`` and ``right_overlap`` of their column and row spaces, from 0
    (orthogonal) to 1 (one contains the other); ``sign_conflict``, the share of sampled entries of opposite sign;
    ``norm_ratio``, ‖b‖/‖a‖, None if a is zero.
    """

    a: str
    b: str
    modules: int
    cosine: float
    left_overlap: float
    right_overlap: float
    sign_conflict: float
    norm_ratio: float | None
    near_duplicate: bool


@dataclass(frozen=True)
class AdapterEntry:
    """One adapter in a listing: how many versions, and the newest that is not yanked (None if all are)."""

    adapter: AdapterName
    versions: int
    newest: int | None
    aliases: Mapping[str, int]
    created_at: datetime


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a listing; ``cursor`` fetches the next and is None on the last."""

    items: tuple[T, ...]
    cursor: str | None


@dataclass(frozen=True)
class Details:
    """All that is known of one version; ``card`` is the text of its README.md, as far as it is kept."""

    version: Version
    files: tuple[File, ...]
    card: str
    provenance: Provenance | None
    alias_moves: tuple[AliasMove, ...]


@dataclass(frozen=True)
class LineageEdge:
    """``child`` was made from ``parent`` with ``weight``. ``parent_ref`` is empty for a folder, or if it is gone."""

    child: str
    parent: Source
    parent_ref: str
    depth: int


@dataclass(frozen=True)
class AliasMove:
    """One move of an alias; ``number`` is None where it was removed."""

    alias: str
    number: int | None
    author: str
    at: datetime


@dataclass(frozen=True)
class Comparison:
    """``operator`` is one of ``= < <= > >=``."""

    operator: str
    value: float

    def __str__(self) -> str:
        return f"{self.operator}{self.value!r}"


@dataclass(frozen=True)
class MetricCondition:
    """A metric that a version must have, with a value that compares; empty ``dataset`` or ``split`` means any."""

    name: str
    comparison: Comparison
    dataset: str = ""
    split: str = ""

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{_where(self.dataset, self.split)}"


@dataclass(frozen=True)
class Sort:
    """``by`` is created, name, rank, size or metric; ``metric``, ``dataset`` and ``split`` name which."""

    by: str = "created"
    metric: str = ""
    dataset: str = ""
    split: str = ""

    def __str__(self) -> str:
        return f"metric:{self.metric}{_where(self.dataset, self.split)}" if self.by == "metric" else self.by


@dataclass(frozen=True)
class Query:
    """What to search for; every given condition must hold. ``text`` is matched literally, without case."""

    text: str = ""
    tasks: tuple[str, ...] = ()
    base: str = ""
    modules: tuple[str, ...] = ()
    ranks: tuple[Comparison, ...] = ()
    metrics: tuple[MetricCondition, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    author: str = ""
    variant: str = ""
    sort: Sort = Sort()
    all_versions: bool = False
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True)
class Check:
    """One line of ``loreg doctor``: what was looked at, what was found, whether it is well."""

    name: str
    value: str
    origin: str = ""
    ok: bool = True
    hint: str = ""


def _where(dataset: str, split: str) -> str:
    """Which data a metric is of, as it is typed."""
    return (f"@{dataset}" + (f":{split}" if split else "")) if dataset or split else ""
