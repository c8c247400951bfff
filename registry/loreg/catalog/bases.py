"""Base models that the registry knows by content, and what people call them."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Select, select

from loreg.catalog.schema import BaseNameRow, BaseRow, BlobRow
from loreg.catalog.transaction import Transaction
from loreg.errors import ConflictError, NotFoundError
from loreg.records import BaseModel

_DIGEST_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")


def record(tx: Transaction, base: BaseModel, leaves_size: int) -> None:
    """Make a base known, with its names. A name that means another base already stays with that one."""
    tx.insert_missing(BlobRow, [{"digest": base.digest, "size": leaves_size}])
    row = {"digest": base.digest, "tensors": base.tensors, "parameters": base.parameters, "created_at": tx.at}
    tx.insert_missing(BaseRow, [row])
    base_id = base_id_of(tx, base.digest)
    tx.insert_missing(BaseNameRow, [{"name": name, "base_id": base_id} for name in base.names])


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
    rows = tx.connection.execute(select(BaseRow).where(BaseRow.id.in_(matching(text))).limit(2)).all()
    if not rows:
        raise NotFoundError(
            f"there is no base {text!r} in the registry",
            hint="name its folder: loreg push DIR NAME --base ./path/to/base",
        )
    if len(rows) > 1:
        raise ConflictError(f"several bases have a digest that starts with {text!r}", hint="write more of it")
    names = tx.connection.execute(
        select(BaseNameRow.name).where(BaseNameRow.base_id == rows[0].id).order_by(BaseNameRow.name)
    )
    return BaseModel(rows[0].digest, tuple(names.scalars()), rows[0].tensors, rows[0].parameters)


def is_digest(text: str) -> bool:
    """Whether ``text`` reads like the beginning of a digest."""
    return _DIGEST_PREFIX.fullmatch(text) is not None


def matching(text: str) -> Select[Any]:
    """Select the ids of the bases that ``text`` may mean: a name, or a digest prefix of 6 digits or more."""
    by_name = select(BaseNameRow.base_id).where(BaseNameRow.name == text)
    if not (match := _DIGEST_PREFIX.fullmatch(text)):
        return by_name
    by_digest = select(BaseRow.id).where(BaseRow.digest >= match[1], BaseRow.digest < match[1] + "g")
    return select(by_name.union_all(by_digest).subquery().c[0])


def base_id_of(tx: Transaction, digest: str) -> int:
    """The row of a base that is known."""
    return tx.connection.execute(select(BaseRow.id).where(BaseRow.digest == digest)).scalar_one()
