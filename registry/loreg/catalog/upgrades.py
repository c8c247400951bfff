"""Upgrades of bases: record what one means for the versions of the old base, and list it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select, tuple_

from loreg.catalog import bases
from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import (
    adapter_table,
    base_table,
    base_upgrade_table,
    file_table,
    upgrade_verdict_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.entities import (
    BaseModel,
    BaseUpgrade,
    NewUpgrade,
    NewVerdict,
    ProbeLoss,
    RecordedVerdict,
    RecordedVerdicts,
    Role,
    UpgradeVerdict,
)
from loreg.errors import NotFoundError
from loreg.refs import AdapterName

_ORDER = "upgrade verdicts"
_MAX_UPGRADES = 50  # of one base
_POSITIONS = {str(verdict): number for number, verdict in enumerate(UpgradeVerdict)}
#: By verdict, then the least changed first.
_SORTED_BY: tuple[ColumnElement[Any], ...] = (
    case(_POSITIONS, value=upgrade_verdict_table.c.verdict),
    func.coalesce(upgrade_verdict_table.c.read, 0.0),
    upgrade_verdict_table.c.version_id,
)


def record(tx: Transaction, upgrade: NewUpgrade) -> int:
    """Record verdicts on versions of the old base, where the caller may write; return of how many versions.

    A verdict that says nothing takes none away, and one without losses none of these. Both bases are recorded.
    """
    old_id, new_id = (bases.find_base_id(tx, digest) for digest in (upgrade.old, upgrade.new))
    by_ref = {verdict.ref: verdict for verdict in upgrade.verdicts}
    verdicts = {
        row.id: by_ref[ref]
        for row in tx.connection.execute(_select_versions(old_id, [verdict.digest for verdict in by_ref.values()]))
        if (ref := f"{AdapterName(row.namespace, row.name)}:v{row.number}") in by_ref
        and by_ref[ref].digest == row.digest
        and tx.access.may(Role.WRITE, row.namespace)
    }
    if not verdicts:
        return 0
    before = _read_recorded(tx, new_id, list(verdicts))
    rows = [
        _to_row(tx, version_id, old_id, new_id, verdict, before.get(version_id))
        for version_id, verdict in verdicts.items()
        if verdict.verdict != UpgradeVerdict.UNKNOWN or _is_unknown(before.get(version_id))
    ]
    tx.upsert_all(upgrade_verdict_table, rows)
    _record_figures(tx, old_id, new_id, upgrade)
    tx.log("base upgrade", None, None, old=upgrade.old, new=upgrade.new, versions=len(verdicts))
    return len(verdicts)


def list_of_base(tx: Transaction, base: BaseModel) -> tuple[BaseUpgrade, ...]:
    """Return the upgrades from the base and to it, the newest first, between bases that the caller may know of."""
    base_id = bases.find_base_id(tx, base.digest)
    of_base = or_(base_upgrade_table.c.old_id == base_id, base_upgrade_table.c.new_id == base_id)
    query = _select_upgrades(tx).where(of_base).order_by(base_upgrade_table.c.at.desc()).limit(_MAX_UPGRADES)
    return tuple(_to_upgrade(tx, row) for row in tx.connection.execute(query).all())


def list_verdicts(
    tx: Transaction,
    old: BaseModel,
    new: BaseModel,
    verdict: UpgradeVerdict | None,
    limit: int,
    cursor: str | None,
    *,
    weights_path: str,
) -> RecordedVerdicts:
    """Return a page of the verdicts on versions that are not yanked, those that move exactly first, or of one kind.

    ``weights_path`` is how the file of the weights is called. Raises NotFoundError for what was not recorded.
    """
    old_id, new_id = (bases.find_base_id(tx, base.digest) for base in (old, new))
    upgrade = tx.connection.execute(
        _select_upgrades(tx).where(base_upgrade_table.c.old_id == old_id, base_upgrade_table.c.new_id == new_id)
    ).first()
    if upgrade is None:
        raise NotFoundError(
            f"no upgrade from {old.title} to {new.title} was recorded", hint="loreg base upgrade ./old ./new"
        )
    of_upgrade = _is_of_upgrade(tx, old_id, new_id)
    query = _select_verdicts(new_id, weights_path).where(of_upgrade)
    if verdict is not None:
        query = query.where(upgrade_verdict_table.c.verdict == verdict)
    if cursor:
        query = query.where(tuple_(*_SORTED_BY) > tuple_(*decode(cursor, _ORDER, (int, float, int))))
    rows = tx.connection.execute(query.order_by(*_SORTED_BY).limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return RecordedVerdicts(
        tuple(map(_to_verdict, rows[:limit])),
        None if last is None else encode(_ORDER, [last.position, last.size, last.version_id]),
        _to_upgrade(tx, upgrade),
        _count_verdicts(tx, of_upgrade),
    )


def _is_of_upgrade(tx: Transaction, old_id: int, new_id: int) -> ColumnElement[bool]:
    return and_(
        upgrade_verdict_table.c.old_id == old_id,
        upgrade_verdict_table.c.new_id == new_id,
        version_table.c.base_id == old_id,
        version_table.c.yanked_at.is_(None),
        tx.visible(adapter_table.c.namespace),
    )


def _select_verdicts(new_id: int, weights_path: str) -> Select[Any]:
    columns: list[Any] = [
        version_table.c.number,
        version_table.c.digest,
        adapter_table.c.namespace,
        adapter_table.c.name,
        _select_moved(new_id, weights_path).label("moved_to"),
        _SORTED_BY[0].label("position"),
        _SORTED_BY[1].label("size"),
    ]
    return _join_versions(select(upgrade_verdict_table, *columns))


def _count_verdicts(tx: Transaction, of_upgrade: ColumnElement[bool]) -> dict[UpgradeVerdict, int]:
    """Return how many verdicts of each kind there are, in their order; none of a kind that there is not."""
    columns: list[Any] = [upgrade_verdict_table.c.verdict, func.count()]
    query = _join_versions(select(*columns)).where(of_upgrade).group_by(upgrade_verdict_table.c.verdict)
    counts = {row[0]: row[1] for row in tx.connection.execute(query)}
    return {kind: counts[kind] for kind in UpgradeVerdict if kind in counts}


def _select_versions(base_id: int, digests: Sequence[str]) -> Select[Any]:
    """Select versions of the base with these digests, and keep them from being removed until the transaction ends."""
    version, adapter = version_table.c, adapter_table.c
    columns: list[Any] = [version.id, version.number, version.digest, adapter.namespace, adapter.name]
    return (
        select(*columns)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.base_id == base_id, version_table.c.digest.in_(digests))
        .order_by(version_table.c.id)
        .with_for_update(read=True, key_share=True, of=version_table)
    )


def _read_recorded(tx: Transaction, new_id: int, version_ids: Sequence[int]) -> dict[int, Any]:
    query = select(upgrade_verdict_table).where(
        upgrade_verdict_table.c.new_id == new_id, upgrade_verdict_table.c.version_id.in_(version_ids)
    )
    return {row.version_id: row for row in tx.connection.execute(query)}


def _is_unknown(row: Any) -> bool:
    return row is None or row.verdict == UpgradeVerdict.UNKNOWN


def _to_row(
    tx: Transaction, version_id: int, old_id: int, new_id: int, verdict: NewVerdict, before: Any
) -> dict[str, object]:
    losses = [[getattr(loss, name) for name in ProbeLoss.__struct_fields__] for loss in verdict.losses]
    figures = {
        "tensors": verdict.tensors,
        "changed": verdict.changed,
        "written": verdict.written,
        "change": verdict.change,
        "overlap": verdict.overlap,
        "losses": losses or (before.figures["losses"] if before is not None else []),
    }
    return {
        "version_id": version_id,
        "new_id": new_id,
        "old_id": old_id,
        "verdict": str(verdict.verdict),
        "reason": verdict.reason,
        "read": verdict.read,
        "figures": figures,
        "author": tx.author,
        "at": tx.at,
    }


def _record_figures(tx: Transaction, old_id: int, new_id: int, upgrade: NewUpgrade) -> None:
    """Record how far the base moved; a measured share stays, unless its author or an administrator measured again."""
    key = and_(base_upgrade_table.c.old_id == old_id, base_upgrade_table.c.new_id == new_id)
    before = tx.connection.execute(select(base_upgrade_table).where(key)).first()
    may_replace = before is not None and (before.author == tx.author or tx.access.may(Role.ADMIN, "*"))
    if before is None or before.change is None or (may_replace and upgrade.change is not None):
        figures = {"tensors": upgrade.tensors, "changed": upgrade.changed, "change": upgrade.change}
        row = {"old_id": old_id, "new_id": new_id, **figures, "author": tx.author, "at": tx.at}
        tx.upsert(base_upgrade_table, row)


def _select_upgrades(tx: Transaction) -> Select[Any]:
    old, new = base_table.alias("old"), base_table.alias("new")
    return (
        select(base_upgrade_table, old.c.digest.label("old"), new.c.digest.label("new"))
        .join(old, old.c.id == base_upgrade_table.c.old_id)
        .join(new, new.c.id == base_upgrade_table.c.new_id)
        .where(bases.is_visible(tx, old.c.id), bases.is_visible(tx, new.c.id))
    )


def _join_versions(query: Select[Any]) -> Select[Any]:
    return query.join(version_table, version_table.c.id == upgrade_verdict_table.c.version_id).join(
        adapter_table, adapter_table.c.id == version_table.c.adapter_id
    )


def _select_moved(new_id: int, weights_path: str) -> ColumnElement[int | None]:
    """Select the number of the newest version of the same adapter that has the same weights on the new base."""
    moved, weights, of_moved = version_table.alias("moved"), file_table.alias("weights"), file_table.alias("of_moved")
    return (
        select(func.max(moved.c.number))
        .join(of_moved, of_moved.c.version_id == moved.c.id)
        .join(weights, weights.c.digest == of_moved.c.digest)
        .where(
            moved.c.adapter_id == version_table.c.adapter_id,
            moved.c.base_id == new_id,
            moved.c.yanked_at.is_(None),
            weights.c.version_id == version_table.c.id,
            weights.c.path == weights_path,
            of_moved.c.path == weights_path,
        )
        .correlate(version_table)
        .scalar_subquery()
    )


def _to_upgrade(tx: Transaction, row: Any) -> BaseUpgrade:
    old, new = (bases.find(tx, digest) for digest in (row.old, row.new))
    return BaseUpgrade(old, new, row.tensors, row.changed, row.change, row.author, row.at)


def _to_verdict(row: Any) -> RecordedVerdict:
    figures: Mapping[str, Any] = row.figures
    adapter = AdapterName(row.namespace, row.name)
    return RecordedVerdict(
        f"{adapter}:v{row.number}",
        row.digest,
        UpgradeVerdict(row.verdict),
        row.reason,
        figures["tensors"],
        figures["changed"],
        row.read,
        figures["written"],
        figures["change"],
        figures["overlap"],
        tuple(ProbeLoss(*loss) for loss in figures["losses"]),
        f"{adapter}:v{row.moved_to}" if row.moved_to is not None else "",
        row.author,
        row.at,
    )
