"""Find what a version is related to that is no version: the bases above its own, its exports, the models it is in."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select

from loreg.catalog import derivations, jobs
from loreg.catalog.schema import base_name_table, base_table, export_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.entities import BakedModel, BaseEdge, BaseModel, Relatives, StoredExport
from loreg.errors import LoregError
from loreg.refs import parse_ref

_MAX_EDGES = 50  # above a base
_MAX_PRODUCTS = 100  # exports, and models, of a version
_MAX_JOBS = 1000  # bakes, the newest, that are looked through


def find_relatives(tx: Transaction, record: VersionRecord) -> Relatives:
    """Return what is known beside versions, of bases and jobs those that the caller may know of."""
    base = record.version.base
    edges = _list_edges_above(tx, base) if base is not None else ()
    return Relatives(edges, _name_bases(tx, edges), tuple(_list_exports(tx, record.id)), tuple(_list_bakes(tx, record)))


def _list_edges_above(tx: Transaction, base: BaseModel) -> tuple[BaseEdge, ...]:
    """Return the edges from the base up to those that it came from, nearest first, 50 at most."""
    edges: dict[tuple[str, str, str], BaseEdge] = {}
    waiting, reached = [base.digest], {base.digest}
    while waiting and len(edges) < _MAX_EDGES:
        digest = waiting.pop(0)
        for edge in derivations.list_edges(tx, digest):
            if edge.child == digest:
                edges[edge.child, edge.parent, edge.kind] = edge
                if edge.parent not in reached:
                    reached.add(edge.parent)
                    waiting.append(edge.parent)
    return tuple(edges.values())[:_MAX_EDGES]


def _name_bases(tx: Transaction, edges: tuple[BaseEdge, ...]) -> dict[str, str]:
    digests = {digest for edge in edges for digest in (edge.child, edge.parent)}
    if not digests:
        return {}
    name = func.min(base_name_table.c.name).label("name")
    query = (
        select(base_table.c.digest, name)
        .join(base_name_table, base_name_table.c.base_id == base_table.c.id)
        .where(base_table.c.digest.in_(sorted(digests)))
        .group_by(base_table.c.digest)
    )
    return {row.digest: row.name for row in tx.connection.execute(query)}


def _list_exports(tx: Transaction, version_id: int) -> Iterator[StoredExport]:
    query = (
        select(export_table.c.profile, export_table.c.author, export_table.c.created_at)
        .where(export_table.c.version_id == version_id)
        .order_by(export_table.c.id.desc())
        .limit(_MAX_PRODUCTS)
    )
    for row in tx.connection.execute(query):
        yield StoredExport(row.profile, row.author, row.created_at)


def _list_bakes(tx: Transaction, record: VersionRecord) -> Iterator[BakedModel]:
    """Yield the models, of jobs that the caller may see and that are still kept, the newest first."""
    version = record.version
    for job in jobs.list_bakes(tx, _MAX_JOBS):
        for source in job.request.get("sources", ()):
            try:
                ref = parse_ref(source)
            except LoregError:
                continue
            if (ref.adapter, ref.number) == (version.adapter, version.number):
                yield BakedModel(
                    str(job.result.get("model", "")), job.id, job.author, job.finished_at or job.created_at
                )
                break
