"""What may be asked of a worker: refs in, a version or a model out, and no path of the worker's machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from loreg.errors import UsageError
from loreg.refs import NO_NAMESPACE, parse_adapter_name, parse_ref

#: Bytes of JSON that what is asked for may have.
MOST_BYTES = 32 * 1024

_SAID = {"name", "tasks", "metrics", "labels", "aliases", "message"}
_HOW = {"weights", "method", "parameters", "weights_for", "scale", "rank", "extras", "initial", "base", "allow_derived"}
#: The arguments that each kind takes; ``base`` and a bake's ``name`` are folders among those that a worker was given.
ARGUMENTS = {
    "merge": {"sources"} | _HOW | _SAID,
    "rerank": {"source", "rank", "initial", "base"} | _SAID,
    "bake": {"sources", "name", "dtype", "verify"} | _HOW,
}
#: What each argument has to be, and that in words.
_LIST, _TEXT, _OBJECT, _FLAG = (list | tuple, "a list"), (str, "text"), (dict, "an object"), (bool, "true or false")
_TYPES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("sources", "weights", "initial", "tasks", "metrics", "aliases"), _LIST),
    **dict.fromkeys(("source", "name", "method", "extras", "message", "dtype", "base"), _TEXT),
    **dict.fromkeys(("parameters", "weights_for", "labels"), _OBJECT),
    **dict.fromkeys(("allow_derived", "verify"), _FLAG),
    "scale": (int | float, "a number"),
    "rank": (int | dict, "a number or a rule"),
}
_OF_TEXTS = ("sources", "initial", "tasks", "aliases")
_RANK_RULES = {"fixed", "energy", "tolerance", "budget", "fit"}
_LONGEST = 250
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def namespace_of(kind: str, request: Mapping[str, Any]) -> str:
    """Where the result of the job will go: only who may write there may ask for it, and a bake goes below it.

    Raises UsageError for a request that no worker may carry out.
    """
    if kind not in ARGUMENTS:
        raise UsageError(f"there is no kind of job {kind!r}", hint=f"one of {', '.join(ARGUMENTS)}")
    if strange := sorted(request.keys() - ARGUMENTS[kind]):
        raise UsageError(f"a worker takes no {strange[0]!r} for {kind}", hint="leave out --remote, and do it here")
    _refuse_large(request)
    _refuse_other_types(kind, request)
    sources = [request.get("source")] if kind == "rerank" else request.get("sources")
    if not isinstance(sources, list | tuple) or not sources:
        raise UsageError(f"a {kind} needs refs to work on", hint=f"loreg {kind} team/a --remote")
    for ref in (*sources, *(request.get("initial") or ())):
        parse_ref(ref)  # a folder is of one machine, and the worker's is another
    if (base := request.get("base")) is not None or kind == "bake":
        _refuse_no_folder(base)
    name = str(request.get("name") or "")
    return _namespace_of_model(name) if kind == "bake" else parse_adapter_name(name).namespace


def pin_refs(request: Mapping[str, Any], pin: Callable[[str], str]) -> dict[str, Any]:
    """The request with every ref as ``pin`` names it: tried again, it is about the same versions."""
    sources, initial = request.get("sources") or (), request.get("initial") or ()
    refs = {ref: pin(ref) for ref in (*sources, *initial, *filter(None, [request.get("source")]))}
    lists = {key: [refs[ref] for ref in some] for key, some in (("sources", sources), ("initial", initial)) if some}
    words = {key: refs[request[key]] for key in ("source", "extras") if request.get(key) in refs}
    return {**request, **lists, **words}


def _refuse_large(request: Mapping[str, Any]) -> None:
    try:
        size = len(json.dumps(dict(request), allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the request is not JSON ({error})", hint="leave out --remote, and do it here") from None
    if size > MOST_BYTES:
        raise UsageError(
            f"the request has {size:,} bytes, and {MOST_BYTES:,} are enough for one", hint="use a shorter message"
        )


def _refuse_other_types(kind: str, request: Mapping[str, Any]) -> None:
    """Raise UsageError for an argument that no verb takes so: the worker would find out much later."""
    for name, value in request.items():
        type_, said = _TYPES[name]
        if value is not None and not isinstance(value, type_):
            raise _wrong(kind, name, value, said)
        if name in _OF_TEXTS and not all(isinstance(each, str) for each in value or ()):
            raise _wrong(kind, name, value, "a list of texts")
    rank = request.get("rank")
    if isinstance(rank, dict) and not rank.keys() <= _RANK_RULES:
        raise _wrong(kind, "rank", rank, f"a number, or one of {', '.join(sorted(_RANK_RULES))}")


def _wrong(kind: str, name: str, value: Any, expected: str) -> UsageError:
    return UsageError(f"{name} is {value!r:.80}, expected {expected}", hint=f"loreg {kind} --help")


def _refuse_no_folder(base: Any) -> None:
    if not (isinstance(base, str) and len(base) <= _LONGEST and _FOLDER.fullmatch(base)):
        raise UsageError(
            f"base is {str(base or '')[:80]!r}, expected the name of a folder that the worker was given",
            hint="loreg worker --bases DIR --models DIR",
        )


def _namespace_of_model(name: str) -> str:
    """The namespace that a model is below, as an adapter of that name is."""
    namespace, _, model = name.partition("/")
    if not model:
        raise UsageError(
            f"the model is to be called {name[:80]!r}, expected NAMESPACE/NAME with a namespace that you may write to",
            hint=f"--to team/{name[:80] or 'model'}, or {NO_NAMESPACE}/{name[:80] or 'model'} below no namespace",
        )
    parse_adapter_name(model if namespace == NO_NAMESPACE else name)
    return "" if namespace == NO_NAMESPACE else namespace
