"""Requests as documents: what a recipe file, a job or the command line asks for, decoded into one value.

The documents are flat: the fields of :class:`MergeOptions` and :class:`VersionMetadata` lie beside ``sources``.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec

from loreg.decoding import decode
from loreg.entities import JobKind, MergeOptions, Query, RankRuleKind, SnapshotRules, VersionMetadata
from loreg.errors import UsageError

T = TypeVar("T")
_RANK_RULES = sorted(set(RankRuleKind) - {RankRuleKind.LOSSLESS})
_OPTIONS = frozenset(MergeOptions.__struct_fields__)
_METADATA = frozenset(VersionMetadata.__struct_fields__)
_SELECTION = frozenset({"refs", "read_data", "since", "trust_checksums"})
#: The fields that each kind of request takes.
FIELDS: Mapping[str, frozenset[str]] = {
    JobKind.MERGE: _OPTIONS | _METADATA | {"sources", "name", "base"},
    JobKind.RERANK: _METADATA | {"source", "rank", "initial", "name", "base"},
    JobKind.BAKE: _OPTIONS | {"sources", "name", "base", "dtype", "verify"},
    JobKind.VERIFY: _SELECTION,
    JobKind.REPAIR: _SELECTION | {"sources", "dry_run"},
    JobKind.GC: frozenset({"grace", "caches", "dry_run"}),
    JobKind.PRUNE: frozenset({"pattern", "dry_run"}),
    JobKind.BACKUP: frozenset({"target", "action", "verify", "keep_last", "keep_newer", "dry_run"}),
    JobKind.SKETCH: frozenset(),
    JobKind.MAP: frozenset({"probe", "profile", "rank", "name", "selectors", "search", "again"}),
}


class Request(msgspec.Struct, frozen=True):
    """A merge, re-ranking (a merge of one source) or bake: what to do, and what is said of the result.

    ``name`` is the adapter to push, or a bake's folder; ``base`` a path or the name of a folder.
    """

    sources: tuple[str, ...]
    options: MergeOptions
    metadata: VersionMetadata
    name: str | None = None
    base: str | None = None
    dtype: str | None = None
    verify: bool = False


class BackupAction(StrEnum):
    """What ``loreg backup`` does."""

    MAKE = "make"
    LIST = "list"
    FORGET = "forget"


class UpkeepRequest(msgspec.Struct, frozen=True):
    """Upkeep of the whole registry: the arguments of that method of ``Registry``, as text.

    ``action`` says what is done with the backup in ``target``: make a snapshot, ``list`` those that it has, or
    ``forget`` old ones. ``selectors`` or ``search`` say which versions a ``probe`` runs over, ``profile`` for
    which server it makes exports, ``rank`` and ``name`` what versions it makes.
    """

    refs: tuple[str, ...] = ()
    read_data: bool | str = False
    since: str | None = None
    trust_checksums: bool = True
    sources: tuple[str, ...] = ()
    dry_run: bool = False
    grace: str = "24h"
    caches: bool = False
    pattern: str = "*"
    target: str = ""
    action: BackupAction = BackupAction.MAKE
    verify: bool = False
    keep_last: int | None = None
    keep_newer: str | None = None
    probe: str = ""
    profile: str = ""
    rank: int = 0
    name: str = ""
    selectors: tuple[str, ...] = ()
    search: Query | None = None
    again: bool = False


class _Rest(msgspec.Struct, frozen=True):
    """The fields of a request that are neither options nor metadata."""

    sources: tuple[str, ...] = ()
    source: str | None = None
    name: str | None = None
    base: str | None = None
    dtype: str | None = None
    verify: bool = False


def read_request(kind: str, document: Mapping[str, object], *, where: str = "", hint: str) -> Request:
    """Decode the document of a merge, rerank or bake; fields that are None count as left out.

    Raises UsageError, with ``hint``, for a field that ``kind`` does not take or a value of another type; ``where`` is
    what the message calls the document.
    """
    document = _known_fields(kind, document, where, hint)
    options = _decode(MergeOptions, document, _OPTIONS, where, hint)
    metadata = _decode(VersionMetadata, document, _METADATA, where, hint)
    rest = _decode(_Rest, document, FIELDS[kind] - _OPTIONS - _METADATA, where, hint)
    if isinstance(options.rank, Mapping) and not options.rank.keys() <= set(_RANK_RULES):
        expected = f"a whole number, or one of {', '.join(_RANK_RULES)}"
        raise UsageError(f"{where and f'{where}: '}rank is {options.rank!r:.80}, expected {expected}", hint=hint)
    sources = rest.sources if rest.source is None else (rest.source,)
    return Request(sources, options, metadata, rest.name, rest.base, rest.dtype, rest.verify)


def read_upkeep_request(kind: str, document: Mapping[str, object], *, hint: str) -> UpkeepRequest:
    """Decode the document of upkeep; fields that are None count as left out. Raises UsageError."""
    return _decode(UpkeepRequest, _known_fields(kind, document, "", hint), FIELDS[kind], "", hint)


def require_snapshot_rule(rules: SnapshotRules) -> None:
    """Raise UsageError unless the rules say which snapshots of a backup are kept."""
    if rules.keep_last is None and rules.keep_newer is None:
        raise UsageError("nothing says which snapshots are kept", hint="--keep-last 30, or --keep-newer 90d")
    if rules.keep_last is not None and rules.keep_last < 1:
        raise UsageError(f"keep_last is {rules.keep_last}, expected 1 or more", hint="--keep-last 1")


def beside_the_store(*arguments: str) -> str:
    """Return the hint for a command that works only where the database and the store themselves are reached."""
    command = f"loreg --database-url URL --storage-url URL {shlex.join(arguments)}"
    return f"where the database and the store are reached: {command}"


def _known_fields(kind: str, document: Mapping[str, object], where: str, hint: str) -> Mapping[str, object]:
    """Return the fields that are not None. Raises UsageError for one that ``kind`` does not take."""
    document = {name: value for name, value in document.items() if value is not None}
    if unknown := sorted(document.keys() - FIELDS[kind]):
        raise UsageError(
            f"{where and f'{where}: '}{unknown[0]} is not known; there are {', '.join(sorted(FIELDS[kind]))}", hint=hint
        )
    return document


def _decode(type_: type[T], document: Mapping[str, object], names: Collection[str], where: str, hint: str) -> T:
    part = {name: value for name, value in document.items() if name in names}
    try:
        return decode(part, type_)
    except ValueError as error:
        raise UsageError(f"{where and f'{where}: '}{error}", hint=hint) from error
