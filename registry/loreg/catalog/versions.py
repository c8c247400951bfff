"""Recording versions and finding the one that a ref means."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, func, insert, select, union_all, update

from loreg.catalog import aliases, blobs, lineage, metrics
from loreg.catalog.bases import base_id_of, digest_range
from loreg.catalog.schema import (
    AdapterRow,
    AliasRow,
    BaseRow,
    FileRow,
    LabelRow,
    ModuleTypeRow,
    TaskRow,
    VersionRow,
)
from loreg.catalog.transaction import Transaction, visible_to
from loreg.catalog.version_json import VersionRecord, select_versions, to_version, to_version_record
from loreg.entities import Metric, NewVersion, Version
from loreg.errors import ConflictError, NotFoundError
from loreg.refs import AdapterName, Ref


@dataclass(frozen=True)
class ChangePolicy:
    """Told a version, and what is about to be said of it; refuses that by raising.

    ``alias``: that the alias means it; ``metrics``: what was measured of one that was there already.
    """

    check_alias: Callable[[VersionRecord, str], None]
    check_metrics: Callable[[VersionRecord, Sequence[Metric]], None]


_NO_POLICY = ChangePolicy(lambda found, alias: None, lambda found, measured: None)
_NEIGHBOURS = 20
_MAX_COPIES = 100
_BY_ID = select_versions().where(VersionRow.id == bindparam("id"))
_KNOWN = select(VersionRow.id, VersionRow.number, VersionRow.base_id, VersionRow.yanked_at.is_not(None)).where(
    VersionRow.adapter_id == bindparam("adapter"), VersionRow.digest == bindparam("digest")
)
_NEWEST = select(func.coalesce(func.max(VersionRow.number), 0)).where(VersionRow.adapter_id == bindparam("adapter"))
_VERSION = insert(VersionRow).values(number=_NEWEST.scalar_subquery() + 1).returning(VersionRow.id)


def record(tx: Transaction, draft: NewVersion, guard: ChangePolicy = _NO_POLICY) -> tuple[VersionRecord, bool]:
    """Record a version whose blobs are all stored; False if this adapter had this very content already.

    Tasks, labels, metrics and aliases of the draft are recorded in both cases. ``guard`` is asked for each of the
    aliases while all of them mean what they meant before; what it raises refuses the version. Raises ConflictError
    if the content is known as a version that was yanked, or with another base; a base that was unknown is filled in.
    """
    adapter_id = _adapter_for_update(tx, draft.adapter)
    base_id = base_id_of(tx, draft.base.digest) if draft.base else None
    known = tx.rows(_KNOWN, adapter=adapter_id, digest=draft.manifest.digest)
    if not known:
        version_id = _insert_version(tx, adapter_id, base_id, draft)
    else:
        ((version_id, number, known_base_id, yanked),) = known
        other_base = base_id is not None and known_base_id not in (None, base_id)
        _refuse_if_not_the_same(f"{draft.adapter}:v{number}", yanked=yanked, other_base=other_base)
        if base_id is not None and known_base_id is None:
            filled = update(VersionRow).where(VersionRow.id == version_id)
            tx.connection.execute(filled.values(base_id=base_id, target=draft.target))
            digest = draft.base.digest if draft.base else ""
            tx.connection.execute(update(TaskRow).where(TaskRow.version_id == version_id).values(base=digest))
            tx.log("base", adapter_id, version_id, digest=digest)
    described = {**_add_tasks(tx, version_id, draft.tasks), **_set_labels(tx, version_id, draft.labels)}
    if known and described:
        tx.log("describe", adapter_id, version_id, **described)
    if known and draft.metrics:
        guard.check_metrics(VersionRecord(version_id, adapter_id, by_id(tx, version_id)), draft.metrics)
    for metric in sorted(draft.metrics, key=lambda m: (m.name, m.dataset, m.split)):
        metrics.put(tx, adapter_id, version_id, metric)
    for alias in draft.aliases:
        guard.check_alias(VersionRecord(version_id, adapter_id, by_id(tx, version_id)), alias)
    for alias in draft.aliases:
        aliases.set_alias(tx, adapter_id, version_id, alias)
    return VersionRecord(version_id, adapter_id, by_id(tx, version_id)), not known


def resolve(tx: Transaction, ref: Ref) -> VersionRecord:
    """The version that ``ref`` means: its alias, its number, its digest, or else the newest not yanked.

    Raises NotFoundError, naming what is there instead, and ConflictError if the digest in the ref is not that
    of the version which the rest of the ref means.
    """
    return find_version(tx, ref, select_version)[0]


def find_version(tx: Transaction, ref: Ref, statement: Callable[[bool, str], Select[Any]]) -> tuple[VersionRecord, Any]:
    """What ``statement``, :func:`located` or that with a column more, finds for ``ref``, and what is in that column.

    Raises what :func:`resolve` raises.
    """
    by = "number" if ref.number else "alias" if ref.alias else "digest" if ref.digest else "newest"
    digest, digest_end = digest_range(ref.digest or "")
    rows = tx.rows(
        statement(tx.sees_all, by),
        namespace=ref.adapter.namespace,
        name=ref.adapter.name,
        number=ref.number,
        alias=ref.alias,
        digest=digest,
        digest_end=digest_end,
    )
    if not rows:
        raise _nothing_for(tx, ref, find_adapter_id(tx, ref.adapter))
    (row,) = rows
    found = to_version_record(row[0])
    version = found.version
    if ref.alias is not None and version.yanked:
        raise NotFoundError(
            f"alias {ref.alias!r} of {ref.adapter} points to v{version.number}, which is yanked",
            hint=f"loreg tag {ref.adapter} {ref.alias}",
        )
    if ref.digest is not None and not version.digest.startswith(ref.digest):
        raise ConflictError(
            f"{ref} is not what it was: {version.ref} has digest sha256:{version.digest[: len(ref.digest)]}",
            hint=f"loreg show {ref.adapter}@sha256:{ref.digest}",
        )
    return found, row[-1]


@functools.cache
def select_version(sees_all: bool, by: str) -> Select[Any]:
    """Select the version of an adapter by its number, alias or digest, or the newest that is not yanked."""
    query = select_versions().where(
        AdapterRow.namespace == bindparam("namespace"),
        AdapterRow.name == bindparam("name"),
        visible_to(sees_all, AdapterRow.namespace),
    )
    if by == "number":
        query = query.where(VersionRow.number == bindparam("number"))
    elif by == "alias":
        query = query.join(AliasRow, AliasRow.version_id == VersionRow.id).where(
            AliasRow.adapter_id == AdapterRow.id, AliasRow.alias == bindparam("alias")
        )
    elif by == "digest":
        query = query.where(VersionRow.digest >= bindparam("digest"), VersionRow.digest < bindparam("digest_end"))
    else:
        query = query.where(VersionRow.yanked_at.is_(None))
    return query.order_by(VersionRow.number.desc()).limit(1)


def by_id(tx: Transaction, version_id: int) -> Version:
    """The version of that row."""
    ((document,),) = tx.rows(_BY_ID, id=version_id)
    return to_version(document)


def find_by_digest(tx: Transaction, digest: str) -> Version | None:
    """A version of any adapter with exactly this content, the oldest; None if there is none."""
    seen = tx.visible(AdapterRow.namespace)
    query = select_versions().where(VersionRow.digest == digest, seen).order_by(VersionRow.id).limit(1)
    document = tx.connection.execute(query).scalar()
    return to_version(document) if document is not None else None


def refs_with_file(tx: Transaction, sha256: str) -> tuple[str, ...]:
    """The refs of the versions that have a file with this content, the oldest first, and so many at most."""
    holding = select(FileRow.version_id).where(FileRow.digest == sha256)
    query = (
        select(AdapterRow.namespace, AdapterRow.name, VersionRow.number)
        .join_from(VersionRow, AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(VersionRow.id.in_(holding), tx.visible(AdapterRow.namespace))
        .order_by(VersionRow.id)
        .limit(_MAX_COPIES)
    )
    rows = tx.connection.execute(query)
    return tuple(f"{AdapterName(namespace, name)}:v{number}" for namespace, name, number in rows)


def read_card(tx: Transaction, found: VersionRecord) -> str:
    """The text of the version's README.md, as far as the catalog keeps it."""
    return tx.connection.execute(select(VersionRow.card).where(VersionRow.id == found.id)).scalar_one()


def find_adapter_id(tx: Transaction, adapter: AdapterName) -> int:
    """The row of an adapter. Raises NotFoundError, naming the closest name that there is."""
    same = (AdapterRow.namespace == adapter.namespace) & (AdapterRow.name == adapter.name)
    found = tx.connection.execute(select(AdapterRow.id).where(same, tx.visible(AdapterRow.namespace))).scalar()
    if found is not None:
        return found
    close = difflib.get_close_matches(str(adapter), _similar_names(tx, adapter), 1)
    raise NotFoundError(
        f"there is no adapter {str(adapter)!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        hint="loreg ls",
    )


def _similar_names(tx: Transaction, adapter: AdapterName) -> list[str]:
    """Names that a person may have meant: the next ones in the namespace, and that name in other namespaces."""
    names = select(AdapterRow.namespace, AdapterRow.name).where(tx.visible(AdapterRow.namespace))
    beside, name = names.where(AdapterRow.namespace == adapter.namespace), AdapterRow.name
    found = union_all(
        *(
            select(some.limit(_NEIGHBOURS).subquery())
            for some in (
                beside.where(name > adapter.name).order_by(name),
                beside.where(name < adapter.name).order_by(name.desc()),
                names.where(name == adapter.name),
            )
        )
    )
    return [str(AdapterName(*row)) for row in tx.connection.execute(found)]


def lock_adapter(tx: Transaction, adapter_id: int) -> None:
    """Keep others from changing the adapter's versions and aliases until the transaction ends."""
    row = select(AdapterRow.id).where(AdapterRow.id == adapter_id)
    tx.connection.execute(row.with_for_update(key_share=True))  # what only refers to the adapter need not wait


def lock_adapter_name(tx: Transaction, adapter: AdapterName, *, make: bool) -> None:
    """Keep others from changing what that adapter has, which need not be there; with ``make`` it is, even so."""
    if make:
        _adapter_for_update(tx, adapter)
        return
    same = (AdapterRow.namespace == adapter.namespace) & (AdapterRow.name == adapter.name)
    tx.connection.execute(select(AdapterRow.id).where(same).with_for_update(key_share=True))


def set_yanked(tx: Transaction, found: VersionRecord, yanked: bool, reason: str = "") -> Version:
    """Hide a version from search and alias, or show it again. Nothing happens if it is so already."""
    other = VersionRow.yanked_at.is_(None) if yanked else VersionRow.yanked_at.is_not(None)
    change = update(VersionRow).where(VersionRow.id == found.id, other)
    if tx.connection.execute(change.values(yanked_at=tx.at if yanked else None)).rowcount:
        tx.log("yank" if yanked else "unyank", found.adapter_id, found.id, reason=reason)
    return by_id(tx, found.id)


def _adapter_for_update(tx: Transaction, adapter: AdapterName) -> int:
    """The adapter's row, made if need be and locked, so that numbers are given out one at a time."""
    row = {"namespace": adapter.namespace, "name": adapter.name, "created_at": tx.at}
    return tx.get_or_create_locked(AdapterRow, row, "namespace", "name")


def _insert_version(tx: Transaction, adapter_id: int, base_id: int | None, draft: NewVersion) -> int:
    facts = draft.facts
    values = {
        "adapter_id": adapter_id,
        "digest": draft.manifest.digest,
        "base_id": base_id,
        "target": draft.target,
        "base_hint": facts.base_hint,
        "variant": facts.variant,
        "task_type": facts.task_type,
        "rank_min": facts.rank_min,
        "rank_max": facts.rank_max,
        "alpha": facts.alpha,
        "parameters": facts.parameters,
        "bytes": draft.manifest.size,
        "dtype": facts.dtype,
        "author": tx.author,
        "message": draft.message,
        "card": draft.card,
        "created_at": tx.at,
    }
    ((version_id,),) = tx.rows(_VERSION, adapter=adapter_id, **values)
    tx.insert_missing(
        ModuleTypeRow,
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
    blobs.record(tx, {file.sha256: file.size for file in draft.manifest.files})
    tx.insert_missing(
        FileRow,
        [
            {"version_id": version_id, "path": file.path, "digest": file.sha256, "size": file.size}
            for file in draft.manifest.files
        ],
    )
    if draft.provenance:
        lineage.record(tx, version_id, draft.provenance)
    tx.log("push", adapter_id, version_id, digest=draft.manifest.digest)
    return int(version_id)


def _add_tasks(tx: Transaction, version_id: int, tasks: Iterable[str]) -> dict[str, Any]:
    """Say what the version is for; returns what it was not said to be for yet."""
    there = select(TaskRow.task).where(TaskRow.version_id == version_id)
    new = sorted(set(tasks) - set(tx.connection.execute(there).scalars())) if tasks else []
    if rows := [{"version_id": version_id, "task": task} for task in new]:
        base = (
            select(func.coalesce(BaseRow.digest, VersionRow.base_hint))
            .join_from(VersionRow, BaseRow, BaseRow.id == VersionRow.base_id, isouter=True)
            .where(VersionRow.id == version_id)
        )
        known = tx.connection.execute(base).scalar_one()
        tx.insert_missing(TaskRow, [{**row, "base": known} for row in rows])
    return {"tasks": new} if new else {}


def _set_labels(tx: Transaction, version_id: int, labels: Mapping[str, str]) -> dict[str, Any]:
    """Set labels; returns those that were not so before, and what they were."""
    if not labels:
        return {}
    there = select(LabelRow.key, LabelRow.value).where(LabelRow.version_id == version_id)
    before = {row.key: row.value for row in tx.connection.execute(there)}
    new = {key: value for key, value in sorted(labels.items()) if before.get(key) != value}
    for key, value in new.items():
        tx.upsert(LabelRow, {"version_id": version_id, "key": key, "value": value})
    replaced = {key: before[key] for key in new if key in before}
    return {"labels": new, **({"labels_before": replaced} if replaced else {})} if new else {}


def _refuse_if_not_the_same(ref: str, *, yanked: bool, other_base: bool) -> None:
    if yanked:
        raise ConflictError(f"this content is {ref}, which was yanked", hint=f"loreg unyank {ref}")
    if other_base:
        raise ConflictError(
            f"this content is {ref} already, recorded with another base",
            hint="push it under another name with the base that it was trained on",
        )


def _nothing_for(tx: Transaction, ref: Ref, adapter_id: int) -> NotFoundError:
    if ref.alias:
        known = ", ".join(sorted(aliases.list_aliases(tx, adapter_id))) or "none"
        return NotFoundError(
            f"{ref.adapter} has no alias {ref.alias!r}; it has: {known}", hint=f"loreg ls {ref.adapter}"
        )
    if ref.number or ref.digest:
        return NotFoundError(f"there is no version {ref}", hint=f"loreg ls {ref.adapter}")
    return NotFoundError(f"every version of {ref.adapter} is yanked", hint=f"loreg unyank {ref.adapter}:vN")
