"""The names that a shell completes, in a few milliseconds: from a SQLite catalog itself, else from a small cache.

Come here if completion is slow or shows old names. A SQLite catalog is read with nothing but Python's own ``sqlite3``:
importing what the catalog stands on takes longer than anybody waits for a key. A server and PostgreSQL are not asked at
all; what they have is read from a file, which :func:`write_cache` makes anew beside the shell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from loreg.settings import Settings

MAX_NAMES = 200
_FRESH_SECONDS = 60
_SQLITE = "sqlite:///"
_LAST = "\U0010ffff"  # behind every other character
#: The words of each kind, by the column that has them; every column begins an index.
_COLUMNS = {
    "tasks": ("tasks", "task"),
    "metrics": ("metrics", "name"),
    "bases": ("base_names", "name"),
    "modules": ("module_types", "name"),
}


class Names(NamedTuple):
    """What a server has: refs of adapters with their aliases and newest versions, and words by their kind."""

    adapters: Mapping[str, Sequence[str]]
    words: Mapping[str, Sequence[str]]


def complete_ref(settings: Settings, prefix: str) -> list[str]:
    """Return the names of adapters that begin with ``prefix``; of a single one also its aliases and versions."""
    name = prefix.partition(":")[0]
    adapters = _read_adapters(settings, name)
    if ":" in prefix:
        adapters = {name: adapters[name]} if name in adapters else {}
    refs = list(adapters)
    if len(adapters) == 1:
        refs += [f"{adapter}:{selector}" for adapter, selectors in adapters.items() for selector in selectors]
    return [ref for ref in refs if ref.startswith(prefix)]


def complete_word(settings: Settings, kind: str, prefix: str) -> list[str]:
    """Return the ``tasks``, ``metrics``, ``bases`` or ``modules`` that begin with ``prefix``."""
    if (catalog := _sqlite_file(settings)) is None:
        return [word for word in read_cache(settings).words.get(kind, ()) if word.startswith(prefix)]
    table, column = _COLUMNS[kind]
    # each step finds the next word in the index: as many steps as there are words, not rows
    statement = f"""
        WITH RECURSIVE listed(word) AS (
            SELECT min({column}) FROM {table} WHERE {column} >= :first AND {column} < :last
            UNION ALL
            SELECT (SELECT min({column}) FROM {table} WHERE {column} > word AND {column} < :last)
            FROM listed WHERE word IS NOT NULL
        ) SELECT word FROM listed WHERE word IS NOT NULL LIMIT :limit"""  # noqa: S608  names of ours
    with _connect(catalog) as connection:
        values = {"first": prefix, "last": prefix + _LAST, "limit": MAX_NAMES}
        return [word for (word,) in connection.execute(statement, values)]


def needs_cache(settings: Settings) -> bool:
    """Return whether names come from a cache, and that is older than a minute or not there; it then counts as new."""
    if _sqlite_file(settings) is not None:
        return False
    file = _cache_file(settings)
    with contextlib.suppress(OSError):
        if time.time() - file.stat().st_mtime < _FRESH_SECONDS:
            return False
        os.utime(file)
        return True
    write_cache(settings, read_cache(settings))
    return True


def read_cache(settings: Settings) -> Names:
    """Return the names that were last cached for this server and token; none if there is no such file."""
    try:
        document = json.loads(_cache_file(settings).read_text(encoding="utf-8"))
        return Names(document["adapters"], document["words"])
    except (OSError, ValueError, KeyError, TypeError):
        return Names({}, {})


def write_cache(settings: Settings, names: Names) -> None:
    """Keep the names for this server and token, in a file that nobody else can read."""
    file = _cache_file(settings)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        json.dump(names._asdict(), stream)
    fresh.replace(file)


def _read_adapters(settings: Settings, prefix: str) -> dict[str, Sequence[str]]:
    """Return the adapters whose names begin with ``prefix``, and the aliases and versions of a single one."""
    if (catalog := _sqlite_file(settings)) is None:
        adapters = read_cache(settings).adapters
        return {name: adapters[name] for name in adapters if name.startswith(prefix)}
    namespace, slash, name = prefix.rpartition("/")
    with _connect(catalog) as connection:
        names = connection.execute(
            "SELECT id, namespace, name FROM adapters WHERE namespace = ? AND name >= ? AND name < ? LIMIT ?",
            (namespace, name, name + _LAST, MAX_NAMES),
        ).fetchall()
        if not slash:
            names += connection.execute(
                "SELECT id, namespace, name FROM adapters WHERE namespace >= ? AND namespace < ? AND namespace > '' "
                "ORDER BY namespace, name LIMIT ?",
                (name, name + _LAST, MAX_NAMES),
            ).fetchall()
        by_name = {f"{space}/{own}".lstrip("/"): adapter_id for adapter_id, space, own in names}
        exact = by_name.get(prefix)
        single = exact if exact is not None else next(iter(by_name.values())) if len(by_name) == 1 else None
        selectors = {single: _read_selectors(connection, single)} if single is not None else {}
    return {name: selectors.get(adapter_id, ()) for name, adapter_id in by_name.items()}


def _read_selectors(connection: sqlite3.Connection, adapter_id: int) -> list[str]:
    aliases = connection.execute("SELECT alias FROM aliases WHERE adapter_id = ? ORDER BY alias", (adapter_id,))
    numbers = connection.execute(
        "SELECT number FROM versions WHERE adapter_id = ? ORDER BY number DESC LIMIT 20", (adapter_id,)
    )
    return [*(alias for (alias,) in aliases), *(f"v{number}" for (number,) in numbers)]


def _sqlite_file(settings: Settings) -> Path | None:
    """Return the file of the catalog on this machine; None for a server and for other databases."""
    if settings.endpoint or not settings.database_url.startswith(_SQLITE):
        return None
    return Path(settings.database_url.removeprefix(_SQLITE))


@contextlib.contextmanager
def _connect(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0.02)
    with contextlib.closing(connection):
        yield connection


def _cache_file(settings: Settings) -> Path:
    database_url = "" if settings.endpoint else settings.database_url
    place = "\0".join((settings.endpoint, settings.token, database_url))
    return settings.home / "cache" / "completion" / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
