"""Sketches of versions: record them, and find versions by what is in their weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, or_, select

from loreg.catalog.bases import digest_range
from loreg.catalog.patterns import is_match
from loreg.catalog.schema import (
    adapter_table,
    file_table,
    sketch_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import select_versions, to_version_record
from loreg.entities import Candidate, HashKind, Sketch, Version
from loreg.refs import AdapterName, AdapterPattern

_MAX_TWINS = 100  # versions that have the same signs
_BATCH = 1000  # ids in one statement
_SIGNS = (sketch_table.c.signs_1, sketch_table.c.signs_2, sketch_table.c.signs_3, sketch_table.c.signs_4)

Signs = tuple[int, ...]


class SignRow(msgspec.Struct, frozen=True):
    """The signs of a sketch, with the ids of its row and of its version, and the version's namespace."""

    id: int
    version_id: int
    namespace: str
    signs: tuple[Any, ...]


def record(tx: Transaction, version_id: int, sketch: Sketch, signs: Signs) -> bool:
    """Record the sketch of a version unless it has one; return whether it had none.

    ``signs`` are those of its numbers, four integers; none where it has no vector.
    """
    columns = {column.name: word for column, word in zip(_SIGNS, signs or (None,) * len(_SIGNS), strict=True)}
    values = {"version_id": version_id, **msgspec.structs.asdict(sketch), **columns}
    return tx.insert_if_missing(sketch_table, values)


def find_all(tx: Transaction, version_ids: Collection[int]) -> dict[int, Sketch]:
    """Return the sketches of versions, by their ids."""
    sketches: dict[int, Sketch] = {}
    ids = sorted(version_ids)
    for start in range(0, len(ids), _BATCH):
        query = select(sketch_table).where(sketch_table.c.version_id.in_(ids[start : start + _BATCH]))
        sketches |= {row.version_id: Sketch(row.data, row.norm, row.vector) for row in tx.connection.execute(query)}
    return sketches


def read_vectors(tx: Transaction, version_ids: Collection[int]) -> dict[int, str]:
    """Return the texts of the numbers of versions' sketches, by their ids."""
    vectors: dict[int, str] = {}
    ids = sorted(version_ids)
    for start in range(0, len(ids), _BATCH):
        query = select(sketch_table.c.version_id, sketch_table.c.vector)
        rows = tx.connection.execute(query.where(sketch_table.c.version_id.in_(ids[start : start + _BATCH])))
        vectors |= {version_id: vector for version_id, vector in rows if vector}
    return vectors


def find_by_hash(tx: Transaction, prefix: str, limit: int) -> dict[int, tuple[HashKind, ...]]:
    """Return the ids of versions with a hash that begins so: of the manifest, a file, or the tensors; oldest first."""
    first, end = digest_range(prefix)
    kinds: dict[int, tuple[HashKind, ...]] = {}
    versions = select(version_table.c.id).join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    versions = versions.where(tx.visible(adapter_table.c.namespace)).order_by(version_table.c.id).limit(limit)
    for kind, column, version_id in (
        (HashKind.MANIFEST, version_table.c.digest, version_table.c.id),
        (HashKind.FILE, file_table.c.digest, file_table.c.version_id),
        (HashKind.DATA, sketch_table.c.data, sketch_table.c.version_id),
    ):
        matching = select(version_id).where(column >= first, column < end)
        for row_id in tx.connection.execute(versions.where(version_table.c.id.in_(matching))).scalars():
            kinds[row_id] = (*kinds.get(row_id, ()), kind)
    return dict(sorted(kinds.items())[:limit])


def find_twins(tx: Transaction, signs: Signs) -> tuple[int, ...]:
    """Return the ids of versions whose first or second 64 signs are these or their opposite, oldest first.

    That are those whose deltas are the same up to a factor and rounding; strangers hardly ever.
    """
    same = [column.in_([word, ~word]) for column, word in zip(_SIGNS[:2], signs[:2], strict=True)]
    query = (
        select(sketch_table.c.version_id)
        .join(version_table, version_table.c.id == sketch_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(or_(*same), tx.visible(adapter_table.c.namespace))
        .order_by(sketch_table.c.version_id)
        .limit(_MAX_TWINS)
    )
    return tuple(tx.connection.execute(query).scalars())


def read_candidates(tx: Transaction, kinds: Mapping[int, tuple[HashKind, ...]]) -> tuple[Candidate, ...]:
    """Return the versions with these ids that the caller may read, in this order, with their sketches."""
    query = select_versions().where(version_table.c.id.in_(list(kinds)), tx.visible(adapter_table.c.namespace))
    records = [to_version_record(document) for document in tx.connection.execute(query).scalars()]
    versions = {record.id: record.version for record in records}
    sketches = find_all(tx, versions)
    return tuple(
        Candidate(versions[row_id], hashes, sketches.get(row_id))
        for row_id, hashes in kinds.items()
        if row_id in versions
    )


def read_refs(tx: Transaction, version_ids: Collection[int]) -> dict[int, str]:
    """Return the refs of the versions with these ids that the caller may read, by their ids."""
    refs: dict[int, str] = {}
    ids = sorted(version_ids)
    columns = (version_table.c.id, adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
    query = select(*columns).join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    query = query.where(tx.visible(adapter_table.c.namespace))
    for start in range(0, len(ids), _BATCH):
        rows = tx.connection.execute(query.where(version_table.c.id.in_(ids[start : start + _BATCH])))
        refs |= {row_id: f"{AdapterName(namespace, name)}:v{number}" for row_id, namespace, name, number in rows}
    return refs


def find_matching(tx: Transaction, pattern: AdapterPattern, limit: int) -> list[tuple[int, Sketch]]:
    """Return the ids and sketches of the versions that match, may be read and are not yanked, oldest first."""
    query = (
        select(sketch_table)
        .join(version_table, version_table.c.id == sketch_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(is_match(tx, pattern), tx.visible(adapter_table.c.namespace), version_table.c.yanked_at.is_(None))
        .where(sketch_table.c.signs_1.is_not(None))
        .order_by(sketch_table.c.version_id)
        .limit(limit)
    )
    rows = tx.connection.execute(query)
    return [(row.version_id, Sketch(row.data, row.norm, row.vector)) for row in rows]


def list_signs(tx: Transaction, after: int, limit: int) -> list[SignRow]:
    """Return the signs of all sketches whose rows have a higher id than ``after``, in the order of the ids."""
    query = (
        select(sketch_table.c.id, sketch_table.c.version_id, adapter_table.c.namespace, *_SIGNS)
        .join(version_table, version_table.c.id == sketch_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(sketch_table.c.id > after, sketch_table.c.signs_1.is_not(None))
        .order_by(sketch_table.c.id)
        .limit(limit)
    )
    return [SignRow(row[0], row[1], row[2], tuple(row[3:])) for row in tx.connection.execute(query).all()]


def count_unsketched(tx: Transaction) -> int:
    """Return how many versions have no sketch."""
    return tx.connection.execute(select(func.count()).select_from(version_table).where(_has_none())).scalar_one()


def list_unsketched(tx: Transaction, after: int, limit: int) -> list[tuple[int, Version]]:
    """Return versions that have no sketch, and their ids, from the one after ``after`` on."""
    query = select_versions().where(version_table.c.id > after, _has_none()).order_by(version_table.c.id).limit(limit)
    records = (to_version_record(document) for document in tx.connection.execute(query).scalars())
    return [(record.id, record.version) for record in records]


def _has_none() -> ColumnElement[bool]:
    return ~select(sketch_table.c.id).where(sketch_table.c.version_id == version_table.c.id).exists()
