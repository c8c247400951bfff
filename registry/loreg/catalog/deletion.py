"""Remove a version from the catalog: all of its rows go, a tombstone stays, and what happened keeps its events."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec
from msgspec.structs import replace
from sqlalchemy import delete, literal, select, update

from loreg.catalog import (
    aliases,
    canaries,
    collection,
    exports,
    pending_uploads,
    promotions,
    references,
    search_text,
    tombstones,
)
from loreg.catalog.schema import (
    adapter_table,
    alias_move_table,
    base_table,
    blob_table,
    deployment_table,
    event_table,
    export_file_table,
    export_table,
    fact_table,
    file_table,
    finding_table,
    label_table,
    lineage_table,
    merge_table,
    metric_table,
    module_type_table,
    sketch_table,
    task_table,
    upgrade_verdict_table,
    upload_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.entities import Deletion, SharedBlob, Tombstone
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName

_BATCH = 1000  # digests in one statement
_MAX_LISTED = 100  # blobs that others have, or versions that were merged from it
_CHILDREN = (
    module_type_table, task_table, label_table, metric_table, file_table, sketch_table, deployment_table, fact_table,
    finding_table, upgrade_verdict_table,
)  # fmt: skip


class Removal(msgspec.Struct, frozen=True):
    """What was removed, and the ids of the uploads whose bytes must go too."""

    deletion: Deletion
    upload_ids: tuple[str, ...]


def remove_for_good(tx: Transaction, record: VersionRecord, weights_path: str, reason: str) -> Removal:
    """Remove a version and ban its content; mark the blobs that nothing refers to any more as deleted.

    Call it with the adapter locked, and what is referred to locked against whoever adds to it
    (:func:`loreg.catalog.garbage.lock`): so nobody commits the content at the same moment. ``weights_path`` is how the
    file of the weights is called.
    """
    version = record.version
    sizes = _sizes_of(tx, record)
    profiles = tuple(
        tx.connection.execute(
            select(export_table.c.profile).where(export_table.c.version_id == record.id).order_by(export_table.c.id)
        ).scalars()
    )
    children = _refs_of_children(tx, record)
    weights = remove(tx, record, weights_path, reason, is_banned=True)
    tx.log("delete", record.adapter_id, None, number=version.number, digest=version.digest, reason=reason)
    discarded = _discard_with_file(tx, weights)
    return _mark(tx, version.ref, version.digest, sizes, version.aliases, profiles, children, discarded)


def remove_rest(
    tx: Transaction, adapter: AdapterName, tombstone: Tombstone, sizes: Mapping[str, int], reason: str
) -> Removal:
    """Mark what is left of a version that is gone already, blobs of these ``sizes`` by digest; ban its content."""
    adapter_id = tx.connection.execute(
        select(adapter_table.c.id).where(
            adapter_table.c.namespace == adapter.namespace, adapter_table.c.name == adapter.name
        )
    ).scalar_one()
    weights = "" if _is_file_of_others(tx, tombstone.weights) else tombstone.weights
    if not tombstone.is_banned:
        tombstones.ban(tx, adapter_id, replace(tombstone, weights=weights), reason)
        tx.log("delete", adapter_id, None, number=tombstone.number, digest=tombstone.digest, reason=reason)
    discarded = _discard_with_file(tx, weights)
    return _mark(tx, f"{adapter}:v{tombstone.number}", tombstone.digest, sizes, (), (), (), discarded)


def remove(tx: Transaction, record: VersionRecord, weights_path: str, reason: str, *, is_banned: bool) -> str:
    """Remove the rows of a version and leave a tombstone; return the digest of its weights if no other has them.

    Its events keep who did what and when, and of the rest its number alone.
    """
    version_id, adapter_id, version = record.id, record.adapter_id, record.version
    weights = _find_own_weights(tx, version_id, weights_path)
    for alias in version.aliases:
        aliases.remove_alias(tx, adapter_id, alias)
    canaries.end_of_version(tx, version_id, "the version was removed")
    promotions.end_of_version(tx, version_id, f"v{version.number} was removed")
    connection = tx.connection
    of_moves = (alias_move_table.c.adapter_id == adapter_id) & (alias_move_table.c.version_id == version_id)
    connection.execute(update(alias_move_table).where(of_moves).values(version_id=None))
    of_events = (event_table.c.adapter_id == adapter_id) & (event_table.c.version_id == version_id)
    connection.execute(update(event_table).where(of_events).values(version_id=None, detail={"number": version.number}))
    of_exports = select(export_table.c.id).where(export_table.c.version_id == version_id)
    connection.execute(delete(export_file_table).where(export_file_table.c.export_id.in_(of_exports)))
    connection.execute(delete(export_table).where(export_table.c.version_id == version_id))
    connection.execute(delete(lineage_table).where(lineage_table.c.child_id == version_id))
    connection.execute(delete(merge_table).where(merge_table.c.version_id == version_id))
    for table in _CHILDREN:
        connection.execute(delete(table).where(table.c.version_id == version_id))
    search_text.remove(connection, version_id)
    connection.execute(delete(version_table).where(version_table.c.id == version_id))
    tombstone = Tombstone(version.number, version.digest, weights, is_banned, reason, tx.author, tx.at)
    tombstones.put(tx, adapter_id, tombstone)
    return weights


def _discard_with_file(tx: Transaction, weights: str) -> tuple[str, ...]:
    """Remove exports and pending uploads of others with this file, which is banned; return the names of the uploads."""
    if not weights:
        return ()
    exports.remove_with_file(tx, weights)
    return tuple(pending_uploads.discard_with_file(tx, weights))


def has_content(tx: Transaction, digest: str) -> bool:
    """Return whether any version has this manifest."""
    return tx.connection.execute(select(version_table.c.id).where(version_table.c.digest == digest)).first() is not None


def _mark(
    tx: Transaction,
    ref: str,
    digest: str,
    sizes: Mapping[str, int],
    alias_names: tuple[str, ...],
    profiles: tuple[str, ...],
    children: tuple[str, ...],
    discarded: tuple[str, ...],
) -> Removal:
    upload_ids = tuple(_forget_uploads(tx, sizes.keys()))
    unreferenced: set[str] = set()
    for batch in _batches(sizes):
        unreferenced |= references.find_unreferenced(tx, batch)
    collection.mark_deleted(tx, {item: sizes[item] for item in sorted(unreferenced)})
    shared = sorted(sizes.keys() - unreferenced)
    owners = references.find_owners(tx, shared[:_MAX_LISTED])
    deletion = Deletion(
        ref=ref,
        digest=digest,
        blobs=len(unreferenced),
        size=sum(sizes[item] for item in unreferenced),
        aliases=alias_names,
        exports=profiles,
        children=children,
        pending_uploads=discarded,
        shared=tuple(SharedBlob(item, sizes[item], owners[item]) for item in shared[:_MAX_LISTED] if item in owners),
        shared_count=len(shared),
    )
    return Removal(deletion, upload_ids)


def _batches(digests: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(digests)
    return (ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH))


def _sizes_of(tx: Transaction, record: VersionRecord) -> dict[str, int]:
    """Return the sizes of a version's blobs by digest: its files, its manifest and those of its exports."""
    of_files = select(file_table.c.path, file_table.c.digest, file_table.c.size)
    rows = tx.connection.execute(of_files.where(file_table.c.version_id == record.id)).all()
    of_exports = (
        select(export_file_table.c.digest, blob_table.c.size)
        .join(export_table, export_table.c.id == export_file_table.c.export_id)
        .join(blob_table, blob_table.c.digest == export_file_table.c.digest)
        .where(export_table.c.version_id == record.id)
    )
    manifest = Manifest(tuple(File(*row) for row in rows))
    sizes = {record.version.digest: len(manifest.to_bytes())}
    sizes |= {row.digest: row.size for row in rows}
    return sizes | {row.digest: row.size for row in tx.connection.execute(of_exports)}


def _find_own_weights(tx: Transaction, version_id: int, path: str) -> str:
    """Return the digest of a version's weights; empty if another version has a file with the same content."""
    is_file = (file_table.c.version_id == version_id) & (file_table.c.path == path)
    digest = tx.connection.execute(select(file_table.c.digest).where(is_file)).scalar() or ""
    return "" if _is_file_of_others(tx, digest, version_id) else digest


def _is_file_of_others(tx: Transaction, digest: str, version_id: int = 0) -> bool:
    """Return whether a version other than that with the id ``version_id`` has a file of this content."""
    others = select(literal(1)).where(file_table.c.digest == digest, file_table.c.version_id != version_id).limit(1)
    return tx.connection.execute(others).first() is not None


def _refs_of_children(tx: Transaction, record: VersionRecord) -> tuple[str, ...]:
    """Return the refs of versions that were merged from this one."""
    query = (
        select(adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
        .join_from(lineage_table, version_table, version_table.c.id == lineage_table.c.child_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(lineage_table.c.parent_digest == record.version.digest, version_table.c.id != record.id)
        .distinct()
        .order_by(adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
        .limit(_MAX_LISTED)
    )
    rows = tx.connection.execute(query)
    return tuple(f"{AdapterName(row.namespace, row.name)}:v{row.number}" for row in rows)


def _forget_uploads(tx: Transaction, digests: Collection[str]) -> Iterator[str]:
    """Forget the uploads of blobs that only uploads refer to; yield their ids."""
    recorded = [
        select(literal(1)).where(column == upload_table.c.digest).exists()
        for column in (file_table.c.digest, export_file_table.c.digest, base_table.c.digest)
    ]
    for batch in _batches(digests):
        statement = delete(upload_table).where(upload_table.c.digest.in_(batch), *(~exists for exists in recorded))
        yield from tx.connection.execute(statement.returning(upload_table.c.id)).scalars().all()
