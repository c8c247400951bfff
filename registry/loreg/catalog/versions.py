"""Versions: record one, and find the one that a ref means."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, insert, select, union_all, update
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog import aliases, blobs, canaries, lineage, metrics, promotions, search_text, tombstones
from loreg.catalog.bases import digest_range, find_base_id
from loreg.catalog.schema import (
    adapter_table,
    alias_table,
    base_table,
    file_table,
    label_table,
    module_type_table,
    task_table,
    tombstone_table,
    version_table,
)
from loreg.catalog.transaction import Transaction, visible_to
from loreg.catalog.version_json import JsonCells, VersionRecord, select_versions, to_version, to_version_record
from loreg.entities import Metric, NewVersion, Version, VersionContent
from loreg.errors import ConflictError, NotFoundError, YankedError
from loreg.refs import AdapterName, Ref
from loreg.suggestions import Suggestion, suggest


class ChangePolicy(msgspec.Struct, frozen=True):
    """Checks that refuse a change of a version by raising.

    ``check_alias`` is called before an alias is set to a version, ``check_metrics`` before metrics are recorded for one
    that was recorded before.
    """

    check_alias: Callable[[VersionRecord, str], None]
    check_metrics: Callable[[VersionRecord, Sequence[Metric]], None]


_NO_POLICY = ChangePolicy(lambda row, alias: None, lambda row, measured: None)
_MAX_NEIGHBORS = 20
_MAX_COPIES = 100
_BY_ID = select_versions().where(version_table.c.id == bindparam("id"))
_FIND_SAME_CONTENT = select(
    version_table.c.id,
    version_table.c.number,
    version_table.c.base_id,
    version_table.c.yanked_at.is_not(None).label("yanked"),
).where(version_table.c.adapter_id == bindparam("adapter"), version_table.c.digest == bindparam("digest"))
_NUMBERS = union_all(  # a number is given once: those of versions that are gone count too
    *(
        select(func.max(table.c.number).label("number")).where(table.c.adapter_id == bindparam("adapter"))
        for table in (version_table, tombstone_table)
    )
).subquery()
_LAST_NUMBER = select(func.coalesce(func.max(_NUMBERS.c.number), 0))
_TASKS = select(task_table.c.task).where(task_table.c.version_id == bindparam("id"))
_LABELS = select(label_table.c.key, label_table.c.value).where(label_table.c.version_id == bindparam("id"))
_BASE_TEXT = (  # as task_table.c.base has it
    select(func.coalesce(base_table.c.digest, version_table.c.base_hint))
    .join_from(version_table, base_table, base_table.c.id == version_table.c.base_id, isouter=True)
    .where(version_table.c.id == bindparam("id"))
)
_INSERT = insert(version_table).values(number=_LAST_NUMBER.scalar_subquery() + 1).returning(version_table.c.id)
_INSERT_NUMBERED = insert(version_table).returning(version_table.c.id)


def record(tx: Transaction, new: NewVersion, policy: ChangePolicy = _NO_POLICY) -> tuple[VersionRecord, bool]:
    """Record a version whose blobs are all stored; return it, and False if the adapter had this very content already.

    Tasks, labels, metrics and aliases are recorded in both cases. ``policy`` checks each alias while all of them mean
    what they meant before; what it raises refuses the version. Raises ConflictError if the content is recorded as a
    version that was yanked, or with another base; a base that was unknown is filled in. Raises NotAllowedError for new
    content that was deleted for good.
    """
    adapter_id = get_or_create_adapter_locked(tx, new.adapter)
    base_id = find_base_id(tx, new.base.digest) if new.base else None
    existing = find_same_content(tx, adapter_id, new.manifest.digest)
    if existing is None:
        version_id = insert_version(tx, adapter_id, base_id, new)
    else:
        version_id = existing.id
        refuse_other_base(f"{new.adapter}:v{existing.number}", existing.base_id, base_id)
        if existing.yanked:
            ref = f"{new.adapter}:v{existing.number}"
            raise ConflictError(f"this content is {ref}, which was yanked", hint=f"loreg unyank {ref}")
        if base_id is not None and existing.base_id is None:
            digest = fill_in_base(tx, version_id, base_id, new)
            tx.log("base", adapter_id, version_id, digest=digest)
    changes = describe(tx, version_id, new)
    if existing is not None and changes:
        tx.log("describe", adapter_id, version_id, **changes)
    if existing is not None and new.metrics:
        policy.check_metrics(VersionRecord(version_id, adapter_id, by_id(tx, version_id)), new.metrics)
    for metric in sorted(new.metrics, key=lambda m: (m.name, m.dataset, m.split)):
        metrics.put(tx, adapter_id, version_id, metric)
    for alias in new.aliases:
        policy.check_alias(VersionRecord(version_id, adapter_id, by_id(tx, version_id)), alias)
    for alias in new.aliases:
        aliases.set_alias(tx, adapter_id, version_id, alias)
    return VersionRecord(version_id, adapter_id, by_id(tx, version_id)), existing is None


def resolve(tx: Transaction, ref: Ref) -> VersionRecord:
    """Return the version that ``ref`` means: by its alias, number or digest, or else the newest not yanked.

    Raises NotFoundError, naming what is there instead, and ConflictError if the digest in the ref is not that
    of the version which the rest of the ref means.
    """
    return find_version(tx, ref, select_version)[0]


class SelectedBy(StrEnum):
    """What of a ref says which version of the adapter is meant."""

    NUMBER = "number"
    ALIAS = "alias"
    DIGEST = "digest"
    NEWEST = "newest"


def _how_ref_selects(ref: Ref) -> SelectedBy:
    if ref.number:
        return SelectedBy.NUMBER
    if ref.alias:
        return SelectedBy.ALIAS
    return SelectedBy.DIGEST if ref.digest else SelectedBy.NEWEST


def find_version(
    tx: Transaction, ref: Ref, statement: Callable[[bool, SelectedBy], ReturnsRows]
) -> tuple[VersionRecord, Any]:
    """Return the version that ``ref`` means, and the last cell of the row that ``statement`` selects.

    ``statement`` is :func:`select_version`, or the same with a column more. Raises what :func:`resolve` raises.
    """
    by = _how_ref_selects(ref)
    digest, digest_end = digest_range(ref.digest or "")
    rows = tx.select_compiled(
        statement(tx.sees_all, by),
        namespace=ref.adapter.namespace,
        name=ref.adapter.name,
        number=ref.number,
        alias=ref.alias,
        digest=digest,
        digest_end=digest_end,
    )
    if not rows:
        raise _not_found_error(tx, ref, find_adapter_id(tx, ref.adapter))
    (row,) = rows
    version_record = to_version_record(row[0])
    version = version_record.version
    if ref.alias is not None and version.yanked:
        raise YankedError(
            f"alias {ref.alias!r} of {ref.adapter} points to v{version.number}, which is yanked",
            hint=f"loreg tag {ref.adapter} {ref.alias}",
        )
    if ref.digest is not None and not version.digest.startswith(ref.digest):
        raise ConflictError(
            f"{ref} is not what it was: {version.ref} has digest sha256:{version.digest[: len(ref.digest)]}",
            hint=f"loreg show {ref.adapter}@sha256:{ref.digest}",
        )
    return version_record, row[-1]


@functools.cache
def select_version(sees_all: bool, by: SelectedBy) -> Select[JsonCells]:
    """Select the version of an adapter by its number, alias or digest, or the newest that is not yanked."""
    query = select_versions().where(
        adapter_table.c.namespace == bindparam("namespace"),
        adapter_table.c.name == bindparam("name"),
        visible_to(sees_all, adapter_table.c.namespace),
    )
    if by == SelectedBy.NUMBER:
        query = query.where(version_table.c.number == bindparam("number"))
    elif by == SelectedBy.ALIAS:
        query = query.join(alias_table, alias_table.c.version_id == version_table.c.id).where(
            alias_table.c.adapter_id == adapter_table.c.id, alias_table.c.alias == bindparam("alias")
        )
    elif by == SelectedBy.DIGEST:
        query = query.where(
            version_table.c.digest >= bindparam("digest"), version_table.c.digest < bindparam("digest_end")
        )
    else:
        query = query.where(version_table.c.yanked_at.is_(None))
    return query.order_by(version_table.c.number.desc()).limit(1)


def by_id(tx: Transaction, version_id: int) -> Version:
    """Return the version with that row id."""
    return to_version(tx.connection.execute(_BY_ID, {"id": version_id}).scalar_one())


def find_by_digest(tx: Transaction, digest: str) -> Version | None:
    """Return the oldest version of any adapter with exactly this content; None if there is none."""
    visible = tx.visible(adapter_table.c.namespace)
    query = select_versions().where(version_table.c.digest == digest, visible).order_by(version_table.c.id).limit(1)
    document = tx.connection.execute(query).scalar()
    return to_version(document) if document is not None else None


def refs_with_file(tx: Transaction, sha256: str) -> tuple[str, ...]:
    """Return the refs of the versions that have a file with this content, oldest first, 100 at most."""
    with_file = select(file_table.c.version_id).where(file_table.c.digest == sha256)
    query = (
        select(adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
        .join_from(version_table, adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.id.in_(with_file), tx.visible(adapter_table.c.namespace))
        .order_by(version_table.c.id)
        .limit(_MAX_COPIES)
    )
    rows = tx.connection.execute(query)
    return tuple(f"{AdapterName(namespace, name)}:v{number}" for namespace, name, number in rows)


def read_card(tx: Transaction, row: VersionRecord) -> str:
    """Return the text of the version's README.md, as far as the catalog stores it."""
    return tx.connection.execute(select(version_table.c.card).where(version_table.c.id == row.id)).scalar_one()


def find_adapter_id(tx: Transaction, adapter: AdapterName) -> int:
    """Return the row id of an adapter. Raises NotFoundError, naming the closest name that there is."""
    query = select(adapter_table.c.id).where(_is_adapter(adapter), tx.visible(adapter_table.c.namespace))
    adapter_id = tx.connection.execute(query).scalar()
    if adapter_id is not None:
        return adapter_id
    raise NotFoundError(
        f"there is no adapter {str(adapter)!r}",
        hint="loreg ls",
        suggestion=suggest(str(adapter), _similar_names(tx, adapter)),
    )


def _similar_names(tx: Transaction, adapter: AdapterName) -> list[str]:
    """Return names that the user may have meant: neighbors in the namespace, and that name in other namespaces."""
    names = select(adapter_table.c.namespace, adapter_table.c.name).where(tx.visible(adapter_table.c.namespace))
    in_namespace, name = names.where(adapter_table.c.namespace == adapter.namespace), adapter_table.c.name
    similar = union_all(
        *(
            select(query.limit(_MAX_NEIGHBORS).subquery())
            for query in (
                in_namespace.where(name > adapter.name).order_by(name),
                in_namespace.where(name < adapter.name).order_by(name.desc()),
                names.where(name == adapter.name),
                names.where(adapter_table.c.namespace == adapter.namespace.lower(), name == adapter.name.lower()),
            )
        )
    )
    return [str(AdapterName(*row)) for row in tx.connection.execute(similar)]


def lock_adapter(tx: Transaction, adapter_id: int) -> None:
    """Lock an adapter, so that nobody else changes its versions and aliases until the transaction ends."""
    query = select(adapter_table.c.id).where(adapter_table.c.id == adapter_id)
    tx.connection.execute(query.with_for_update(key_share=True))  # what only refers to the adapter need not wait


def lock_adapter_name(tx: Transaction, adapter: AdapterName, *, make: bool) -> None:
    """Lock an adapter by name as :func:`lock_adapter` does, if it exists; with ``make`` it is created if need be."""
    if make:
        get_or_create_adapter_locked(tx, adapter)
        return
    tx.connection.execute(select(adapter_table.c.id).where(_is_adapter(adapter)).with_for_update(key_share=True))


def set_yanked(tx: Transaction, row: VersionRecord, yanked: bool, reason: str = "") -> Version:
    """Hide a version from search and alias, or show it again, and return it; does nothing if it is so already."""
    differs = version_table.c.yanked_at.is_(None) if yanked else version_table.c.yanked_at.is_not(None)
    statement = update(version_table).where(version_table.c.id == row.id, differs)
    if tx.connection.execute(statement.values(yanked_at=tx.at if yanked else None)).rowcount:
        tx.log("yank" if yanked else "unyank", row.adapter_id, row.id, reason=reason)
        if yanked:
            canaries.end_of_version(tx, row.id, "the version was yanked")
            promotions.end_of_version(tx, row.id, f"v{row.version.number} was yanked")
    return by_id(tx, row.id)


def _is_adapter(adapter: AdapterName) -> ColumnElement[bool]:
    return and_(adapter_table.c.namespace == adapter.namespace, adapter_table.c.name == adapter.name)


def get_or_create_adapter_locked(tx: Transaction, adapter: AdapterName) -> int:
    """Return the id of the adapter's row, created if need be and locked: numbers are given out one at a time."""
    row = {"namespace": adapter.namespace, "name": adapter.name, "created_at": tx.at}
    return tx.get_or_create_locked(adapter_table, row, "namespace", "name")


def find_same_content(tx: Transaction, adapter_id: int, digest: str) -> Any:
    """Return the row of the adapter's version with this content: id, number, base_id and yanked; None if none has."""
    return tx.connection.execute(_FIND_SAME_CONTENT, {"adapter": adapter_id, "digest": digest}).one_or_none()


def refuse_other_base(ref: str, existing_base_id: int | None, base_id: int | None) -> None:
    """Raise ConflictError if the content is recorded with another base."""
    if base_id is not None and existing_base_id not in (None, base_id):
        raise ConflictError(
            f"this content is {ref} already, recorded with another base",
            hint="push it under another name with the base that it was trained on",
        )


def fill_in_base(tx: Transaction, version_id: int, base_id: int, new: NewVersion) -> str:
    """Record the base of a version whose base was unknown; return its digest."""
    statement = update(version_table).where(version_table.c.id == version_id)
    tx.connection.execute(statement.values(base_id=base_id, target=new.target))
    digest = new.base.digest if new.base else ""
    tx.connection.execute(update(task_table).where(task_table.c.version_id == version_id).values(base=digest))
    search_text.refresh(tx.connection, version_id)
    return digest


def describe(tx: Transaction, version_id: int, new: NewVersion) -> dict[str, object]:
    """Add the tasks and set the labels of a version; return what changed, for the event.

    Call it last of what changes the version: it brings the words up to date by which the version is searched for.
    """
    changes = {**_add_tasks(tx, version_id, new.tasks), **_set_labels(tx, version_id, new.labels)}
    search_text.refresh(tx.connection, version_id)
    return changes


def insert_version(
    tx: Transaction, adapter_id: int, base_id: int | None, new: NewVersion, number: int | None = None, **detail: object
) -> int:
    """Record a version with all that its content says, and the event with this ``detail``; return its row id.

    By default it gets the next number.
    """
    facts = new.facts
    values = {
        "adapter_id": adapter_id,
        "digest": new.manifest.digest,
        "base_id": base_id,
        "target": new.target,
        "base_hint": facts.base_hint,
        "base_path": new.base_path,
        "variant": facts.variant,
        "task_type": facts.task_type,
        "rank_min": facts.rank_min,
        "rank_max": facts.rank_max,
        "alpha": facts.alpha,
        "parameters": facts.parameters,
        "bytes": new.manifest.size,
        "dtype": facts.dtype,
        "author": tx.author,
        "message": new.message,
        "card": new.card,
        "created_at": tx.at,
    }
    if number is None:
        version_id: int = tx.connection.execute(_INSERT, {"adapter": adapter_id, **values}).scalar_one()
    else:
        version_id = tx.connection.execute(_INSERT_NUMBERED, {"number": number, **values}).scalar_one()
    tx.insert_missing(
        module_type_table,
        [
            {
                "version_id": version_id,
                "name": m.name,
                "count": m.count,
                "rank_min": m.rank_min,
                "rank_max": m.rank_max,
            }
            for m in facts.module_types
        ],
    )
    blobs.record(tx, {file.sha256: file.size for file in new.manifest.files}, new.manifest.digest)
    # Behind the lock that blobs.record takes: whoever deletes at this moment comes before it, or sees this version.
    tombstones.refuse_banned(tx, {file.sha256 for file in new.manifest.files}, new.manifest.digest)
    tx.insert_missing(
        file_table,
        [
            {"version_id": version_id, "path": file.path, "digest": file.sha256, "size": file.size}
            for file in new.manifest.files
        ],
    )
    if new.provenance:
        lineage.record(tx, version_id, new.provenance)
    tx.log("push", adapter_id, version_id, digest=new.manifest.digest, **detail)
    return version_id


def _add_tasks(tx: Transaction, version_id: int, tasks: Iterable[str]) -> dict[str, object]:
    """Add tasks to a version; return those that are new, for the event."""
    new = sorted(set(tasks) - set(tx.connection.execute(_TASKS, {"id": version_id}).scalars())) if tasks else []
    if not new:
        return {}
    base = tx.connection.execute(_BASE_TEXT, {"id": version_id}).scalar_one()
    tx.insert_missing(task_table, [{"version_id": version_id, "task": task, "base": base} for task in new])
    return {"tasks": new}


def _set_labels(tx: Transaction, version_id: int, labels: Mapping[str, str]) -> dict[str, object]:
    """Set labels of a version; return those that changed and their values before, for the event."""
    if not labels:
        return {}
    before = {row.key: row.value for row in tx.connection.execute(_LABELS, {"id": version_id})}
    new = {key: value for key, value in sorted(labels.items()) if before.get(key) != value}
    for key, value in new.items():
        tx.upsert(label_table, {"version_id": version_id, "key": key, "value": value})
    replaced = {key: before[key] for key in new if key in before}
    return {"labels": new, **({"labels_before": replaced} if replaced else {})} if new else {}


def _not_found_error(tx: Transaction, ref: Ref, adapter_id: int) -> NotFoundError:
    if ref.alias:
        names = sorted(aliases.list_aliases(tx, adapter_id))
        close = suggest(ref.alias, names)
        return NotFoundError(
            f"{ref.adapter} has no alias {ref.alias!r}; it has: {', '.join(names) or 'none'}",
            hint=f"loreg ls {ref.adapter}",
            suggestion=Suggestion(f"{ref.adapter}:{ref.alias}", f"{ref.adapter}:{close.meant}") if close else None,
        )
    if ref.number or ref.digest:
        tombstone = tombstones.find(tx, adapter_id, ref)
        if tombstone is None:
            return NotFoundError(f"there is no version {ref}", hint=f"loreg ls {ref.adapter}")
        return NotFoundError(
            f"{ref.adapter}:v{tombstone.number} was deleted on {tombstone.at:%Y-%m-%d} by {tombstone.author}: "
            f"{tombstone.reason}",
            hint=f"loreg ls {ref.adapter}",
        )
    newest = select(func.max(version_table.c.number)).where(version_table.c.adapter_id == adapter_id)
    number = tx.connection.execute(newest).scalar()
    if number is None:
        return NotFoundError(f"every version of {ref.adapter} was deleted", hint=f"loreg ls {ref.adapter}")
    return YankedError(f"every version of {ref.adapter} is yanked", hint=f"loreg unyank {ref.adapter}:v{number}")


def find_contents(tx: Transaction, digests: Collection[str]) -> dict[str, VersionContent]:
    """Return what versions have these manifests, by digest; a digest that no version has is left out."""
    live = func.sum(case((version_table.c.yanked_at.is_(None), 1), else_=0))
    query = (
        select(version_table.c.digest, func.min(adapter_table.c.namespace), live)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.digest.in_(digests))
        .group_by(version_table.c.digest)
    )
    rows = tx.connection.execute(query)
    return {digest: VersionContent(namespace, count > 0) for digest, namespace, count in rows}
