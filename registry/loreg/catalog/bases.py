"""Base models that the registry knows: record, find and list them, and their names."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, true, update

from loreg.canonical_json import canonical_json
from loreg.catalog import blobs
from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import adapter_table, base_edge_table, base_name_table, base_table, version_table
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonRows
from loreg.entities import BaseModel, Page, RelatedBase, Role
from loreg.errors import ConflictError, NotFoundError
from loreg.suggestions import Suggestion, suggest

_MAX_NAMES = 1000  # that are compared with one that is not known
_MAX_RELATED = 50
_DIGEST_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")


def record(tx: Transaction, base: BaseModel, tensor_list_size: int, proven: Collection[str] = ()) -> bool:
    """Record a base with its names, class and license; return False if it was recorded before.

    ``tensor_list_size`` is the size in bytes of the blob that lists its tensors. Names, class and license of a base
    that was recorded before are changed only for its author and for administrators. A name that means another base
    stays with that one, unless its digest is among the ``proven``: bases of which only headers were known, and whose
    headers this base has. Their names move to this base, if the caller may change them.
    """
    blobs.record(tx, {base.digest: tensor_list_size})
    row = {
        "digest": base.digest,
        "tensors": base.tensors,
        "parameters": base.parameters,
        "struct": base.struct,
        "complete": base.complete,
        "license": base.license,
        "config": _to_json(base.config),
        "author": tx.author,
        "created_at": tx.at,
    }
    created = tx.insert_if_missing(base_table, row)
    base_id = find_base_id(tx, base.digest)
    taken_over = [name for digest in proven for name in _take_over_names(tx, base_id, base, digest)]
    if created:
        _add_names(tx, base_id, base.names)
        tx.log("base add", None, None, digest=base.digest, names=list(base.names), license=base.license)
    elif may_change(tx, base):
        _update(tx, base_id, base)
    if taken_over:
        tx.log("base change", None, None, digest=base.digest, names=taken_over)
    return created


def may_change(tx: Transaction, base: BaseModel) -> bool:
    """Whether the caller may change the names, license and origin of a recorded base: its author, administrators."""
    author = tx.connection.execute(select(base_table.c.author).where(base_table.c.digest == base.digest)).scalar_one()
    return tx.access.may(Role.ADMIN, "*") or (author != "" and author == tx.author)


def find_header_bases(tx: Transaction, base: BaseModel) -> tuple[BaseModel, ...]:
    """Return the other bases that one of the base's names means, and of which only headers are known."""
    named = select(base_name_table.c.base_id).where(base_name_table.c.name.in_(base.names))
    query = _select_bases().where(
        base_table.c.id.in_(named), base_table.c.complete.is_(False), base_table.c.digest != base.digest
    )
    return tuple(map(_to_base, tx.connection.execute(query)))


def _take_over_names(tx: Transaction, base_id: int, base: BaseModel, header_digest: str) -> tuple[str, ...]:
    """Move the names of the base from the one with ``header_digest`` to it; return those that moved."""
    if not may_change(tx, replace(base, digest=header_digest)):
        return ()
    shared = base_name_table.c.name.in_(base.names) & (base_name_table.c.base_id == find_base_id(tx, header_digest))
    statement = update(base_name_table).where(shared).values(base_id=base_id).returning(base_name_table.c.name)
    return tuple(sorted(tx.connection.execute(statement).scalars()))


def _update(tx: Transaction, base_id: int, base: BaseModel) -> None:
    """Add to a recorded base what is new in ``base``, and log what changed."""
    row = tx.connection.execute(
        select(base_table.c.license, base_table.c.config).where(base_table.c.id == base_id)
    ).one()
    detail: dict[str, object] = {}
    if base.license not in ("", row.license):
        detail |= {"license": base.license, "license_before": row.license}
        tx.connection.execute(update(base_table).where(base_table.c.id == base_id).values(license=base.license))
    if base.config and row.config == "{}":
        detail["config"] = dict(base.config)
        tx.connection.execute(update(base_table).where(base_table.c.id == base_id).values(config=_to_json(base.config)))
    if added := _add_names(tx, base_id, base.names):
        detail["names"] = added
    if detail:
        tx.log("base change", None, None, digest=base.digest, **detail)


def _add_names(tx: Transaction, base_id: int, names: Collection[str]) -> list[str]:
    """Give the base those of the names that mean no base yet; return these."""
    return [name for name in names if tx.insert_if_missing(base_name_table, {"name": name, "base_id": base_id})]


def _to_json(config: Mapping[str, object]) -> str:
    return canonical_json(dict(config)).decode()


def find_taken_names(tx: Transaction, base: BaseModel) -> tuple[str, ...]:
    """Return those of the base's names that mean another base in this catalog."""
    query = (
        select(base_name_table.c.name)
        .join(base_table, base_table.c.id == base_name_table.c.base_id)
        .where(base_name_table.c.name.in_(base.names), base_table.c.digest != base.digest)
    )
    return tuple(tx.connection.execute(query).scalars())


def find(tx: Transaction, text: str) -> BaseModel:
    """Return the base that ``text`` names, or whose digest starts with it, of those that the caller may know of.

    Raises NotFoundError, and ConflictError if several digests start with it.
    """
    query = _select_bases().where(base_table.c.id.in_(select_matching(text)), is_visible(tx, base_table.c.id))
    rows = tx.connection.execute(query.limit(2)).all()
    if not rows:
        raise NotFoundError(
            f"there is no base {text!r} in the registry",
            hint=f"loreg base ls, or loreg base add ./path/to/base --name {text}",
            suggestion=_closest_base(tx, text),
        )
    if len(rows) > 1:
        raise ConflictError(f"several bases have a digest that starts with {text!r}", hint="write more of it")
    return _to_base(rows[0])


def _closest_base(tx: Transaction, text: str) -> Suggestion | None:
    """Return the name of a base that is most like ``text``, of the newest thousand names."""
    names = select(base_name_table.c.name).where(is_visible(tx, base_name_table.c.base_id))
    newest = names.order_by(base_name_table.c.base_id.desc()).limit(_MAX_NAMES)
    return suggest(text, tx.connection.execute(newest).scalars())


def list_page(tx: Transaction, limit: int, cursor: str | None) -> Page[BaseModel]:
    """Return a page of bases, newest first."""
    query = _select_bases()
    if cursor:
        query = query.where(base_table.c.id < decode(cursor, "bases", (int,))[0])
    rows = tx.connection.execute(query.order_by(base_table.c.id.desc()).limit(limit + 1)).all()
    next_cursor = encode("bases", [rows[limit - 1].id]) if len(rows) > limit else None
    return Page(tuple(map(_to_base, rows[:limit])), next_cursor)


def count_versions(tx: Transaction, base: BaseModel) -> int:
    """Return how many of the versions that the caller may read were trained on the base."""
    query = (
        select(func.count())
        .join_from(version_table, adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.base_id == find_base_id(tx, base.digest), tx.visible(adapter_table.c.namespace))
    )
    return tx.connection.execute(query).scalar_one()


def is_visible(tx: Transaction, base_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that the caller may know of a base.

    With a token that is every base; without one those that a version is on which everybody may read.
    """
    if tx.access.permissions:
        return true()
    on_it = select(version_table.c.id).join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    return on_it.where(version_table.c.base_id == base_id, tx.visible(adapter_table.c.namespace)).exists()


def list_related(tx: Transaction, base: BaseModel) -> tuple[RelatedBase, ...]:
    """Return the bases that an edge joins with ``base``, and those of its architecture, the most used first."""
    base_id = find_base_id(tx, base.digest)
    parents = select(base_edge_table.c.parent_id).where(base_edge_table.c.child_id == base_id)
    children = select(base_edge_table.c.child_id).where(base_edge_table.c.parent_id == base_id)
    joined = base_table.c.id.in_(parents.union_all(children))
    alike = (base_table.c.struct == base.struct) & (base_table.c.struct != "")
    which = and_(or_(joined, alike), base_table.c.id != base_id, is_visible(tx, base_table.c.id))
    rows = tx.connection.execute(
        _select_bases().where(which).order_by(joined.desc(), base_table.c.id).limit(_MAX_RELATED)
    )
    related = {row.id: _to_base(row) for row in rows}
    versions = version_table.c
    counts = (
        select(versions.base_id, func.count(versions.adapter_id.distinct()), func.count())
        .join(adapter_table, adapter_table.c.id == versions.adapter_id)
        .where(versions.base_id.in_([*related]), versions.yanked_at.is_(None), tx.visible(adapter_table.c.namespace))
        .group_by(versions.base_id)
    )
    counted = {id_: (adapters, count) for id_, adapters, count in tx.connection.execute(counts)}
    bases = [RelatedBase(other, *counted.get(id_, (0, 0))) for id_, other in related.items()]
    return tuple(sorted(bases, key=lambda row: (-row.versions, row.base.title)))


def is_digest(text: str) -> bool:
    """Whether ``text`` reads like the beginning of a digest."""
    return _DIGEST_PREFIX.fullmatch(text) is not None


def select_matching(text: str) -> Select[int]:
    """Select the ids of the bases that ``text`` may mean: a name, or a digest prefix of 6 digits or more."""
    return select_named_or_digest_range(text, *digest_range(text)) if is_digest(text) else select_named(text)


def select_named(name: str | ColumnElement[str]) -> Select[int]:
    """Select the id of the base of that name."""
    return select(base_name_table.c.base_id).where(base_name_table.c.name == name)


def select_named_or_digest_range(
    name: str | ColumnElement[str], first: str | ColumnElement[str], end: str | ColumnElement[str]
) -> Select[int]:
    """Select the ids of the bases of that name, or whose digest is in a range, see :func:`digest_range`."""
    by_digest = select(base_table.c.id).where(base_table.c.digest >= first, base_table.c.digest < end)
    return select(select_named(name).union_all(by_digest).subquery().c[0])


def digest_range(text: str) -> tuple[str, str]:
    """Return the bounds, first and end, of the digests that begin with ``text``: hex digits all sort below ``g``."""
    match = _DIGEST_PREFIX.fullmatch(text)
    digits = match[1] if match else ""
    return digits, f"{digits}g"


def find_base_id(tx: Transaction, digest: str) -> int:
    """Return the row id of a base that is recorded."""
    return tx.connection.execute(select(base_table.c.id).where(base_table.c.digest == digest)).scalar_one()


def find_all(tx: Transaction, base_ids: Collection[int]) -> dict[int, BaseModel]:
    """Return the bases of these rows, by their ids."""
    rows = tx.connection.execute(_select_bases().where(base_table.c.id.in_(sorted(base_ids))))
    return {row.id: _to_base(row) for row in rows}


def _select_bases() -> Select[Any]:
    names = (
        select(JsonRows(base_name_table.c.name)).where(base_name_table.c.base_id == base_table.c.id).scalar_subquery()
    )
    return select(*base_table.columns, names.label("names"))


def _to_base(row: Row[Any]) -> BaseModel:
    names = tuple(sorted(name for (name,) in row.names))
    config = json.loads(row.config)
    return BaseModel(
        row.digest, names, row.tensors, row.parameters, row.struct, bool(row.complete), row.license, config
    )
