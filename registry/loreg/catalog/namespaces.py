"""Namespaces: list them, and make them public or private."""

from __future__ import annotations

from sqlalchemy import func, select, union

from loreg.catalog.schema import adapter_table, namespace_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Namespace


def list_all(tx: Transaction) -> tuple[Namespace, ...]:
    """Return the namespaces that the caller may read, by name: those with adapters, or that were ever public."""
    names = union(select(adapter_table.c.namespace.label("name")), select(namespace_table.c.name)).subquery()
    count = select(func.count()).where(adapter_table.c.namespace == names.c.name).scalar_subquery()
    query = (
        select(names.c.name, func.coalesce(namespace_table.c.public, False).label("public"), count.label("adapters"))
        .outerjoin(namespace_table, namespace_table.c.name == names.c.name)
        .where(tx.visible(names.c.name))
        .order_by(names.c.name)
    )
    return tuple(Namespace(row.name, bool(row.public), row.adapters) for row in tx.connection.execute(query))


def readable(tx: Transaction) -> frozenset[str]:
    """Return the namespaces that a caller who may not read all of them may read."""
    public = tx.connection.execute(select(namespace_table.c.name).where(namespace_table.c.public)).scalars()
    return frozenset(public) | frozenset(tx.access.permissions)


def set_public(tx: Transaction, name: str, public: bool) -> None:
    """Make a namespace readable for everyone, or only with a token for it; does nothing if it is so already."""
    is_public = tx.connection.execute(select(namespace_table.c.public).where(namespace_table.c.name == name)).scalar()
    if bool(is_public) != public:
        tx.upsert(namespace_table, {"name": name, "public": public})
        tx.log("namespace", None, None, namespace=name, public=public)
