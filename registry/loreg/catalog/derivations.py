"""How bases derive from one another: record and follow edges that a user declared, or that two contents prove."""

from __future__ import annotations

from collections import deque

from sqlalchemy import or_, select

from loreg.catalog.bases import find_base_id, is_visible
from loreg.catalog.schema import base_edge_table, base_table
from loreg.catalog.transaction import Transaction
from loreg.entities import BaseEdge, BaseRelation


def record(tx: Transaction, edge: BaseEdge) -> BaseEdge:
    """Record an edge between two recorded bases, in place of one of the same kind; return it with its author."""
    key = {"child_id": find_base_id(tx, edge.child), "parent_id": find_base_id(tx, edge.parent), "kind": edge.kind}
    values = {"detail": dict(edge.detail), "verified": edge.verified, "author": tx.author, "created_at": tx.at}
    tx.upsert(base_edge_table, {**key, **values})
    tx.log("base relate", None, None, child=edge.child, parent=edge.parent, kind=edge.kind, how=dict(edge.detail))
    return BaseEdge(edge.child, edge.parent, edge.kind, edge.detail, edge.verified, tx.author)


def shortest_path(tx: Transaction, start: str, end: str) -> tuple[BaseEdge, ...]:
    """Return the fewest edges, in either direction, that lead from one base's digest to another's; empty if none do.

    Among edges that lead to the same base in as many steps, a verified one is taken.
    """
    paths: dict[str, tuple[BaseEdge, ...]] = {start: ()}
    queue = deque([start])
    while queue and end not in paths:
        digest = queue.popleft()
        for edge in sorted(list_edges(tx, digest), key=lambda edge: not edge.verified):
            neighbor = edge.parent if edge.child == digest else edge.child
            if neighbor not in paths:
                paths[neighbor] = (*paths[digest], edge)
                queue.append(neighbor)
    return paths.get(end, ())


def list_edges(tx: Transaction, digest: str) -> tuple[BaseEdge, ...]:
    """Return the edges that begin or end at the base with this digest."""
    child, parent = base_table.alias("child"), base_table.alias("parent")
    query = (
        select(base_edge_table, child.c.digest.label("child"), parent.c.digest.label("parent"))
        .join(child, child.c.id == base_edge_table.c.child_id)
        .join(parent, parent.c.id == base_edge_table.c.parent_id)
        .where(or_(child.c.digest == digest, parent.c.digest == digest))
        .where(is_visible(tx, child.c.id), is_visible(tx, parent.c.id))
        .order_by(base_edge_table.c.created_at, base_edge_table.c.kind)
    )
    return tuple(
        BaseEdge(row.child, row.parent, BaseRelation(row.kind), row.detail, bool(row.verified), row.author)
        for row in tx.connection.execute(query)
    )
