"""Namespaces: who may read what is in them."""

from __future__ import annotations

from sqlalchemy import func, select, union

from loreg.catalog.schema import AdapterRow, NamespaceRow
from loreg.catalog.transaction import Transaction
from loreg.entities import Namespace


def list_all(tx: Transaction) -> tuple[Namespace, ...]:
    """All namespaces that may be read, by name: those that have adapters or were made public."""
    names = union(select(AdapterRow.namespace.label("name")), select(NamespaceRow.name)).subquery()
    count = select(func.count()).where(AdapterRow.namespace == names.c.name).scalar_subquery()
    query = (
        select(names.c.name, func.coalesce(NamespaceRow.public, False).label("public"), count.label("adapters"))
        .outerjoin(NamespaceRow, NamespaceRow.name == names.c.name)
        .where(tx.visible(names.c.name))
        .order_by(names.c.name)
    )
    return tuple(Namespace(row.name, bool(row.public), row.adapters) for row in tx.connection.execute(query))


def set_public(tx: Transaction, name: str, public: bool) -> None:
    """Let everyone read a namespace, or only those who have a token for it."""
    before = tx.connection.execute(select(NamespaceRow.public).where(NamespaceRow.name == name)).scalar()
    if bool(before) != public:
        tx.upsert(NamespaceRow, {"name": name, "public": public})
        tx.log("namespace", None, None, namespace=name, public=public)
