"""Runs of one probe over many versions, and their chunks, as a fence: each is recorded once, whoever does it twice.

Who claims a chunk counts its attempts up, and records what came of it only as long as they are the last to have
claimed it: in the transaction that writes the facts (Gray and Cheriton 1989 call such a number a fence).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from msgspec.structs import replace
from sqlalchemy import and_, delete, func, insert, or_, select, update

from loreg.catalog import bases
from loreg.catalog.schema import (
    adapter_table,
    file_table,
    map_chunk_table,
    map_run_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.entities import MapChunk, MapRun, ProbedVersion
from loreg.manifest import File
from loreg.refs import AdapterName, Ref
from loreg.selectors import parse_selector

_PAGE = 10_000  # chunks in one statement
_OPEN, _CLAIMED, _DONE, _SPLIT = "open", "claimed", "done", "split"


def find_unfinished(tx: Transaction, wanted: MapRun) -> MapRun | None:
    """Return the unfinished run of that probe, release and selection, with what is done of it; None if there is none.

    Chunks that somebody claimed are open again: call it when nobody else drives a run.
    """
    of_probe = (map_run_table.c.probe == wanted.probe) & map_run_table.c.finished_at.is_(None)
    for row in tx.connection.execute(select(map_run_table).where(of_probe).order_by(map_run_table.c.id.desc())):
        if (row.release, row.selection) == (wanted.release, _selection_of(wanted)):
            claimed = (map_chunk_table.c.run_id == row.id) & (map_chunk_table.c.state == _CLAIMED)
            tx.connection.execute(update(map_chunk_table).where(claimed).values(state=_OPEN))
            done, versions = _count(tx, row.id)
            return replace(wanted, id=row.id, versions=versions, done=done, resumed=True)
    return None


def begin(tx: Transaction, wanted: MapRun, last: int, chunks: Iterable[Sequence[int]]) -> MapRun:
    """Record a new run over these chunks of ids; unfinished ones of the same probe are given up, chunks and all."""
    of_probe = map_run_table.c.probe == wanted.probe
    runs = select(map_run_table.c.id).where(of_probe)
    tx.connection.execute(delete(map_chunk_table).where(map_chunk_table.c.run_id.in_(runs)))
    is_open = of_probe & map_run_table.c.finished_at.is_(None)
    tx.connection.execute(update(map_run_table).where(is_open).values(finished_at=tx.at))
    row = {
        "probe": wanted.probe, "release": wanted.release, "selection": _selection_of(wanted), "last_version_id": last,
        "author": tx.author, "started_at": tx.at,
    }  # fmt: skip
    run_id = tx.connection.execute(insert(map_run_table).returning(map_run_table.c.id), row).scalar_one()
    versions = 0
    numbered = enumerate(chunks, 1)
    while page := list(islice(numbered, _PAGE)):
        versions += sum(len(ids) for _, ids in page)
        _add(tx, run_id, page)
    return replace(wanted, id=run_id, versions=versions)


def claim(tx: Transaction, run: MapRun, limit: int) -> list[MapChunk]:
    """Claim up to ``limit`` open chunks, and return them with the versions that are still to be probed.

    Those are the ones that are there and, if something is made of them, not yanked unless the run names them.
    """
    is_open = (map_chunk_table.c.run_id == run.id) & (map_chunk_table.c.state == _OPEN)
    numbers = select(map_chunk_table.c.number).where(is_open).order_by(map_chunk_table.c.number).limit(limit)
    claimed = (
        update(map_chunk_table)
        .where(is_open, map_chunk_table.c.number.in_(numbers))
        .values(state=_CLAIMED, attempts=map_chunk_table.c.attempts + 1)
        .returning(map_chunk_table)
    )
    rows = sorted(tx.connection.execute(claimed).all(), key=lambda row: row.number)
    versions = _read_versions(tx, [version_id for row in rows for version_id in row.version_ids], run)
    return [
        MapChunk(run.id, row.number, row.attempts, tuple(versions[i] for i in row.version_ids if i in versions))
        for row in rows
    ]


def finish(tx: Transaction, chunk: MapChunk) -> bool:
    """Mark a chunk as done; return False, and change nothing, if another claimed it since, or did it."""
    return _leave(tx, chunk, _DONE)


def give_back(tx: Transaction, chunk: MapChunk) -> bool:
    """Let a chunk be claimed again, unless another claimed it since."""
    return _leave(tx, chunk, _OPEN)


def split(tx: Transaction, chunk: MapChunk) -> bool:
    """Put two chunks of half as many versions in the place of one, unless another claimed it since."""
    if not _leave(tx, chunk, _SPLIT):
        return False
    of_run = map_chunk_table.c.run_id == chunk.run_id
    last = tx.connection.execute(select(func.max(map_chunk_table.c.number)).where(of_run)).scalar_one()
    ids = [version.id for version in chunk.versions]
    middle = len(ids) // 2
    _add(tx, chunk.run_id, [(last + 1, ids[:middle]), (last + 2, ids[middle:])])
    return True


def close(tx: Transaction, run_id: int) -> None:
    """Mark a run as finished."""
    tx.connection.execute(update(map_run_table).where(map_run_table.c.id == run_id).values(finished_at=tx.at))


def lock_present(
    tx: Transaction, version_ids: Collection[int], *, unless_yanked: Collection[int] = ()
) -> dict[int, int]:
    """Return those of the ids whose versions are there, and stay until the transaction ends, with their adapters' ids.

    One that is being deleted at this moment counts as gone: nobody waits for the other. So does a yanked one that is
    among ``unless_yanked``.
    """
    query = select(version_table.c.id, version_table.c.adapter_id).where(version_table.c.id.in_(sorted(version_ids)))
    if unless_yanked:
        is_exempt = version_table.c.id.not_in(sorted(unless_yanked))
        query = query.where(or_(version_table.c.yanked_at.is_(None), is_exempt))
    in_order = query.order_by(version_table.c.id).with_for_update(read=True, key_share=True, skip_locked=True)
    return {row.id: row.adapter_id for row in tx.connection.execute(in_order)}


def _leave(tx: Transaction, chunk: MapChunk, state: str) -> bool:
    is_ours = and_(
        map_chunk_table.c.run_id == chunk.run_id,
        map_chunk_table.c.number == chunk.number,
        map_chunk_table.c.state == _CLAIMED,
        map_chunk_table.c.attempts == chunk.attempts,
    )
    return bool(tx.connection.execute(update(map_chunk_table).where(is_ours).values(state=state)).rowcount)


def _add(tx: Transaction, run_id: int, numbered: Iterable[tuple[int, Sequence[int]]]) -> None:
    rows = [
        {"run_id": run_id, "number": number, "version_ids": list(ids), "state": _OPEN, "attempts": 0}
        for number, ids in numbered
    ]
    if rows:
        tx.connection.execute(insert(map_chunk_table), rows)


def _count(tx: Transaction, run_id: int) -> tuple[int, int]:
    """Return how many versions of a run are done, and how many it has."""
    query = select(map_chunk_table.c.state, map_chunk_table.c.version_ids).where(map_chunk_table.c.run_id == run_id)
    sizes = [(row.state, len(row.version_ids)) for row in tx.connection.execute(query) if row.state != _SPLIT]
    return sum(size for state, size in sizes if state == _DONE), sum(size for _, size in sizes)


def _selection_of(wanted: MapRun) -> dict[str, object]:
    return {**wanted.selection.to_document(), "again": wanted.again}


def _read_versions(tx: Transaction, version_ids: Sequence[int], run: MapRun) -> dict[int, ProbedVersion]:
    """Return the versions that are still to be probed, by id, with their files and their bases."""
    selectors = (parse_selector(text).ref for text in run.selection.selectors)
    named = [ref for ref in selectors if ref is not None and (ref.number or ref.digest)]
    files: dict[int, list[File]] = {}
    rows: list[Any] = []
    for ids in _batches(version_ids):
        of_files = select(file_table.c.version_id, file_table.c.path, file_table.c.digest, file_table.c.size)
        for row in tx.connection.execute(of_files.where(file_table.c.version_id.in_(ids)).order_by(file_table.c.path)):
            files.setdefault(row.version_id, []).append(File(row.path, row.digest, row.size))
        query = (
            select(
                version_table.c.id,
                version_table.c.number,
                version_table.c.digest,
                version_table.c.base_id,
                version_table.c.yanked_at,
                adapter_table.c.namespace,
                adapter_table.c.name,
            )
            .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
            .where(version_table.c.id.in_(ids))
        )
        rows += tx.connection.execute(query)
    of_ids = bases.find_all(tx, {row.base_id for row in rows if row.base_id is not None})
    versions = {}
    for row in rows:
        ref = Ref(AdapterName(row.namespace, row.name), number=row.number)
        is_named = any(_is_same(selector, ref, row.digest) for selector in named)
        if row.yanked_at is None or is_named or not run.makes_something:
            base = of_ids.get(row.base_id)
            versions[row.id] = ProbedVersion(row.id, str(ref), row.digest, tuple(files[row.id]), base, is_named)
    return versions


def _is_same(selector: Ref, ref: Ref, digest: str) -> bool:
    """Return whether a selector with a number or a digest means the version ``ref`` of that digest."""
    is_number = selector.number in (None, ref.number)
    return selector.adapter == ref.adapter and is_number and digest.startswith(selector.digest or "")


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + 1000] for start in range(0, len(ids), 1000))
