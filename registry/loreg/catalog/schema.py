"""The tables and indexes that the code expects; Alembic creates them (migrations/)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypedDict

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TextClause,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import MetaData

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


class TableBase(DeclarativeBase):
    """The base class of all tables: constraints get names, so that migrations can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class AdapterRow(TableBase):
    """A name under which versions are pushed; ``namespace`` is empty where there is none."""

    __tablename__ = "adapters"
    __table_args__ = (UniqueConstraint("namespace", "name"), Index(None, "name", "namespace"))

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    namespace: Mapped[str] = mapped_column(Name)
    name: Mapped[str] = mapped_column(Name)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BaseRow(TableBase):
    """A base model; ``digest`` is also the blob that lists its tensors, with their digests if it is ``complete``.

    ``config`` is JSON: class and tied weights from its ``config.json``. ``author`` is the user who added it, empty
    if unknown.
    """

    __tablename__ = "bases"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), unique=True)
    tensors: Mapped[int] = mapped_column(Integer)
    parameters: Mapped[int] = mapped_column(BigInteger)
    struct: Mapped[str] = mapped_column(Digest, server_default="", index=True)
    complete: Mapped[bool] = mapped_column(server_default=true())
    license: Mapped[str] = mapped_column(String(64), server_default="")
    config: Mapped[str] = mapped_column(Text, server_default="{}")
    author: Mapped[str] = mapped_column(Word, server_default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class BaseNameRow(TableBase):
    """A name of a base; a base may have many names, a name means one base."""

    __tablename__ = "base_names"

    name: Mapped[str] = mapped_column(String(512), primary_key=True)
    base_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), index=True)


class BaseEdgeRow(TableBase):
    """An edge from a base to the base it derives from: a kind, and in ``detail`` how it was derived."""

    __tablename__ = "base_edges"

    child_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("bases.id"), primary_key=True, index=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    detail: Mapped[dict[str, object]] = mapped_column(JSON)
    verified: Mapped[bool]
    author: Mapped[str] = mapped_column(Word)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VersionRow(TableBase):
    """An immutable pushed state; ``target`` is the digest of those tensors of its base that it modifies.

    Only ``yanked_at`` changes, and a base that was unknown is filled in.
    """

    __tablename__ = "versions"
    __table_args__ = (
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

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapters.id"))
    number: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(Digest)
    base_id: Mapped[int | None] = mapped_column(ForeignKey("bases.id"))
    target: Mapped[str | None] = mapped_column(Digest)
    base_hint: Mapped[str] = mapped_column(String(1024))
    variant: Mapped[str] = mapped_column(String(32))
    task_type: Mapped[str] = mapped_column(String(64))
    rank_min: Mapped[int] = mapped_column(Integer)
    rank_max: Mapped[int] = mapped_column(Integer)
    alpha: Mapped[float]
    parameters: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    dtype: Mapped[str] = mapped_column(String(16))
    author: Mapped[str] = mapped_column(Word)
    message: Mapped[str] = mapped_column(Text)
    card: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    yanked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ModuleTypeRow(TableBase):
    """How many modules of one type, and at which ranks, a version has."""

    __tablename__ = "module_types"
    __table_args__ = (Index(None, "name", "version_id"),)

    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    name: Mapped[str] = mapped_column(Word, primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    rank_min: Mapped[int] = mapped_column(Integer)
    rank_max: Mapped[int] = mapped_column(Integer)


class TaskRow(TableBase):
    """A task that a version is for; ``base`` repeats which base it is on, so that one index finds both.

    That is the digest of a recorded base, else the name that the adapter itself gives.
    """

    __tablename__ = "tasks"
    __table_args__ = (Index(None, "task", "version_id"), Index(None, "task", "base", "version_id"))

    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    task: Mapped[str] = mapped_column(Word, primary_key=True)
    base: Mapped[str] = mapped_column(String(1024), server_default="")


class LabelRow(TableBase):
    """A label of a version: a key and a value, freely chosen."""

    __tablename__ = "labels"
    __table_args__ = (Index(None, "key", "value", "version_id"),)

    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    key: Mapped[str] = mapped_column(Word, primary_key=True)
    value: Mapped[str] = mapped_column(String(256))


class MetricRow(TableBase):
    """A measured number; another measurement on the same data replaces it (the event keeps the old value).

    ``score`` is the value, or its negative where less is better: a higher score is always better.
    """

    __tablename__ = "metrics"
    __table_args__ = (
        Index(None, "name", "value", "version_id"),
        Index(None, "name", "dataset", "value", "version_id"),
        Index(None, "name", "score", "version_id"),
        Index(None, "name", "dataset", "score", "version_id"),
    )

    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    name: Mapped[str] = mapped_column(Word, primary_key=True)
    dataset: Mapped[str] = mapped_column(String(256), primary_key=True)
    split: Mapped[str] = mapped_column(Word, primary_key=True)
    value: Mapped[float]
    higher_is_better: Mapped[bool]
    score: Mapped[float] = mapped_column(server_default="0")
    author: Mapped[str] = mapped_column(Word)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AliasRow(TableBase):
    """An alias and the version that it points to now."""

    __tablename__ = "aliases"

    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapters.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(Name, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), index=True)


class AliasMoveRow(TableBase):
    """A move of an alias to a version, or to none when it was removed. ``number`` is the version's."""

    __tablename__ = "alias_moves"
    __table_args__ = (Index(None, "adapter_id", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    adapter_id: Mapped[int] = mapped_column(ForeignKey("adapters.id"))
    alias: Mapped[str] = mapped_column(Name)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    number: Mapped[int | None]
    author: Mapped[str] = mapped_column(Word)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class BlobRow(TableBase):
    """A blob that was stored: for a version, an export, a base or a pending upload, or for a push that was refused."""

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(Digest, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)


class FileRow(TableBase):
    """A file of a version, by name and content; ``size`` is its blob's."""

    __tablename__ = "files"

    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), index=True)
    size: Mapped[int] = mapped_column(BigInteger, server_default="0")


class ExportRow(TableBase):
    """A version as the server of ``profile`` takes it, and the user who had it built.

    ``request`` is the digest of the options of the export, ``digest`` that of its files.
    """

    __tablename__ = "exports"
    __table_args__ = (UniqueConstraint("version_id", "request"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    request: Mapped[str] = mapped_column(Digest)
    profile: Mapped[str] = mapped_column(Word, server_default="")
    digest: Mapped[str] = mapped_column(Digest)
    author: Mapped[str] = mapped_column(Word, server_default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ExportFileRow(TableBase):
    """A file of an export, by name and content."""

    __tablename__ = "export_files"

    export_id: Mapped[int] = mapped_column(ForeignKey("exports.id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), index=True)


class MergeRow(TableBase):
    """The recipe that made a version, and the certificate of what it kept."""

    __tablename__ = "merges"

    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    recipe: Mapped[dict[str, object]] = mapped_column(JSON)
    certificate: Mapped[dict[str, object]] = mapped_column(JSON)


class LineageRow(TableBase):
    """One source of a merged version; ``parent_digest`` is known even if the parent is not in this registry."""

    __tablename__ = "lineage"

    child_id: Mapped[int] = mapped_column(ForeignKey("merges.version_id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    parent_digest: Mapped[str] = mapped_column(Digest, index=True)
    parent_label: Mapped[str] = mapped_column(String(1024))
    weight: Mapped[float]


class NamespaceRow(TableBase):
    """Whether a namespace may be read by everyone, or only with a token for it; one without a row is private."""

    __tablename__ = "namespaces"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    public: Mapped[bool]


class TokenRow(TableBase):
    """A token, by the sha256 of it; ``grants`` maps namespaces, or ``*``, to read, write or admin."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("digest"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(Digest)
    name: Mapped[str] = mapped_column(Word)
    grants: Mapped[dict[str, str]] = mapped_column(JSON)
    author: Mapped[str] = mapped_column(Word)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UploadRow(TableBase):
    """A blob that a client announced; ``received`` is set by servers that receive uploads themselves (without S3)."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[str] = mapped_column(Digest, primary_key=True)
    owner: Mapped[str] = mapped_column(Word)
    digest: Mapped[str] = mapped_column(Digest)
    size: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PendingUploadRow(TableBase):
    """Files that a client of the Hub committed and that make no complete adapter yet.

    ``basis`` is the digest of the version that the branch meant at the first of them, empty if it meant none.
    """

    __tablename__ = "drafts"

    namespace: Mapped[str] = mapped_column(Name, primary_key=True)
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    branch: Mapped[str] = mapped_column(Name, primary_key=True)
    files: Mapped[list[tuple[str, str, int]]] = mapped_column(JSON)
    basis: Mapped[str] = mapped_column(Digest, server_default="")
    author: Mapped[str] = mapped_column(Word)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class _Partial(TypedDict):
    """The condition of a partial index, for either database."""

    postgresql_where: TextClause
    sqlite_where: TextClause


def _partial(condition: str) -> _Partial:
    """Return the options of a partial index on the rows with the condition, for either database."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class JobRow(TableBase):
    """A merge, a re-ranking or a bake that a worker runs, with the permissions of the user who submitted it.

    ``token_id`` is the token that submitted it, if any; ``while_open``: it was submitted without one to a server that
    needed none. ``base`` and torch are what a worker must have for it, ``policy`` guards the aliases that it sets. Of
    the queued jobs the one with the lowest ``turn`` comes first. ``losses`` counts the workers that died of it, or lost
    their database or store; ``able_at`` is when a worker that is able to run it last looked for work.
    """

    __tablename__ = "jobs"
    # The indexes that claiming uses hold no job that has ended.
    __table_args__ = (
        Index(None, "namespace", "id"),
        Index("ix_jobs_queued", "turn", "id", **_partial("state = 'queued'")),
        Index("ix_jobs_running", "beat_at", "id", **_partial("state = 'running'")),
        Index("ix_jobs_open", "namespace", "id", **_partial("state IN ('queued', 'running')")),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, object]] = mapped_column(JSON)
    namespace: Mapped[str] = mapped_column(Name)
    author: Mapped[str] = mapped_column(Word)
    grants: Mapped[dict[str, str]] = mapped_column(JSON)
    token_id: Mapped[int | None] = mapped_column(BigInteger)
    while_open: Mapped[bool] = mapped_column(server_default=false())
    base: Mapped[str] = mapped_column(String(256), server_default="")
    needs_torch: Mapped[bool] = mapped_column(server_default=true())
    policy: Mapped[dict[str, object] | None] = mapped_column(JSON(none_as_null=True))
    turn: Mapped[int] = mapped_column(BigInteger, server_default="0")
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer)
    losses: Mapped[int] = mapped_column(Integer, server_default="0")
    worker: Mapped[str] = mapped_column(Word)
    what: Mapped[str] = mapped_column(Word)
    done: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(BigInteger)
    result: Mapped[dict[str, object]] = mapped_column(JSON)
    error: Mapped[dict[str, object]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    able_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    beat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EventRow(TableBase):
    """Who did what, and when. Rows are only ever added."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "adapter_id", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    author: Mapped[str] = mapped_column(Word)
    action: Mapped[str] = mapped_column(String(32))
    adapter_id: Mapped[int | None] = mapped_column(ForeignKey("adapters.id"))
    version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    detail: Mapped[dict[str, object]] = mapped_column(JSON)
