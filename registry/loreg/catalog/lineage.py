"""Lineage: record what a merged version was made from; list ancestors and descendants in one recursive statement."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, bindparam, exists, func, insert, literal, select

from loreg.catalog.hidden_sources import hide_in_edges
from loreg.catalog.schema import adapter_table, lineage_table, merge_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import LineageEdge, Provenance, Source
from loreg.refs import AdapterName

_MAX_DEPTH = 64
_HAS_CHILDREN = select(exists().where(lineage_table.c.parent_digest == bindparam("digest")))


def record(tx: Transaction, version_id: int, provenance: Provenance) -> None:
    """Record the recipe and certificate of a merged version, and an edge to each of its sources."""
    documents = {"recipe": dict(provenance.recipe), "certificate": dict(provenance.certificate)}
    tx.connection.execute(insert(merge_table).values(version_id=version_id, **documents))
    edges = [
        {
            "child_id": version_id,
            "position": position,
            "parent_digest": source.digest,
            "parent_label": source.label,
            "weight": source.weight,
        }
        for position, source in enumerate(provenance.sources)
    ]
    tx.connection.execute(insert(lineage_table), edges)


def list_ancestors(tx: Transaction, version_id: int) -> tuple[LineageEdge, ...]:
    """Return every edge above a version, nearest first, 64 generations at most; versions are found by digest."""
    walk = (
        select(version_table.c.id.label("child_id"), literal(1).label("depth"))
        .where(version_table.c.id == version_id)
        .cte("walk", recursive=True)
    )
    walk = walk.union(
        select(version_table.c.id, walk.c.depth + 1)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .join(lineage_table, lineage_table.c.parent_digest == version_table.c.digest)
        .join(walk, walk.c.child_id == lineage_table.c.child_id)
        .where(walk.c.depth < _MAX_DEPTH, tx.visible(adapter_table.c.namespace))
    )
    reached = select(walk.c.child_id, func.min(walk.c.depth).label("depth")).group_by(walk.c.child_id).subquery()
    # One content may be pushed under several names: the first of them stands for it.
    first = (
        select(version_table.c.digest, func.min(version_table.c.id).label("id"))
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(tx.visible(adapter_table.c.namespace))
        .group_by(version_table.c.digest)
        .subquery()
    )
    child, parent = version_table.alias("child"), version_table.alias("parent")
    child_of, parent_of = adapter_table.alias("child_of"), adapter_table.alias("parent_of")
    query = (
        select(
            child_of.c.namespace,
            child_of.c.name,
            child.c.number,
            lineage_table.c.parent_label,
            lineage_table.c.parent_digest,
            lineage_table.c.weight,
            reached.c.depth,
            parent_of.c.namespace.label("parent_namespace"),
            parent_of.c.name.label("parent_name"),
            parent.c.number.label("parent_number"),
        )
        .select_from(reached)
        .join(lineage_table, lineage_table.c.child_id == reached.c.child_id)
        .join(child, child.c.id == reached.c.child_id)
        .join(child_of, child_of.c.id == child.c.adapter_id)
        .outerjoin(first, first.c.digest == lineage_table.c.parent_digest)
        .outerjoin(parent, parent.c.id == first.c.id)
        .outerjoin(parent_of, parent_of.c.id == parent.c.adapter_id)
        .order_by(reached.c.depth, lineage_table.c.child_id, lineage_table.c.position)
    )
    edges = [
        LineageEdge(
            child=f"{AdapterName(row.namespace, row.name)}:v{row.number}",
            parent=Source(row.parent_label, row.parent_digest, row.weight),
            parent_ref=f"{AdapterName(row.parent_namespace, row.parent_name)}:v{row.parent_number}"
            if row.parent_number
            else "",
            depth=row.depth,
        )
        for row in tx.connection.execute(query)
    ]
    return hide_in_edges(tx, edges)


def list_descendants(tx: Transaction, digest: str, limit: int) -> tuple[LineageEdge, ...]:
    """Return up to ``limit`` edges below the content with this digest, nearest first, each from a child to its parent.

    What the caller may not read is left out, and what was made of it.
    """
    # Of most versions nothing was made: a recursion is planned for many, and took 5 ms to find none.
    if not tx.connection.execute(_HAS_CHILDREN, {"digest": digest}).scalar():
        return ()
    child, child_of = version_table.alias("child"), adapter_table.alias("child_of")
    made = (
        select(
            lineage_table.c.child_id,
            lineage_table.c.position,
            lineage_table.c.parent_digest,
            child.c.digest.label("child_digest"),
            child_of.c.namespace,
            child_of.c.name,
            child.c.number,
        )
        .join(child, child.c.id == lineage_table.c.child_id)
        .join(child_of, child_of.c.id == child.c.adapter_id)
        .where(tx.visible(child_of.c.namespace))
    )
    nearest = made.add_columns(literal(1).label("depth")).where(lineage_table.c.parent_digest == digest)
    walk = nearest.cte("walk", recursive=True)
    below = made.add_columns(walk.c.depth + 1).join(walk, walk.c.child_digest == lineage_table.c.parent_digest)
    walk = walk.union(below.where(walk.c.depth < _MAX_DEPTH))
    depth = func.min(walk.c.depth)
    query = (
        select(walk.c.namespace, walk.c.name, walk.c.number, depth.label("depth"), lineage_table)
        .join(
            lineage_table,
            and_(lineage_table.c.child_id == walk.c.child_id, lineage_table.c.position == walk.c.position),
        )
        .group_by(walk.c.namespace, walk.c.name, walk.c.number, *lineage_table.c)
        .order_by(depth, lineage_table.c.child_id, lineage_table.c.position)
        .limit(limit)
    )
    rows = tx.connection.execute(query).all()
    names = _first_names(tx, {row.parent_digest for row in rows})
    edges = [
        LineageEdge(
            child=f"{AdapterName(row.namespace, row.name)}:v{row.number}",
            parent=Source(row.parent_label, row.parent_digest, row.weight),
            parent_ref=names.get(row.parent_digest, ""),
            depth=row.depth,
        )
        for row in rows
    ]
    return hide_in_edges(tx, edges)


def _first_names(tx: Transaction, digests: Collection[str]) -> dict[str, str]:
    """Return the ref of the oldest readable version with each of these digests, by digest."""
    query = (
        select(version_table.c.digest, adapter_table.c.namespace, adapter_table.c.name, version_table.c.number)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.digest.in_(digests), tx.visible(adapter_table.c.namespace))
        .order_by(version_table.c.id.desc())
    )
    rows = tx.connection.execute(query)
    return {row.digest: f"{AdapterName(row.namespace, row.name)}:v{row.number}" for row in rows}
