"""What may be asked of a worker: refs in, a version or a model out, and no path of the worker's machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loreg.errors import UsageError
from loreg.refs import parse_adapter_name, parse_ref

_SAID = {"name", "tasks", "metrics", "labels", "aliases", "message"}
_HOW = {"weights", "method", "parameters", "weights_for", "scale", "rank", "extras", "initial", "base", "allow_derived"}
#: The arguments that each kind takes; ``base`` and a bake's ``name`` are folders among those that a worker was given.
ARGUMENTS = {
    "merge": {"sources"} | _HOW | _SAID,
    "rerank": {"source", "rank", "initial", "base"} | _SAID,
    "bake": {"sources", "name", "dtype", "verify"} | _HOW,
}
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def namespace_of(kind: str, request: Mapping[str, Any]) -> str:
    """Where the result of the job will go. Raises UsageError for a request that no worker may carry out."""
    if kind not in ARGUMENTS:
        raise UsageError(f"there is no kind of job {kind!r}", hint=f"one of {', '.join(ARGUMENTS)}")
    if strange := sorted(request.keys() - ARGUMENTS[kind]):
        raise UsageError(f"a worker takes no {strange[0]!r} for {kind}", hint="leave out --remote, and do it here")
    sources = [request.get("source")] if kind == "rerank" else request.get("sources")
    if not isinstance(sources, list | tuple) or not sources:
        raise UsageError(f"a {kind} needs refs to work on", hint=f"loreg {kind} team/a --remote")
    for ref in (*sources, *(request.get("initial") or ())):
        parse_ref(str(ref))  # a folder is of one machine, and the worker's is another
    for folder in ("base", *(["name"] if kind == "bake" else [])):
        given = request.get(folder)
        if (given is not None or kind == "bake") and not _FOLDER.fullmatch(str(given or "")):
            raise UsageError(
                f"{folder} is {str(given or '')[:80]!r}, expected the name of a folder that the worker was given",
                hint="loreg worker --bases DIR --models DIR",
            )
    if kind == "bake":
        return parse_ref(str(sources[0])).adapter.namespace
    return parse_adapter_name(str(request.get("name") or "")).namespace
