"""The tables and indexes that the code expects; Alembic creates them (migrations/)."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Named,
    String,
    Table,
    Text,
    TypedColumns,
    TypeDecorator,
    UniqueConstraint,
    false,
    true,
)
from sqlalchemy.engine import Dialect

Id = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only a column of type INTEGER
Digest = String(64)
Name = String(96)
Word = String(128)


class UtcDateTime(TypeDecorator[datetime]):
    """A column type for times, always aware and in UTC; SQLite stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time in UTC, to be stored."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored time, aware and in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


#: All tables. Constraints get names, so that migrations can refer to them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class AdapterColumns(TypedColumns):
    """A name under which versions are pushed; ``namespace`` is empty where there is none."""

    id: Named[int] = Column(Id, primary_key=True)
    namespace: Named[str] = Column(Name)
    name: Named[str] = Column(Name)
    created_at: Named[datetime] = Column(UtcDateTime)


adapter_table = Table(
    "adapters", metadata, AdapterColumns, UniqueConstraint("namespace", "name"), Index(None, "name", "namespace")
)


class BaseColumns(TypedColumns):
    """A base model; ``digest`` is also the blob that lists its tensors, with their digests if it is ``complete``.

    ``config`` is JSON: class and tied weights from its ``config.json``. ``author`` is the user who added it, empty
    if unknown.
    """

    id: Named[int] = Column(Id, primary_key=True)
    digest: Named[str] = Column(Digest, ForeignKey("blobs.digest"), unique=True)
    tensors: Named[int] = Column(Integer)
    parameters: Named[int] = Column(BigInteger)
    struct: Named[str] = Column(Digest, server_default="", index=True)
    complete: Named[bool] = Column(Boolean, server_default=true())
    license: Named[str] = Column(String(64), server_default="")
    config: Named[str] = Column(Text, server_default="{}")
    author: Named[str] = Column(Word, server_default="")
    created_at: Named[datetime] = Column(UtcDateTime)


base_table = Table("bases", metadata, BaseColumns)


class BaseNameColumns(TypedColumns):
    """A name of a base; a base may have many names, a name means one base."""

    name: Named[str] = Column(String(512), primary_key=True)
    base_id: Named[int] = Column(Id, ForeignKey("bases.id"), index=True)


base_name_table = Table("base_names", metadata, BaseNameColumns)


class BaseEdgeColumns(TypedColumns):
    """An edge from a base to the base it derives from: a kind, and in ``detail`` how it was derived."""

    child_id: Named[int] = Column(Id, ForeignKey("bases.id"), primary_key=True)
    parent_id: Named[int] = Column(Id, ForeignKey("bases.id"), primary_key=True, index=True)
    kind: Named[str] = Column(String(32), primary_key=True)
    detail: Named[dict[str, object]] = Column(JSON)
    verified: Named[bool] = Column(Boolean)
    author: Named[str] = Column(Word)
    created_at: Named[datetime] = Column(UtcDateTime)


base_edge_table = Table("base_edges", metadata, BaseEdgeColumns)


class BaseUpgradeColumns(TypedColumns):
    """An upgrade of a base that somebody asked about: how many of its tensors changed, and by which share of them."""

    old_id: Named[int] = Column(Id, ForeignKey("bases.id"), primary_key=True)
    new_id: Named[int] = Column(Id, ForeignKey("bases.id"), primary_key=True, index=True)
    tensors: Named[int] = Column(Integer)
    changed: Named[int] = Column(Integer)
    change: Named[float | None] = Column(Double)
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


base_upgrade_table = Table("base_upgrades", metadata, BaseUpgradeColumns)


class VersionColumns(TypedColumns):
    """An immutable pushed state; ``target`` is the digest of those tensors of its base that it modifies.

    ``base_hint`` is what the adapter calls its base, as everybody may see it; ``base_path`` is where that lay on the
    machine of the author, which only the author is told. Only ``yanked_at`` changes, and a base that was unknown is
    filled in, or taken back.
    """

    id: Named[int] = Column(Id, primary_key=True)
    adapter_id: Named[int] = Column(Id, ForeignKey("adapters.id"))
    number: Named[int] = Column(Integer)
    digest: Named[str] = Column(Digest)
    base_id: Named[int | None] = Column(Id, ForeignKey("bases.id"))
    target: Named[str | None] = Column(Digest)
    base_hint: Named[str] = Column(String(1024))
    base_path: Named[str] = Column(String(1024), server_default="")
    variant: Named[str] = Column(String(32))
    task_type: Named[str] = Column(String(64))
    rank_min: Named[int] = Column(Integer)
    rank_max: Named[int] = Column(Integer)
    alpha: Named[float] = Column(Double)
    parameters: Named[int] = Column(BigInteger)
    bytes: Named[int] = Column(BigInteger)
    dtype: Named[str] = Column(String(16))
    author: Named[str] = Column(Word)
    message: Named[str] = Column(Text)
    card: Named[str] = Column(Text)
    created_at: Named[datetime] = Column(UtcDateTime)
    yanked_at: Named[datetime | None] = Column(UtcDateTime)


version_table = Table(
    "versions",
    metadata,
    VersionColumns,
    UniqueConstraint("adapter_id", "number"),
    UniqueConstraint("adapter_id", "digest"),
    Index(None, "digest"),
    Index(None, "base_id", "id"),
    Index(None, "base_hint", "id"),
    Index(None, "rank_max", "id"),
    Index(None, "bytes", "id"),
    Index(None, "author", "id"),
    Index(None, "variant", "id"),
)


class ModuleTypeColumns(TypedColumns):
    """How many modules of one type, and at which ranks, a version has."""

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    name: Named[str] = Column(Word, primary_key=True)
    count: Named[int] = Column(Integer)
    rank_min: Named[int] = Column(Integer)
    rank_max: Named[int] = Column(Integer)


module_type_table = Table("module_types", metadata, ModuleTypeColumns, Index(None, "name", "version_id"))


class TaskColumns(TypedColumns):
    """A task that a version is for; ``base`` repeats which base it is on, so that one index finds both.

    That is the digest of a recorded base, else the name that the adapter itself gives.
    """

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    task: Named[str] = Column(Word, primary_key=True)
    base: Named[str] = Column(String(1024), server_default="")


task_table = Table(
    "tasks", metadata, TaskColumns, Index(None, "task", "version_id"), Index(None, "task", "base", "version_id")
)


class LabelColumns(TypedColumns):
    """A label of a version: a key and a value, freely chosen."""

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    key: Named[str] = Column(Word, primary_key=True)
    value: Named[str] = Column(String(256))


label_table = Table("labels", metadata, LabelColumns, Index(None, "key", "value", "version_id"))


class MetricColumns(TypedColumns):
    """A measured number; another measurement on the same data replaces it (the event keeps the old value).

    ``score`` is the value, or its negative where less is better: a higher score is always better.
    """

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    name: Named[str] = Column(Word, primary_key=True)
    dataset: Named[str] = Column(String(256), primary_key=True)
    split: Named[str] = Column(Word, primary_key=True)
    value: Named[float] = Column(Double)
    higher_is_better: Named[bool] = Column(Boolean)
    score: Named[float] = Column(Double, server_default="0")
    author: Named[str] = Column(Word)
    created_at: Named[datetime] = Column(UtcDateTime)


metric_table = Table(
    "metrics",
    metadata,
    MetricColumns,
    Index(None, "name", "value", "version_id"),
    Index(None, "name", "dataset", "value", "version_id"),
    Index(None, "name", "score", "version_id"),
    Index(None, "name", "dataset", "score", "version_id"),
)


class MetricDeclarationColumns(TypedColumns):
    """Which direction of a metric is better, and what it is measured in, as an administrator declared it."""

    name: Named[str] = Column(Word, primary_key=True)
    higher_is_better: Named[bool] = Column(Boolean)
    unit: Named[str] = Column(String(32))
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


metric_declaration_table = Table("metric_declarations", metadata, MetricDeclarationColumns)


class AliasColumns(TypedColumns):
    """An alias and the version that it points to now."""

    adapter_id: Named[int] = Column(Id, ForeignKey("adapters.id"), primary_key=True)
    alias: Named[str] = Column(Name, primary_key=True)
    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), index=True)


alias_table = Table("aliases", metadata, AliasColumns)


class CanaryColumns(TypedColumns):
    """A second version of an alias, for a ``share`` between 0 and 1; ``rollback_if`` are conditions on metrics."""

    adapter_id: Named[int] = Column(Id, ForeignKey("adapters.id"), primary_key=True)
    alias: Named[str] = Column(Name, primary_key=True)
    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), index=True)
    number: Named[int] = Column(Integer)
    share: Named[float] = Column(Double)
    rollback_if: Named[list[str]] = Column(JSON)
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


canary_table = Table("canaries", metadata, CanaryColumns)


class PromotionColumns(TypedColumns):
    """An alias that goes back to what it meant before, ``previous_id``, if one of ``rollback_if`` is measured."""

    adapter_id: Named[int] = Column(Id, ForeignKey("adapters.id"), primary_key=True)
    alias: Named[str] = Column(Name, primary_key=True)
    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), index=True)
    number: Named[int] = Column(Integer)
    previous_id: Named[int] = Column(Id, ForeignKey("versions.id"), index=True)
    previous_number: Named[int] = Column(Integer)
    rollback_if: Named[list[str]] = Column(JSON)
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


promotion_table = Table("promotions", metadata, PromotionColumns)


class AliasMoveColumns(TypedColumns):
    """A move of an alias to a version, or to none when it was removed. ``number`` is the version's."""

    id: Named[int] = Column(Id, primary_key=True)
    adapter_id: Named[int] = Column(Id, ForeignKey("adapters.id"))
    alias: Named[str] = Column(Name)
    version_id: Named[int | None] = Column(Id, ForeignKey("versions.id"), index=True)
    number: Named[int | None] = Column(Integer)
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


alias_move_table = Table("alias_moves", metadata, AliasMoveColumns, Index(None, "adapter_id", "id"))


class BlobColumns(TypedColumns):
    """A blob that was stored: for a version, an export, a base or a pending upload, or for a push that was refused."""

    digest: Named[str] = Column(Digest, primary_key=True)
    size: Named[int] = Column(BigInteger)


blob_table = Table("blobs", metadata, BlobColumns)


class FileColumns(TypedColumns):
    """A file of a version, by name and content; ``size`` is its blob's."""

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    path: Named[str] = Column(String(1024), primary_key=True)
    digest: Named[str] = Column(Digest, ForeignKey("blobs.digest"), index=True)
    size: Named[int] = Column(BigInteger, server_default="0")


file_table = Table("files", metadata, FileColumns)


class SketchColumns(TypedColumns):
    """A version's weights in a few numbers: ``vector``, in base64, and the signs of them as four 64-bit integers.

    ``data`` is the digest of the tensors' bytes. Without a vector, where factors cannot be read, there are no signs.
    Rows that are added later have a higher id.
    """

    id: Named[int] = Column(Id, primary_key=True)
    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), unique=True)
    data: Named[str] = Column(Digest, index=True)
    norm: Named[float] = Column(Double)
    vector: Named[str] = Column(Text)
    signs_1: Named[int | None] = Column(BigInteger, index=True)
    signs_2: Named[int | None] = Column(BigInteger, index=True)
    signs_3: Named[int | None] = Column(BigInteger)
    signs_4: Named[int | None] = Column(BigInteger)


# SQLite would give the id of a deleted row again; SketchIndex knows rows by it.
sketch_table = Table("sketches", metadata, SketchColumns, sqlite_autoincrement=True)


class ExportColumns(TypedColumns):
    """A version as the server of ``profile`` takes it, and the user who had it built.

    ``request`` is the digest of the options of the export, ``digest`` that of its files.
    """

    id: Named[int] = Column(Id, primary_key=True)
    version_id: Named[int] = Column(Id, ForeignKey("versions.id"))
    request: Named[str] = Column(Digest)
    profile: Named[str] = Column(Word, server_default="")
    digest: Named[str] = Column(Digest)
    author: Named[str] = Column(Word, server_default="")
    created_at: Named[datetime] = Column(UtcDateTime)


export_table = Table("exports", metadata, ExportColumns, UniqueConstraint("version_id", "request"))


class ExportFileColumns(TypedColumns):
    """A file of an export, by name and content."""

    export_id: Named[int] = Column(Id, ForeignKey("exports.id"), primary_key=True)
    path: Named[str] = Column(String(1024), primary_key=True)
    digest: Named[str] = Column(Digest, ForeignKey("blobs.digest"), index=True)


export_file_table = Table("export_files", metadata, ExportFileColumns)


class MergeColumns(TypedColumns):
    """The recipe that made a version, and the certificate of what it kept."""

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    recipe: Named[dict[str, object]] = Column(JSON)
    certificate: Named[dict[str, object]] = Column(JSON)


merge_table = Table("merges", metadata, MergeColumns)


class LineageColumns(TypedColumns):
    """One source of a merged version; ``parent_digest`` is known even if the parent is not in this registry."""

    child_id: Named[int] = Column(Id, ForeignKey("merges.version_id"), primary_key=True)
    position: Named[int] = Column(Integer, primary_key=True)
    parent_digest: Named[str] = Column(Digest, index=True)
    parent_label: Named[str] = Column(String(1024))
    weight: Named[float] = Column(Double)


lineage_table = Table("lineage", metadata, LineageColumns)


class NamespaceColumns(TypedColumns):
    """Whether a namespace may be read by everyone, or only with a token for it; one without a row is private."""

    name: Named[str] = Column(Name, primary_key=True)
    public: Named[bool] = Column(Boolean)


namespace_table = Table("namespaces", metadata, NamespaceColumns)


class TokenColumns(TypedColumns):
    """A token, by the sha256 of it; ``grants`` maps namespaces, or ``*``, to read, write or admin."""

    id: Named[int] = Column(Id, primary_key=True)
    digest: Named[str] = Column(Digest)
    name: Named[str] = Column(Word)
    grants: Named[dict[str, str]] = Column(JSON)
    author: Named[str] = Column(Word)
    created_at: Named[datetime] = Column(UtcDateTime)
    expires_at: Named[datetime | None] = Column(UtcDateTime)
    last_used_at: Named[datetime | None] = Column(UtcDateTime)
    revoked_at: Named[datetime | None] = Column(UtcDateTime)


token_table = Table("tokens", metadata, TokenColumns, UniqueConstraint("digest"))


class UploadColumns(TypedColumns):
    """A blob that a client announced; ``received`` is set by servers that receive uploads themselves (without S3)."""

    id: Named[str] = Column(Digest, primary_key=True)
    owner: Named[str] = Column(Word)
    digest: Named[str] = Column(Digest)
    size: Named[int] = Column(BigInteger)
    received: Named[bool] = Column(Boolean)
    created_at: Named[datetime] = Column(UtcDateTime)


upload_table = Table("uploads", metadata, UploadColumns, Index(None, "created_at"))


class PendingUploadColumns(TypedColumns):
    """Files that a client of the Hub committed and that make no complete adapter yet.

    ``basis`` is the digest of the version that the branch meant at the first of them, empty if it meant none.
    """

    namespace: Named[str] = Column(Name, primary_key=True)
    name: Named[str] = Column(Name, primary_key=True)
    branch: Named[str] = Column(Name, primary_key=True)
    files: Named[list[tuple[str, str, int]]] = Column(JSON)
    basis: Named[str] = Column(Digest, server_default="")
    author: Named[str] = Column(Word)
    updated_at: Named[datetime] = Column(UtcDateTime)


pending_upload_table = Table("drafts", metadata, PendingUploadColumns)


class JobColumns(TypedColumns):
    """A merge, a re-ranking or a bake that a worker runs, with the permissions of the user who submitted it.

    ``token_id`` is the token that submitted it, if any; ``while_open``: it was submitted without one to a server that
    needed none. ``base`` and torch are what a worker must have for it, ``policy`` guards the aliases that it sets. Of
    the queued jobs the one with the lowest ``turn`` comes first. ``losses`` counts the workers that died of it, or lost
    their database or store; ``able_at`` is when a worker that is able to run it last looked for work.
    """

    id: Named[int] = Column(Id, primary_key=True)
    kind: Named[str] = Column(String(16))
    request: Named[dict[str, object]] = Column(JSON)
    namespace: Named[str] = Column(Name)
    author: Named[str] = Column(Word)
    grants: Named[dict[str, str]] = Column(JSON)
    token_id: Named[int | None] = Column(BigInteger)
    while_open: Named[bool] = Column(Boolean, server_default=false())
    base: Named[str] = Column(String(256), server_default="")
    needs_torch: Named[bool] = Column(Boolean, server_default=true())
    policy: Named[dict[str, object] | None] = Column(JSON(none_as_null=True))
    turn: Named[int] = Column(BigInteger, server_default="0")
    state: Named[str] = Column(String(16))
    attempts: Named[int] = Column(Integer)
    losses: Named[int] = Column(Integer, server_default="0")
    worker: Named[str] = Column(Word)
    what: Named[str] = Column(Word)
    done: Named[int] = Column(BigInteger)
    total: Named[int] = Column(BigInteger)
    result: Named[dict[str, object]] = Column(JSON)
    error: Named[dict[str, object]] = Column(JSON)
    created_at: Named[datetime] = Column(UtcDateTime)
    able_at: Named[datetime | None] = Column(UtcDateTime)
    beat_at: Named[datetime | None] = Column(UtcDateTime)
    finished_at: Named[datetime | None] = Column(UtcDateTime)


# The migrations make the last three partial: they hold no job that has ended. The condition is not written here, for
# SQLAlchemy would import PostgreSQL's dialect to read it, also where SQLite is used.
job_table = Table(
    "jobs",
    metadata,
    JobColumns,
    Index(None, "namespace", "id"),
    Index("ix_jobs_queued", "turn", "id"),
    Index("ix_jobs_running", "beat_at", "id"),
    Index("ix_jobs_open", "namespace", "id"),
)


class EventColumns(TypedColumns):
    """Who did what, and when. Rows are only ever added; those of pulls go when they are old."""

    id: Named[int] = Column(Id, primary_key=True)
    at: Named[datetime] = Column(UtcDateTime)
    author: Named[str] = Column(Word)
    action: Named[str] = Column(String(32))
    adapter_id: Named[int | None] = Column(Id, ForeignKey("adapters.id"))
    version_id: Named[int | None] = Column(Id, ForeignKey("versions.id"), index=True)
    detail: Named[dict[str, object]] = Column(JSON)


# The migrations make the last one partial: it holds the events of pulls.
event_table = Table("events", metadata, EventColumns, Index(None, "adapter_id", "id"), Index("ix_events_pulls", "id"))


class RegistryColumns(TypedColumns):
    """The registry itself, one row: the id that the mark in its store names, and where it moved; empty if not."""

    id: Named[str] = Column(String(32), primary_key=True)
    moved_to: Named[str] = Column(Text, server_default="")


registry_table = Table("registry", metadata, RegistryColumns)


class GarbageColumns(TypedColumns):
    """A stored blob that nothing referred to when it was marked; see :mod:`loreg.catalog.garbage`."""

    digest: Named[str] = Column(Digest, primary_key=True)
    size: Named[int] = Column(BigInteger)
    marked_at: Named[datetime] = Column(UtcDateTime, index=True)
    claimed_at: Named[datetime | None] = Column(UtcDateTime)
    collected_at: Named[datetime | None] = Column(UtcDateTime)


garbage_table = Table("garbage", metadata, GarbageColumns)


class TombstoneColumns(TypedColumns):
    """A version that was deleted: its number is never given again.

    ``digest`` is the version's, ``weights`` that of its weights, empty where other versions have them too. With
    ``is_banned`` no version may be recorded again that has either.
    """

    adapter_id: Named[int] = Column(Id, ForeignKey("adapters.id"), primary_key=True)
    number: Named[int] = Column(Integer, primary_key=True)
    digest: Named[str] = Column(Digest, index=True)
    weights: Named[str] = Column(Digest, index=True)
    is_banned: Named[bool] = Column(Boolean)
    reason: Named[str] = Column(Text)
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


tombstone_table = Table("tombstones", metadata, TombstoneColumns)


class FollowerColumns(TypedColumns):
    """A folder or a server that told which versions it has; ``author`` is who told so, ``seen_at`` when it last did."""

    id: Named[int] = Column(Id, primary_key=True)
    author: Named[str] = Column(Word)
    server: Named[str] = Column(Word)
    replica: Named[str] = Column(Word)
    kind: Named[str] = Column(String(16))
    seen_at: Named[datetime] = Column(UtcDateTime, index=True)


follower_table = Table("followers", metadata, FollowerColumns, UniqueConstraint("author", "server", "replica"))


class DeploymentColumns(TypedColumns):
    """A version that a follower has under a name since a time; ``alias`` is the one that it follows, or empty."""

    follower_id: Named[int] = Column(Id, ForeignKey("followers.id"), primary_key=True)
    name: Named[str] = Column(String(200), primary_key=True)
    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), index=True)
    alias: Named[str] = Column(Name)
    since: Named[datetime] = Column(UtcDateTime)


deployment_table = Table("deployments", metadata, DeploymentColumns)


class WebhookColumns(TypedColumns):
    """A URL that is told of events, and what the one who made it may do; see :mod:`loreg.catalog.webhooks`.

    ``secret`` signs, beside it ``old_secret`` while it is not empty. ``claimed_by`` is who delivers now.
    """

    id: Named[int] = Column(Id, primary_key=True)
    name: Named[str] = Column(Word)
    url: Named[str] = Column(String(2048))
    patterns: Named[list[str]] = Column(JSON)
    actions: Named[list[str]] = Column(JSON)
    secret: Named[str] = Column(Word)
    old_secret: Named[str] = Column(Word)
    author: Named[str] = Column(Word)
    grants: Named[dict[str, str]] = Column(JSON)
    token_id: Named[int | None] = Column(BigInteger)
    while_open: Named[bool] = Column(Boolean)
    after_event: Named[int] = Column(BigInteger)
    created_at: Named[datetime] = Column(UtcDateTime)
    failing_since: Named[datetime | None] = Column(UtcDateTime)
    disabled_at: Named[datetime | None] = Column(UtcDateTime)
    claimed_by: Named[str] = Column(Word)
    claimed_until: Named[datetime | None] = Column(UtcDateTime)


webhook_table = Table("webhooks", metadata, WebhookColumns, sqlite_autoincrement=True)


class WebhookDeliveryColumns(TypedColumns):
    """An event for a webhook, with the ``body`` that every attempt sends; tried at ``due_at``, given up by its age."""

    id: Named[int] = Column(Id, primary_key=True)
    webhook_id: Named[int] = Column(Id, ForeignKey("webhooks.id"))
    message_id: Named[str] = Column(String(64))
    event_id: Named[int | None] = Column(BigInteger)
    event: Named[str] = Column(String(32))
    ref: Named[str] = Column(String(256))
    body: Named[str] = Column(Text)
    state: Named[str] = Column(String(16))
    attempts: Named[int] = Column(Integer)
    status: Named[int | None] = Column(Integer)
    error: Named[str] = Column(String(256))
    created_at: Named[datetime] = Column(UtcDateTime)
    queued_at: Named[datetime] = Column(UtcDateTime)
    due_at: Named[datetime] = Column(UtcDateTime)
    finished_at: Named[datetime | None] = Column(UtcDateTime)


webhook_delivery_table = Table(
    "webhook_deliveries",
    metadata,
    WebhookDeliveryColumns,
    Index(None, "webhook_id", "state", "id"),
    Index(None, "webhook_id", "id"),
    sqlite_autoincrement=True,
)


class WebhookFeedColumns(TypedColumns):
    """Up to where the events were read for all webhooks: one row, once there was a webhook."""

    id: Named[int] = Column(Id, primary_key=True)
    position: Named[str] = Column(Text)


webhook_feed_table = Table("webhook_feed", metadata, WebhookFeedColumns)


class FactColumns(TypedColumns):
    """What one probe said of a version; see :mod:`loreg.probes`. ``release`` is the probe's.

    Where it could say nothing, ``error`` says why, and the value is empty.
    """

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    probe: Named[str] = Column(Word, primary_key=True)
    release: Named[str] = Column(String(64))
    value: Named[dict[str, object]] = Column(JSON)
    error: Named[str] = Column(Text)
    at: Named[datetime] = Column(UtcDateTime)


fact_table = Table("facts", metadata, FactColumns)


class FindingColumns(TypedColumns):
    """A rule that a version breaks, or that of a server which it meets with, as the probe ``check`` found it."""

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    code: Named[str] = Column(Word, primary_key=True)
    severity: Named[str] = Column(String(16))


finding_table = Table("findings", metadata, FindingColumns, Index(None, "code", "version_id"))


class UpgradeVerdictColumns(TypedColumns):
    """What an upgrade of its base, ``old_id``, to another one means for a version, as ``author`` measured it.

    ``read`` is the change that it reads by the norm of its delta; ``figures`` has the other numbers.
    """

    version_id: Named[int] = Column(Id, ForeignKey("versions.id"), primary_key=True)
    new_id: Named[int] = Column(Id, ForeignKey("bases.id"), primary_key=True)
    old_id: Named[int] = Column(Id, ForeignKey("bases.id"))
    verdict: Named[str] = Column(String(16))
    reason: Named[str] = Column(Text)
    read: Named[float | None] = Column(Double)
    figures: Named[dict[str, object]] = Column(JSON)
    author: Named[str] = Column(Word)
    at: Named[datetime] = Column(UtcDateTime)


upgrade_verdict_table = Table("upgrade_verdicts", metadata, UpgradeVerdictColumns, Index(None, "new_id", "old_id"))


class MapRunColumns(TypedColumns):
    """One probe over many versions: those that ``selection`` selected among the ids up to ``last_version_id``."""

    id: Named[int] = Column(Id, primary_key=True)
    probe: Named[str] = Column(Word)
    release: Named[str] = Column(String(64))
    selection: Named[dict[str, object]] = Column(JSON)
    last_version_id: Named[int] = Column(BigInteger)
    author: Named[str] = Column(Word)
    started_at: Named[datetime] = Column(UtcDateTime)
    finished_at: Named[datetime | None] = Column(UtcDateTime)


map_run_table = Table("map_runs", metadata, MapRunColumns)


class MapChunkColumns(TypedColumns):
    """Some versions of a run, probed by one process. ``attempts`` is how often that was begun, and the fence.

    Only who has the last attempt may record what came of it.
    """

    run_id: Named[int] = Column(Id, ForeignKey("map_runs.id"), primary_key=True)
    number: Named[int] = Column(Integer, primary_key=True)
    version_ids: Named[list[int]] = Column(JSON)
    state: Named[str] = Column(String(16))
    attempts: Named[int] = Column(Integer)


map_chunk_table = Table("map_chunks", metadata, MapChunkColumns, Index(None, "run_id", "state", "number"))
