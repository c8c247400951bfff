"""Selections: list the versions that selectors or a search mean, each with how often that has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Select, func, select, tuple_

from loreg.catalog.patterns import is_match
from loreg.catalog.schema import adapter_table, alias_move_table, alias_table, event_table, version_table
from loreg.catalog.search import search
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import select_versions, to_version
from loreg.catalog.versions import resolve
from loreg.entities import MissingVersion, Query, SelectedVersion
from loreg.errors import ConflictError, NotFoundError, UsageError
from loreg.refs import AdapterName
from loreg.selectors import Selector

MAX_SELECTED = 10_000  # versions of one selection
_PAGE = 1000


def select_by_selectors(
    tx: Transaction, selectors: Sequence[Selector]
) -> tuple[list[SelectedVersion], list[MissingVersion]]:
    """Return what the selectors mean, in their order and by name, and those that mean nothing.

    Raises UsageError if that are too many, ConflictError if two mean different versions under one name.
    """
    selected: dict[str, SelectedVersion] = {}
    missing = []
    for selector in selectors:
        matches = []
        try:
            matches = [*_matches(tx, selector)]
        except (NotFoundError, ConflictError) as error:
            missing.append(MissingVersion(str(selector), error.message))
        else:
            if not matches:
                missing.append(MissingVersion(str(selector), f"no version matches {str(selector)!r}"))
        for match in matches:
            other = selected.setdefault(match.name, match)
            if other.version.digest != match.version.digest:
                raise ConflictError(
                    f"{match.name} is selected as {other.selector!r} ({other.version.ref}) and as "
                    f"{match.selector!r} ({match.version.ref})",
                    hint=f"give one another name: {match.name}-2={match.version.adapter}:v{match.version.number}",
                )
        _refuse_too_many(len(selected))
    return list(selected.values()), missing


def select_by_search(tx: Transaction, query: Query) -> list[SelectedVersion]:
    """Return the versions that a search finds, one of each adapter. Raises UsageError if that are too many."""
    selected: list[SelectedVersion] = []
    cursor = None
    while True:
        page = search(tx, replace(query, limit=_PAGE, cursor=cursor))
        positions = _last_events(tx, [version.adapter for version in page.items])
        for version in page.items:
            selected.append(SelectedVersion(str(version.adapter), version, "search", positions[version.adapter]))
        _refuse_too_many(len(selected))
        if page.cursor is None:
            break
        cursor = page.cursor
    if len({match.name for match in selected}) < len(selected):
        raise UsageError(
            "the search finds several versions of one adapter, and only one can have its name",
            hint="--best METRIC takes the best of each",
        )
    return selected


def _matches(tx: Transaction, selector: Selector) -> Iterator[SelectedVersion]:
    if selector.ref is not None:
        record = resolve(tx, selector.ref)
        position = tx.connection.execute(_position(selector, record.adapter_id)).scalar() or 0
        name = selector.name or str(selector.ref.adapter)
        yield SelectedVersion(name, record.version, str(selector), position)
        return
    visible = tx.visible(adapter_table.c.namespace)
    query = select_versions().add_columns(_position(selector, adapter_table.c.id).scalar_subquery())
    query = query.where(is_match(tx, selector.pattern), visible, version_table.c.yanked_at.is_(None))
    if selector.alias is not None:
        query = query.join(alias_table, alias_table.c.version_id == version_table.c.id).where(
            alias_table.c.adapter_id == adapter_table.c.id, alias_table.c.alias == selector.alias
        )
    else:
        others = version_table.alias()
        newest = select(func.max(others.c.number)).where(
            others.c.adapter_id == adapter_table.c.id, others.c.yanked_at.is_(None)
        )
        query = query.where(version_table.c.number == newest.scalar_subquery())
    query = query.order_by(adapter_table.c.namespace, adapter_table.c.name).limit(MAX_SELECTED + 1)
    for document, position in tx.connection.execute(query):
        version = to_version(document)
        yield SelectedVersion(str(version.adapter), version, str(selector), position or 0)


def _position(selector: Selector, adapter_id: Any) -> Select[int]:
    """Select the last move of the alias, or the last event of the adapter: both only ever grow."""
    if selector.alias is None:
        return _last_event(adapter_id)
    return select(func.max(alias_move_table.c.id)).where(
        alias_move_table.c.adapter_id == adapter_id, alias_move_table.c.alias == selector.alias
    )


def _last_event(adapter_id: Any) -> Select[int]:
    return select(func.coalesce(func.max(event_table.c.id), 0)).where(event_table.c.adapter_id == adapter_id)


def _last_events(tx: Transaction, adapters: Sequence[AdapterName]) -> dict[AdapterName, int]:
    namespace, name = adapter_table.c.namespace, adapter_table.c.name
    query = select(namespace, name, _last_event(adapter_table.c.id).scalar_subquery()).where(
        tuple_(namespace, name).in_([(adapter.namespace, adapter.name) for adapter in adapters])
    )
    return {AdapterName(*row[:2]): row[2] for row in tx.connection.execute(query)}


def _refuse_too_many(count: int) -> None:
    if count > MAX_SELECTED:
        raise UsageError(
            f"more than {MAX_SELECTED:,} adapters are selected", hint="loreg ls 'team/*' shows what a pattern matches"
        )
