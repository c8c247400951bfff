"""Find the tasks and bases that a search means by a word that is the name of none: ``topic``, ``minilm``.

Come here when a search found nothing: names that the caller may read are compared with the word, the closest way first,
and the first way in which any of them is near decides.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TypeVar

from sqlalchemy import CTE, Column, ColumnElement, func, select, true, union

from loreg.catalog.bases import digest_range, is_digest
from loreg.catalog.schema import (
    adapter_table,
    base_name_table,
    base_table,
    metric_table,
    module_type_table,
    task_table,
    version_table,
)
from loreg.catalog.search_text import split_words
from loreg.catalog.transaction import Transaction
from loreg.entities import Query, SearchTerm, SearchWords, TermMatch

T = TypeVar("T")

_MAX_NAMES = 10_000  # that are compared
_MAX_MATCHES = 50  # names that one word may mean
_MIN_PART = 3  # letters of a part of a word


def resolve_terms(tx: Transaction, query: Query) -> tuple[TermMatch, ...]:
    """Return what is meant by those tasks and that base of the query which are the name of none."""
    matches = [_match(tx, SearchTerm.TASK, task) for task in dict.fromkeys(query.tasks) if not _is_task(tx, task)]
    if query.base and not _is_base(tx, query.base):
        matches.append(_match(tx, SearchTerm.BASE, query.base))
    return tuple(matches)


def find_near(word: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the names that are near to the word in the closest way in which any is.

    >>> find_near("topic", ["news-topics", "topics", "qa"]), find_near("minilm", ["org/all-MiniLM-L6-v2", "org/llama"])
    (('topics',), ('org/all-MiniLM-L6-v2',))
    """
    for is_near in (_same_letters, _same_number, _same_last_part, _same_words, _begins_words, _part_of_it):
        if near := sorted(name for name in names if is_near(word, name)):
            return tuple(near[:_MAX_MATCHES])
    return ()


def _match(tx: Transaction, term: SearchTerm, word: str) -> TermMatch:
    names = list_tasks(tx) if term == SearchTerm.TASK else _list_base_names(tx)
    near = find_near(word, names)
    by_letters = {name.casefold(): name for name in names} | {_last_part(name).casefold(): name for name in names}
    close = () if near else difflib.get_close_matches(word.casefold(), by_letters, 3)
    return TermMatch(term, word, near, tuple(dict.fromkeys(by_letters[letters] for letters in close)))


def _same_letters(word: str, name: str) -> bool:
    return name.casefold() == word.casefold()


def _same_number(word: str, name: str) -> bool:
    """Whether they are one word, whatever its number: ``topic`` and ``topics``, ``summary`` and ``summaries``."""
    return [_singular(part) for part in split_words(name)] == [_singular(part) for part in split_words(word)]


def _same_last_part(word: str, name: str) -> bool:
    return _last_part(name).casefold() == word.casefold()


def _same_words(word: str, name: str) -> bool:
    """Whether the name has all words of the word, whatever their number: ``topic`` and ``news-topics``."""
    of_name = {_singular(part) for part in split_words(name)}
    words = [_singular(part) for part in split_words(word)]
    return bool(words) and of_name.issuperset(words)


def _begins_words(word: str, name: str) -> bool:
    of_name, words = split_words(name), split_words(word)
    return bool(words) and all(any(part.startswith(begin) for part in of_name) for begin in words)


def _part_of_it(word: str, name: str) -> bool:
    letters = "".join(split_words(word))
    return len(letters) >= _MIN_PART and letters in "".join(split_words(name))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]


def _is_task(tx: Transaction, task: str) -> bool:
    return tx.connection.execute(
        select(_has_shown(tx, task_table.c.task == task, task_table.c.version_id))
    ).scalar_one()


def _is_base(tx: Transaction, base: str) -> bool:
    """Whether a version that may be read is on a base of that name, or on one whose digest begins so."""
    named = select(base_name_table.c.base_id).where(base_name_table.c.name == base)
    ways = [version_table.c.base_hint == base, version_table.c.base_id.in_(named)]
    if is_digest(base):
        first, end = digest_range(base)
        of_digest = select(base_table.c.id).where(base_table.c.digest >= first, base_table.c.digest < end)
        ways.append(version_table.c.base_id.in_(of_digest))
    return any(tx.connection.execute(select(_has_shown(tx, way))).scalar_one() for way in ways)


def list_tasks(tx: Transaction) -> Sequence[str]:
    """Return the tasks of the versions that the caller may read, by name."""
    return _list_shown(tx, task_table.c.task, task_table.c.version_id)


def list_modules(tx: Transaction) -> Sequence[str]:
    """Return the module types of the versions that the caller may read, by name."""
    return _list_shown(tx, module_type_table.c.name, module_type_table.c.version_id)


def list_words(tx: Transaction) -> SearchWords:
    """Return all words that a search takes, of the versions that the caller may read."""
    lists = (list_tasks(tx), _list_base_names(tx), list_modules(tx), list_metric_names(tx))
    return SearchWords(*(tuple(sorted(words)) for words in lists))


def list_metric_names(tx: Transaction) -> Sequence[str]:
    """Return the names of the metrics of the versions that the caller may read."""
    return _list_shown(tx, metric_table.c.name, metric_table.c.version_id)


def _list_shown(tx: Transaction, name: Column[str], version_id: Column[int]) -> Sequence[str]:
    """Return the values of an indexed column that versions have which the caller may read, in order."""
    names = _distinct(name)
    is_shown = _has_shown(tx, name == names.c.name, version_id)
    query = select(names.c.name).where(names.c.name.is_not(None), is_shown).limit(_MAX_NAMES)
    return tx.connection.execute(query).scalars().all()


def _list_base_names(tx: Transaction) -> Sequence[str]:
    """Return the names of the bases of the versions that may be read: of known ones, and declared ones but no paths."""
    ids = _distinct(version_table.c.base_id, "base_ids")  # of a base without versions all would be read
    is_shown = _has_shown(tx, version_table.c.base_id == ids.c.name)
    known = select(base_name_table.c.name).join(ids, ids.c.name == base_name_table.c.base_id)
    known = known.where(ids.c.name.is_not(None), is_shown)
    hints = _distinct(version_table.c.base_hint)
    declared = select(hints.c.name).where(hints.c.name > "", _has_shown(tx, version_table.c.base_hint == hints.c.name))
    rows = tx.connection.execute(union(known, declared).limit(_MAX_NAMES)).scalars()
    return [name for name in rows if is_public_name(name)]


def is_public_name(base: str) -> bool:
    """Whether a declared base reads like a name, and not like a path on the machine of whoever pushed it."""
    return base[:1] not in "/.~" and "\\" not in base and base.count("/") <= 1 and ":" not in base


def _distinct(column: ColumnElement[T], name: str = "names") -> CTE:
    """Return the distinct values of an indexed column, each found by one look into the index (a loose index scan)."""
    names = select(func.min(column).label("name")).cte(name, recursive=True)
    following = select(func.min(column)).where(column > names.c.name).scalar_subquery()
    return names.union_all(select(following).where(names.c.name.is_not(None)))


def _has_shown(
    tx: Transaction, condition: ColumnElement[bool], version_id: Column[int] | None = None
) -> ColumnElement[bool]:
    """Return whether the condition holds for a version that may be read and is not yanked.

    ``version_id`` is of the table of the condition, if that is another. A subquery of one row is asked for each name,
    and ends with the first version: for EXISTS PostgreSQL reads all versions and joins them (1.6 s among a million).
    """
    query = select(true()).join_from(version_table, adapter_table, adapter_table.c.id == version_table.c.adapter_id)
    if version_id is not None:
        query = query.join(version_id.table, version_id == version_table.c.id)
    query = query.where(condition, version_table.c.yanked_at.is_(None), tx.visible(adapter_table.c.namespace))
    return query.limit(1).scalar_subquery().is_not(None)
