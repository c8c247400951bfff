"""How bases came from one another: edges that somebody declared, or that two contents prove."""

from __future__ import annotations

from collections import deque

from sqlalchemy import or_, select

from loreg.catalog.bases import base_id_of
from loreg.catalog.schema import BaseEdgeRow, BaseRow
from loreg.catalog.transaction import Transaction
from loreg.entities import BaseEdge, BaseModel


def record(tx: Transaction, edge: BaseEdge) -> BaseEdge:
    """Record the edge between two known bases; one of the same kind that is there is replaced."""
    row = {"child_id": base_id_of(tx, edge.child), "parent_id": base_id_of(tx, edge.parent), "kind": edge.kind}
    said = {"detail": dict(edge.detail), "verified": edge.verified, "author": tx.author, "created_at": tx.at}
    tx.upsert(BaseEdgeRow, {**row, **said})
    tx.log("base relate", None, None, child=edge.child, parent=edge.parent, kind=edge.kind, how=dict(edge.detail))
    return BaseEdge(edge.child, edge.parent, edge.kind, edge.detail, edge.verified, tx.author)


def list_edges(tx: Transaction, base: BaseModel) -> tuple[BaseEdge, ...]:
    """The edges that begin or end at the base."""
    return _edges(tx, base.digest)


def shortest_path(tx: Transaction, one: str, other: str) -> tuple[BaseEdge, ...]:
    """The fewest edges, in whichever direction, that lead from one base to the other; empty if none do.

    Of two ways of the same length the one over verified edges is taken.
    """
    came_by: dict[str, tuple[BaseEdge, ...]] = {one: ()}
    queue = deque([one])
    while queue and other not in came_by:
        here = queue.popleft()
        for edge in sorted(_edges(tx, here), key=lambda edge: not edge.verified):
            there = edge.parent if edge.child == here else edge.child
            if there not in came_by:
                came_by[there] = (*came_by[here], edge)
                queue.append(there)
    return came_by.get(other, ())


def _edges(tx: Transaction, digest: str) -> tuple[BaseEdge, ...]:
    child, parent = BaseRow.__table__.alias("child"), BaseRow.__table__.alias("parent")
    query = (
        select(BaseEdgeRow, child.c.digest.label("child"), parent.c.digest.label("parent"))
        .join(child, child.c.id == BaseEdgeRow.child_id)
        .join(parent, parent.c.id == BaseEdgeRow.parent_id)
        .where(or_(child.c.digest == digest, parent.c.digest == digest))
        .order_by(BaseEdgeRow.created_at, BaseEdgeRow.kind)
    )
    return tuple(
        BaseEdge(row.child, row.parent, row.kind, row.detail, bool(row.verified), row.author)
        for row in tx.connection.execute(query)
    )
