"""Select what a run of a probe is over: pages of ids, and of no more than that of a million versions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Text, and_, bindparam, cast, exists, false, func, select
from sqlalchemy.sql.selectable import ReturnsRows

from loreg.catalog.near_names import resolve_terms
from loreg.catalog.paging import encode
from loreg.catalog.patterns import is_match
from loreg.catalog.schema import adapter_table, alias_table, export_table, fact_table, version_table
from loreg.catalog.search import split_for
from loreg.catalog.search_ids import select_ids, sort_columns
from loreg.catalog.transaction import Transaction
from loreg.catalog.versions import find_adapter_id, resolve
from loreg.entities import MapRun, Query, Sort, SortKey, TermMatch
from loreg.errors import NotFoundError
from loreg.selectors import Selector
from loreg.suggestions import Suggestion

_PAGE = 10_000  # versions
_OF_MADE = "{}"  # what a probe that makes versions says of these: nothing, where it says of their sources what was lost

#: The id of a version, and its bytes.
SizedId = tuple[int, int]


class _RunShape(NamedTuple):
    """What decides of a run which versions it leaves out."""

    again: bool
    makes_exports: bool
    makes_versions: bool


def _shape_of(run: MapRun) -> _RunShape:
    return _RunShape(run.again, bool(run.options.profile), bool(run.options.rank))


def last_version_id(tx: Transaction) -> int:
    """Return the id of the newest version; 0 if there is none."""
    return tx.connection.execute(select(func.max(version_table.c.id))).scalar() or 0


def condition_of(tx: Transaction, selector: Selector, *, with_yanked: bool) -> ColumnElement[bool]:
    """Return the condition that a version is one of those that a selector means.

    Without an alias or a number these are all versions of the adapters that match, ``with_yanked`` or not. Raises
    NotFoundError and ConflictError for a ref that means no version, or whose adapter is not there.
    """
    if selector.ref is not None:
        if selector.alias or selector.number or selector.digest:
            return version_table.c.id == resolve(tx, selector.ref).id
        find_adapter_id(tx, selector.ref.adapter)
    matches = is_match(tx, selector.pattern)
    if selector.alias is None:
        return matches if with_yanked else and_(matches, version_table.c.yanked_at.is_(None))
    is_meant = exists().where(
        alias_table.c.adapter_id == version_table.c.adapter_id,
        alias_table.c.alias == selector.alias,
        alias_table.c.version_id == version_table.c.id,
    )
    return and_(matches, is_meant, version_table.c.yanked_at.is_(None))


def select_by_condition(
    tx: Transaction, wanted: MapRun, condition: ColumnElement[bool], after: int, last: int
) -> Sequence[SizedId]:
    """Return a page of the versions that are to be probed, from behind the id ``after`` up to ``last``.

    Those are the ones of which this release of the probe has said nothing, or could say nothing; or all ``again``, but
    for those that the probe itself made.
    """
    query = (
        select(version_table.c.id, version_table.c.bytes)
        .join(adapter_table, adapter_table.c.id == version_table.c.adapter_id)
        .where(version_table.c.id > after, version_table.c.id <= last, condition, ~_is_left_out(_shape_of(wanted)))
        .order_by(version_table.c.id)
        .limit(_PAGE)
    )
    return [(row.id, row.bytes) for row in tx.connection.execute(query, _values(wanted))]


def select_by_search(tx: Transaction, wanted: MapRun, query: Query, last: int) -> tuple[Sequence[SizedId], str | None]:
    """Return those of a page of what a search finds that are to be probed, as by a condition, and the next cursor.

    Raises NotFoundError for a task or a base by whose name it finds nothing: what may have been meant is not probed.
    """
    order = Sort() if query.sort.by == SortKey.RELEVANCE else query.sort
    query = replace(query, sort=order, limit=_PAGE)
    shape, values = split_for(tx, query)
    statement = _select_found(shape, tx.sees_all, _shape_of(wanted))
    rows = tx.select_compiled(statement, **values, **_values(wanted))
    if not rows and query.cursor is None:
        _refuse_unknown_names(resolve_terms(tx, query))
    cursor = encode(query.order, rows[-1][3:]) if len(rows) == _PAGE else None
    return [(id_, size) for id_, size, is_left_out, *_ in rows if id_ <= last and not is_left_out], cursor


@functools.lru_cache(maxsize=64)
def _select_found(shape: Query, sees_all: bool, run: _RunShape) -> ReturnsRows:
    """Select a page of versions, their bytes, whether they are left out, and their sort keys."""
    page = select_ids(shape, sees_all, _PAGE)
    query = select(page.c.id, version_table.c.bytes, _is_left_out(run).label("left_out"), *sort_columns(page))
    return query.join(version_table, version_table.c.id == page.c.id)


def _is_left_out(run: _RunShape) -> ColumnElement[bool]:
    """Return the condition that a version is not probed.

    The probe made it, or this release has said something of it, and its export is there.
    """
    of_probe = (fact_table.c.version_id == version_table.c.id) & (fact_table.c.probe == bindparam("probe"))
    is_readable = of_probe & (fact_table.c.error == "")
    if run.again:
        if not run.makes_versions:
            return false()
        return exists().where(is_readable, cast(fact_table.c.value, Text) == _OF_MADE)
    is_said = exists().where(is_readable, fact_table.c.release == bindparam("release"))
    if not run.makes_exports:
        return is_said
    is_there = exists().where(
        export_table.c.version_id == version_table.c.id, export_table.c.profile == bindparam("profile")
    )
    return and_(is_said, is_there)


def _values(wanted: MapRun) -> dict[str, str]:
    """Return the parameters of :func:`_is_left_out`; those that it does not have are not looked at."""
    return {"probe": wanted.probe, "release": wanted.release, "profile": wanted.options.profile}


def _refuse_unknown_names(matches: Sequence[TermMatch]) -> None:
    for match in matches:
        meant = (*match.names, *match.suggestions)
        raise NotFoundError(
            f"no {match.term} is called {match.word!r}",
            hint="loreg search --facets",
            suggestion=Suggestion(match.word, meant[0]) if meant else None,
        )
