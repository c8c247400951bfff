"""Check what a worker is asked for: refs in, a version, a model or a report out, no path of the worker's machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from loreg.entities import JobKind, Query, SnapshotRules
from loreg.errors import UsageError
from loreg.parsing import parse_span
from loreg.refs import NO_NAMESPACE, parse_adapter_name, parse_adapter_pattern, parse_ref
from loreg.requests import (
    FIELDS,
    BackupAction,
    UpkeepRequest,
    beside_the_store,
    read_request,
    read_upkeep_request,
    require_snapshot_rule,
)
from loreg.selectors import parse_selector
from loreg.storage.factory import refuse_keys

MAX_REQUEST_BYTES = 32 * 1024  # of JSON

_MAX_BASE_NAME = 250  # characters
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def namespace_of(kind: str, request: Mapping[str, object]) -> str:
    """Return the namespace that the job's result will go to, ``*`` for what is about the whole registry.

    There the caller must have the role of the kind. Raises UsageError for a request that no worker may carry out.
    """
    if kind not in FIELDS:
        raise UsageError(f"there is no kind of job {kind!r}", hint=f"one of {', '.join(FIELDS)}")
    if unknown := sorted(request.keys() - FIELDS[kind]):
        raise UsageError(f"a worker takes no {unknown[0]!r} for {kind}", hint="leave out --remote, and do it here")
    _refuse_large(request)
    if JobKind(kind).is_upkeep:
        _check_upkeep(kind, request)
        return "*"
    parsed = read_request(kind, request, hint=f"loreg {kind} --help")
    if not parsed.sources:
        raise UsageError(f"a {kind} needs refs to work on", hint=f"loreg {kind} team/a --remote")
    for ref in (*parsed.sources, *parsed.options.initial):
        parse_ref(ref)  # a folder is of one machine, and the worker's is another
    if parsed.base is not None or kind == JobKind.BAKE:
        _require_folder_name(parsed.base or "")
    name = parsed.name or ""
    return _namespace_of_model(name) if kind == JobKind.BAKE else parse_adapter_name(name).namespace


def _check_upkeep(kind: str, request: Mapping[str, object]) -> None:
    """Raise UsageError for what no worker understands, or a place that is of the caller's machine."""
    parsed = read_upkeep_request(kind, request, hint=f"loreg {kind} --help")
    for ref in parsed.refs:
        parse_ref(ref)
    parse_span(parsed.grace)
    parse_adapter_pattern(parsed.pattern)
    newer = parse_span(parsed.keep_newer) if parsed.keep_newer is not None else None
    if parsed.action is BackupAction.FORGET:
        require_snapshot_rule(SnapshotRules(parsed.keep_last, newer))
    if kind == JobKind.BACKUP and not parsed.target:
        raise UsageError("a backup needs a place to go to", hint="loreg backup s3://bucket/prefix")
    if kind == JobKind.MAP:
        _check_map(parsed, request.get("search"))
    for place in (*parsed.sources, parsed.target):
        refuse_keys(place)  # every administrator sees the request
        if place.startswith((".", "~")):
            arguments = ("repair", "--from", place) if kind == JobKind.REPAIR else ("backup", place)
            raise UsageError(
                f"{place[:80]!r} is a folder of your machine, which no worker reads or writes",
                hint=beside_the_store(*arguments),
            )


def _check_map(parsed: UpkeepRequest, search: object) -> None:
    if not parsed.probe:
        raise UsageError("no probe is named", hint="loreg map check")
    if bool(parsed.selectors) == (parsed.search is not None):
        raise UsageError("expected selectors or a search, and not both", hint="loreg map check 'team/*:prod'")
    if isinstance(search, Mapping) and (unknown := sorted(search.keys() - set(Query.__struct_fields__))):
        raise UsageError(
            f"a search has no {str(unknown[0])[:80]!r}; it has {', '.join(Query.__struct_fields__)}",
            hint="loreg map check --task qa",
        )
    for text in parsed.selectors:
        parse_selector(text)


def pin_refs(request: Mapping[str, Any], pin: Callable[[str], str]) -> dict[str, object]:
    """Return the request with every ref as ``pin`` names it: another attempt is then about the same versions."""
    sources, initial = request.get("sources") or (), request.get("initial") or ()
    refs = {ref: pin(ref) for ref in (*sources, *initial, *filter(None, [request.get("source")]))}
    lists = {key: [refs[ref] for ref in request[key]] for key in ("sources", "initial") if request.get(key)}
    single = {key: refs[request[key]] for key in ("source", "extras") if request.get(key) in refs}
    return {**request, **lists, **single}


def _refuse_large(request: Mapping[str, object]) -> None:
    try:
        size = len(json.dumps(dict(request), allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the request is not JSON ({error})", hint="leave out --remote, and do it here") from error
    if size > MAX_REQUEST_BYTES:
        raise UsageError(
            f"the request has {size:,} bytes, and {MAX_REQUEST_BYTES:,} are enough for one",
            hint="use a shorter message",
        )


def _require_folder_name(base: str) -> None:
    if not (len(base) <= _MAX_BASE_NAME and _FOLDER.fullmatch(base)):
        raise UsageError(
            f"base is {base[:80]!r}, expected the name of a folder that the worker was given",
            hint="whoever runs the worker names the folders: loreg worker --help",
        )


def _namespace_of_model(name: str) -> str:
    """Return the namespace of a model named ``NAMESPACE/NAME``, empty for ``-/NAME``. Raises UsageError."""
    namespace, _, model = name.partition("/")
    if not model:
        raise UsageError(
            f"the model is to be called {name[:80]!r}, expected NAMESPACE/NAME with a namespace that you may write to",
            hint=f"--to team/{name[:80] or 'model'}, or {NO_NAMESPACE}/{name[:80] or 'model'} below no namespace",
        )
    parse_adapter_name(model if namespace == NO_NAMESPACE else name)
    return "" if namespace == NO_NAMESPACE else namespace
