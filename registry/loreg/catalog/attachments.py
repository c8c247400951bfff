"""Versions whose base is not known: find those that declare a base, record it for them, and take it back."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update

from loreg.catalog import search_text
from loreg.catalog.schema import adapter_table, event_table, file_table, task_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Role
from loreg.manifest import File
from loreg.refs import AdapterName

ATTACH, DETACH = "attach", "detach"
#: What records a base of a version, or takes it back.
_ACTIONS = (ATTACH, DETACH, "base")


_SelectCandidates = Select[int, int, str, str, int, str, int | None]


class Candidate(msgspec.Struct, frozen=True):
    """A version that may get a base, or lose it: its rows' ids, what it calls its base, and two of its files."""

    id: int
    adapter_id: int
    adapter: AdapterName
    number: int
    declared: str
    base_id: int | None
    files: tuple[File, ...]

    @property
    def ref(self) -> str:
        """The ref of the version."""
        return f"{self.adapter}:v{self.number}"


def list_declaring(
    tx: Transaction, whole: Collection[str], ends: Collection[str], after: int, limit: int
) -> list[Candidate]:
    """Return writable versions without a base that declare one of the names, see :func:`_declares`; in order of ids."""
    query = _select().where(version_table.c.base_id.is_(None), _declares(whole, ends), version_table.c.id > after)
    return _list(tx, query.where(_writable(tx)).order_by(version_table.c.id).limit(limit))


def list_others(
    tx: Transaction, whole: Collection[str], ends: Collection[str], before: int, limit: int
) -> list[Candidate]:
    """Return the writable versions without a base that :func:`list_declaring` does not return, the newest first."""
    query = _select().where(version_table.c.base_id.is_(None), ~_declares(whole, ends), version_table.c.id < before)
    return _list(tx, query.where(_writable(tx)).order_by(version_table.c.id.desc()).limit(limit))


def list_with_base(tx: Transaction, base_id: int, after: int, limit: int) -> list[Candidate]:
    """Return writable versions that have the base, in order of ids."""
    query = _select().where(version_table.c.base_id == base_id, version_table.c.id > after, _writable(tx))
    return _list(tx, query.order_by(version_table.c.id).limit(limit))


def list_by_id(tx: Transaction, ids: Collection[int]) -> list[Candidate]:
    """Return the versions with these ids that are there still, in order of ids."""
    return _list(tx, _select().where(version_table.c.id.in_(ids)).order_by(version_table.c.id))


def attach(tx: Transaction, candidate: Candidate, base_id: int, digest: str, target: str | None, why: str) -> bool:
    """Record the base of a version; return False, and do nothing, if it has one by now or is gone.

    Call it with the adapter locked: a push of the same content may name another base at this moment.
    """
    without = and_(version_table.c.id == candidate.id, version_table.c.base_id.is_(None))
    if not tx.connection.execute(update(version_table).where(without).values(base_id=base_id, target=target)).rowcount:
        return False
    _file_under_base(tx, candidate.id, digest)
    tx.log(ATTACH, candidate.adapter_id, candidate.id, digest=digest, verdict="struct-only", reason=why)
    return True


def was_attached(tx: Transaction, candidate: Candidate) -> bool:
    """Return whether the base of the version was attached: what it was pushed with is not taken back."""
    of_version = and_(event_table.c.adapter_id == candidate.adapter_id, event_table.c.version_id == candidate.id)
    query = select(event_table.c.action).where(of_version, event_table.c.action.in_(_ACTIONS))
    return tx.connection.execute(query.order_by(event_table.c.id.desc()).limit(1)).scalar() == ATTACH


def detach(tx: Transaction, candidate: Candidate, digest: str) -> bool:
    """Take the base of a version back; return False, and do nothing, if it has another by now or is gone."""
    if not forget_base(tx, candidate.id, candidate.base_id):
        return False
    tx.log(DETACH, candidate.adapter_id, candidate.id, digest=digest)
    return True


def forget_base(tx: Transaction, version_id: int, base_id: int | None) -> bool:
    """Let the base of a version be unknown if it is that one; return whether it was."""
    with_base = and_(version_table.c.id == version_id, version_table.c.base_id == base_id)
    statement = update(version_table).where(with_base).values(base_id=None, target=None)
    if not tx.connection.execute(statement).rowcount:
        return False
    declared = select(version_table.c.base_hint).where(version_table.c.id == version_id).scalar_subquery()
    _file_under_base(tx, version_id, declared)
    return True


def _file_under_base(tx: Transaction, version_id: int, base: object) -> None:
    """Let searches by task, base and words know the base of a version."""
    tx.connection.execute(update(task_table).where(task_table.c.version_id == version_id).values(base=base))
    search_text.refresh(tx.connection, version_id)


def _declares(whole: Collection[str], ends: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that the declared base is one of ``whole``, or ends with one of ``ends``: in lower case."""
    declared = func.lower(version_table.c.base_hint)
    return or_(declared.in_(sorted(whole)), *(declared.endswith(end, autoescape=True) for end in sorted(ends)))


def _writable(tx: Transaction) -> ColumnElement[bool]:
    """Return the condition that the caller may write the namespace of the adapter."""
    if tx.access.may(Role.WRITE, "*"):
        return adapter_table.c.id == version_table.c.adapter_id
    writable = [namespace for namespace in tx.access.permissions if tx.access.may(Role.WRITE, namespace)]
    return adapter_table.c.namespace.in_(sorted(writable))


def _select() -> _SelectCandidates:
    return select(
        version_table.c.id,
        version_table.c.adapter_id,
        adapter_table.c.namespace,
        adapter_table.c.name,
        version_table.c.number,
        version_table.c.base_hint,
        version_table.c.base_id,
    ).join_from(version_table, adapter_table, adapter_table.c.id == version_table.c.adapter_id)


def _list(tx: Transaction, query: _SelectCandidates) -> list[Candidate]:
    rows = tx.connection.execute(query).all()
    files: dict[int, list[File]] = {row.id: [] for row in rows}
    of_versions = select(file_table).where(file_table.c.version_id.in_(files))
    for file in tx.connection.execute(of_versions) if files else ():
        files[file.version_id].append(File(file.path, file.digest, file.size))
    return [
        Candidate(
            row.id,
            row.adapter_id,
            AdapterName(row.namespace, row.name),
            row.number,
            row.base_hint,
            row.base_id,
            tuple(files[row.id]),
        )
        for row in rows
    ]
