"""Base models that the registry knows, and what people call them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, Select, func, select, update

from loreg.catalog import blobs
from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import AdapterRow, BaseNameRow, BaseRow, VersionRow
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import JsonRows
from loreg.entities import BaseModel, Page
from loreg.errors import ConflictError, NotFoundError

_DIGEST_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")


def record(tx: Transaction, base: BaseModel, leaves_size: int, proven: Collection[str] = ()) -> bool:
    """Make a base known, with its names, its class and the license that its card names; False if it was known before.

    Of one that was, these are changed by who added it and by administrators alone. A name that means another base
    already stays with that one, unless that is one of the ``proven``: of these digests headers alone were known, and
    this base has the same; then its name goes over, if who acts may change it.
    """
    blobs.record(tx, {base.digest: leaves_size})
    row = {"digest": base.digest, "tensors": base.tensors, "parameters": base.parameters, "created_at": tx.at}
    said = {"struct": base.struct, "complete": base.complete, "license": base.license, "config": _text(base.config)}
    created = tx.insert_if_missing(BaseRow, {**row, **said, "author": tx.author})
    base_id = base_id_of(tx, base.digest)
    taken_over = [name for known in proven for name in _upgrade_header_base(tx, base_id, base, known)]
    if created:
        _add_names(tx, base_id, base.names)
        tx.log("base add", None, None, digest=base.digest, names=list(base.names), license=base.license)
    elif may_change(tx, base):
        _change(tx, base_id, base)
    if taken_over:
        tx.log("base change", None, None, digest=base.digest, names=taken_over)
    return created


def may_change(tx: Transaction, base: BaseModel) -> bool:
    """Whether who acts may say what a known base is called, under which license, and where it came from."""
    author = tx.connection.execute(select(BaseRow.author).where(BaseRow.digest == base.digest)).scalar_one()
    return tx.access.may("admin", "*") or (author != "" and author == tx.author)


def known_by_headers(tx: Transaction, base: BaseModel) -> tuple[BaseModel, ...]:
    """The bases that one of the base's names means, and of which headers alone are known."""
    named = select(BaseNameRow.base_id).where(BaseNameRow.name.in_(base.names))
    query = _bases().where(BaseRow.id.in_(named), BaseRow.complete.is_(False), BaseRow.digest != base.digest)
    return tuple(map(_to_base, tx.connection.execute(query)))


def _upgrade_header_base(tx: Transaction, base_id: int, base: BaseModel, known: str) -> tuple[str, ...]:
    """Let the names that the base shares with the ``known`` one mean it; returns these."""
    if not may_change(tx, replace(base, digest=known)):
        return ()
    names = BaseNameRow.name.in_(base.names) & (BaseNameRow.base_id == base_id_of(tx, known))
    moved = update(BaseNameRow).where(names).values(base_id=base_id).returning(BaseNameRow.name)
    return tuple(sorted(tx.connection.execute(moved).scalars()))


def _change(tx: Transaction, base_id: int, base: BaseModel) -> None:
    """Add what is said now of a base that was known before; an event says what changed."""
    row = tx.connection.execute(select(BaseRow.license, BaseRow.config).where(BaseRow.id == base_id)).one()
    detail: dict[str, Any] = {}
    if base.license not in ("", row.license):
        detail |= {"license": base.license, "license_before": row.license}
        tx.connection.execute(update(BaseRow).where(BaseRow.id == base_id).values(license=base.license))
    if base.config and row.config == "{}":
        detail["config"] = dict(base.config)
        tx.connection.execute(update(BaseRow).where(BaseRow.id == base_id).values(config=_text(base.config)))
    if added := _add_names(tx, base_id, base.names):
        detail["names"] = added
    if detail:
        tx.log("base change", None, None, digest=base.digest, **detail)


def _add_names(tx: Transaction, base_id: int, names: Collection[str]) -> list[str]:
    """Give the base those of the names that mean none yet; returns these."""
    return [name for name in names if tx.insert_if_missing(BaseNameRow, {"name": name, "base_id": base_id})]


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(dict(config), sort_keys=True, separators=(",", ":"))


def names_taken(tx: Transaction, base: BaseModel) -> tuple[str, ...]:
    """Those of the base's names that mean another base in this catalog."""
    query = (
        select(BaseNameRow.name)
        .join(BaseRow, BaseRow.id == BaseNameRow.base_id)
        .where(BaseNameRow.name.in_(base.names), BaseRow.digest != base.digest)
    )
    return tuple(tx.connection.execute(query).scalars())


def find(tx: Transaction, text: str) -> BaseModel:
    """The base that ``text`` names, or whose digest starts with it.

    Raises NotFoundError, and ConflictError if several digests start with it.
    """
    rows = tx.connection.execute(_bases().where(BaseRow.id.in_(select_matching(text))).limit(2)).all()
    if not rows:
        raise NotFoundError(
            f"there is no base {text!r} in the registry",
            hint=f"loreg base ls, or loreg base add ./path/to/base --name {text}",
        )
    if len(rows) > 1:
        raise ConflictError(f"several bases have a digest that starts with {text!r}", hint="write more of it")
    return _to_base(rows[0])


def list_page(tx: Transaction, limit: int, cursor: str | None) -> Page[BaseModel]:
    """A page of bases, the newest first."""
    query = _bases()
    if cursor:
        query = query.where(BaseRow.id < decode(cursor, "bases", (int,))[0])
    rows = tx.connection.execute(query.order_by(BaseRow.id.desc()).limit(limit + 1)).all()
    next_cursor = encode("bases", [rows[limit - 1].id]) if len(rows) > limit else None
    return Page(tuple(map(_to_base, rows[:limit])), next_cursor)


def count_versions(tx: Transaction, base: BaseModel) -> int:
    """How many versions were trained on the base."""
    query = (
        select(func.count())
        .join_from(VersionRow, AdapterRow, AdapterRow.id == VersionRow.adapter_id)
        .where(VersionRow.base_id == base_id_of(tx, base.digest), tx.visible(AdapterRow.namespace))
    )
    return tx.connection.execute(query).scalar_one()


def is_digest(text: str) -> bool:
    """Whether ``text`` reads like the beginning of a digest."""
    return _DIGEST_PREFIX.fullmatch(text) is not None


def select_matching(text: str) -> Select[Any]:
    """Select the ids of the bases that ``text`` may mean: a name, or a digest prefix of 6 digits or more."""
    return select_named_or_digest_range(text, *digest_range(text)) if is_digest(text) else select_named(text)


def select_named(name: Any) -> Select[Any]:
    """Select the id of the base of that name."""
    return select(BaseNameRow.base_id).where(BaseNameRow.name == name)


def select_named_or_digest_range(name: Any, first: Any, end: Any) -> Select[Any]:
    """Select the ids of the bases of that name, or whose digest is in a range, see :func:`range_of_digest`."""
    by_digest = select(BaseRow.id).where(BaseRow.digest >= first, BaseRow.digest < end)
    return select(select_named(name).union_all(by_digest).subquery().c[0])


def digest_range(text: str) -> tuple[str, str]:
    """The least digest that begins so, and one that is over all of them: hex digits all sort below ``g``."""
    match = _DIGEST_PREFIX.fullmatch(text)
    digits = match[1] if match else ""
    return digits, f"{digits}g"


def base_id_of(tx: Transaction, digest: str) -> int:
    """The row of a base that is known."""
    return tx.connection.execute(select(BaseRow.id).where(BaseRow.digest == digest)).scalar_one()


def _bases() -> Select[Any]:
    names = select(JsonRows(BaseNameRow.name)).where(BaseNameRow.base_id == BaseRow.id).scalar_subquery()
    return select(*BaseRow.__table__.columns, names.label("names"))


def _to_base(row: Row[Any]) -> BaseModel:
    names = tuple(sorted(name for (name,) in row.names))
    config = json.loads(row.config)
    return BaseModel(
        row.digest, names, row.tensors, row.parameters, row.struct, bool(row.complete), row.license, config
    )
