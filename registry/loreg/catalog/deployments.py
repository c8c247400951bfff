"""Deployments: record which versions folders and servers tell that they have, and list them.

When they told it, and whether that is long ago, is by the clock of the database: those who tell may have any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ScalarSelect, and_, delete, insert, or_, select, update

from loreg.catalog.clock import now, read_time
from loreg.catalog.paging import decode, encode
from loreg.catalog.patterns import is_match
from loreg.catalog.schema import adapter_table, alias_table, deployment_table, follower_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonCells, JsonRows, parse_time
from loreg.catalog.versions import resolve
from loreg.entities import DeployedVersion, Deployment, DeploymentReport, Page, Role, Version
from loreg.errors import NotFoundError
from loreg.refs import AdapterName, AdapterPattern, parse_ref

_SILENCE = timedelta(minutes=15)  # after which a follower is taken for gone: it tells something every five
_FORGOTTEN = timedelta(days=7)  # of silence, after which a follower is removed


def record_report(tx: Transaction, report: DeploymentReport) -> None:
    """Record what a follower of the caller has now, in place of what it had.

    Raises NotFoundError for a version that is not there, and where it has what it told last, but told nothing.
    """
    key, at = {"author": tx.author, "server": report.server, "replica": report.replica}, read_time(tx)
    if report.versions is None:
        is_follower = and_(*(follower_table.c[name] == value for name, value in key.items()))
        if not tx.connection.execute(update(follower_table).where(is_follower).values(seen_at=at)).rowcount:
            raise NotFoundError(f"{report.server} {report.replica} has told nothing yet", hint="tell all that it has")
        return
    row = {**key, "kind": report.kind, "seen_at": at}
    follower_id = tx.get_or_create_locked(follower_table, row, *key)
    is_follower = follower_table.c.id == follower_id
    tx.connection.execute(update(follower_table).where(is_follower).values(kind=report.kind, seen_at=at))
    _replace(tx, follower_id, {version.name: version for version in report.versions}, at)


def _replace(tx: Transaction, follower_id: int, reported: Mapping[str, DeployedVersion], at: datetime) -> None:
    """Let a follower have what it reported, by name; what it has already is there since it first had it."""
    of_follower = deployment_table.c.follower_id == follower_id
    known = {row.name: row for row in tx.connection.execute(select(deployment_table).where(of_follower))}
    if gone := [name for name in known if name not in reported]:
        tx.connection.execute(delete(deployment_table).where(of_follower, deployment_table.c.name.in_(gone)))
    for name, version in reported.items():
        values = {"version_id": resolve(tx, parse_ref(version.ref)).id, "alias": version.alias, "since": at}
        before = known.get(name)
        if before is None:
            tx.connection.execute(insert(deployment_table), {"follower_id": follower_id, "name": name, **values})
        elif (before.version_id, before.alias) != (values["version_id"], values["alias"]):
            if before.version_id == values["version_id"]:
                values["since"] = before.since
            of_name = and_(of_follower, deployment_table.c.name == name)
            tx.connection.execute(update(deployment_table).where(of_name).values(**values))


class _Place(NamedTuple):
    """What a follower told of a version that it has, and the number of what its alias means now."""

    server: str
    replica: str
    kind: str
    name: str
    alias: str
    author: str
    since: datetime
    seen_at: datetime
    is_silent: bool
    meant: int | None


def list_page(tx: Transaction, pattern: AdapterPattern, limit: int, cursor: str | None) -> Page[Deployment]:
    """Return a page of the deployments of the adapters that match, by server, replica and name.

    Those of what the caller may read by a right of its own: that a namespace is public tells nobody who serves it.
    """
    order = (follower_table.c.server, follower_table.c.replica, deployment_table.c.name, follower_table.c.id)
    query = _select(tx).where(is_match(tx, pattern))
    if not tx.sees_all:
        query = query.where(adapter_table.c.namespace.in_(sorted(tx.access.permissions)))
    if cursor:
        query = query.where(_after(order, decode(cursor, "deployments", (str, str, str, int))))
    rows = tx.connection.execute(query.order_by(*order).limit(limit + 1)).all()
    shown = rows[:limit]
    last = [shown[-1].server, shown[-1].replica, shown[-1].name, shown[-1].follower] if len(rows) > limit else None
    items = tuple(
        _to_deployment(
            _Place(*(getattr(row, name) for name in _Place._fields)),
            f"{AdapterName(row.namespace, row.adapter)}:v{row.number}",
            row.digest,
            row.number,
            is_yanked=row.yanked_at is not None,
        )
        for row in shown
    )
    return Page(items, encode("deployments", last) if last is not None else None)


def of_version(tx: Transaction, version: Version, rows: Sequence[JsonCells]) -> tuple[Deployment, ...]:
    """Return where a version is, as far as the caller may know, from the cell ``OF_VERSION`` of its row."""
    if not rows or not tx.access.may(Role.READ, version.adapter.namespace):
        return ()
    silent_since, what = read_time(tx, -_SILENCE), (version.ref, version.digest, version.number)
    deployments = list[Deployment]()
    for server, replica, kind, name, alias, author, since, seen, meant in sorted(map(tuple, rows)):
        seen_at = parse_time(seen)
        is_silent = seen_at < silent_since
        place = _Place(server, replica, kind, name, alias, author, parse_time(since), seen_at, is_silent, meant)
        deployments.append(_to_deployment(place, *what, is_yanked=version.yanked))
    return tuple(deployments)


def find_live(tx: Transaction, version_id: int) -> str | None:
    """Return a server that has the version and is not silent, whoever told it; None if there is none."""
    query = (
        select(follower_table.c.server)
        .join_from(deployment_table, follower_table, follower_table.c.id == deployment_table.c.follower_id)
        .where(deployment_table.c.version_id == version_id, follower_table.c.seen_at >= now(tx, -_SILENCE))
        .order_by(follower_table.c.server)
    )
    return tx.connection.execute(query.limit(1)).scalar()


def remove_silent(tx: Transaction) -> int:
    """Remove the followers that told nothing for a week; return how many."""
    forgotten = read_time(tx, -_FORGOTTEN)
    silent = select(follower_table.c.id).where(follower_table.c.seen_at < forgotten)
    tx.connection.execute(delete(deployment_table).where(deployment_table.c.follower_id.in_(silent)))
    return tx.connection.execute(delete(follower_table).where(follower_table.c.seen_at < forgotten)).rowcount


def _select(tx: Transaction) -> Any:
    meant = version_table.alias()
    return (
        select(
            follower_table.c.id.label("follower"),
            follower_table.c.server,
            follower_table.c.replica,
            follower_table.c.kind,
            follower_table.c.author,
            follower_table.c.seen_at,
            (follower_table.c.seen_at < now(tx, -_SILENCE)).label("is_silent"),
            deployment_table.c.name,
            deployment_table.c.alias,
            deployment_table.c.since,
            adapter_table.c.namespace,
            adapter_table.c.name.label("adapter"),
            version_table.c.number,
            version_table.c.digest,
            version_table.c.yanked_at,
            meant.c.number.label("meant"),
        )
        .join_from(deployment_table, follower_table, follower_table.c.id == deployment_table.c.follower_id)
        .join(version_table, version_table.c.id == deployment_table.c.version_id)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .outerjoin(
            alias_table,
            and_(alias_table.c.adapter_id == adapter_table.c.id, alias_table.c.alias == deployment_table.c.alias),
        )
        .outerjoin(meant, meant.c.id == alias_table.c.version_id)
    )


def _after(columns: Sequence[Any], values: Sequence[object]) -> Any:
    """Return the condition that a row comes after these values, in the order of the columns."""
    return or_(
        *(
            and_(
                *(other == value for other, value in zip(columns[:end], values, strict=False)),
                columns[end] > values[end],
            )
            for end in range(len(columns))
        )
    )


def _to_deployment(place: _Place, ref: str, digest: str, number: int, *, is_yanked: bool) -> Deployment:
    return Deployment(
        server=place.server,
        replica=place.replica,
        kind=place.kind,
        name=place.name,
        ref=ref,
        digest=digest,
        since=place.since,
        seen_at=place.seen_at,
        author=place.author,
        is_silent=place.is_silent,
        drift=_drift(is_yanked, place.alias, place.meant, number),
    )


def _drift(is_yanked: bool, alias: str, meant: int | None, number: int) -> str:
    """Return how a version differs from what its follower should have; the alias means the version ``meant`` now."""
    if is_yanked:
        return "yanked"
    if alias and meant is None:
        return f"{alias} means no version"
    return f"{alias} is v{meant}" if alias and meant != number else ""


def _select_of_version() -> ScalarSelect[Any]:
    """Select where a version is, as one cell of its row."""
    moved, meant = alias_table.alias(), version_table.alias()
    number = (
        select(meant.c.number)
        .join_from(moved, meant, meant.c.id == moved.c.version_id)
        .where(moved.c.adapter_id == version_table.c.adapter_id, moved.c.alias == deployment_table.c.alias)
        .correlate(version_table, deployment_table)
        .scalar_subquery()
    )
    cells = JsonRows(
        follower_table.c.server,
        follower_table.c.replica,
        follower_table.c.kind,
        deployment_table.c.name,
        deployment_table.c.alias,
        follower_table.c.author,
        deployment_table.c.since,
        follower_table.c.seen_at,
        number,
    )
    return (
        select(cells)
        .join_from(deployment_table, follower_table, follower_table.c.id == deployment_table.c.follower_id)
        .where(deployment_table.c.version_id == version_table.c.id)
        .correlate(version_table)
        .scalar_subquery()
    )


OF_VERSION = _select_of_version()
