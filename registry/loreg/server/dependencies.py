"""Parameters and dependencies of routes: names, refs, pages and ETags, within limits.

Functions that only parse are ``async`` though they await nothing: FastAPI runs all others in a thread, which takes
longer than the parsing.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from pydantic import StringConstraints

from loreg.errors import UsageError
from loreg.refs import NO_NAMESPACE, AdapterName, Ref, parse_adapter_name, parse_ref

_ETAG = re.compile(r'"v([1-9][0-9]{0,8})"')

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=4096, description="Where the page before ended.")]
Word = Annotated[str, StringConstraints(max_length=200)]
Words = Annotated[tuple[Word, ...], Query(max_length=20)]
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Namespace = Annotated[str, Path(max_length=96, description="The namespace; - for adapters without one.")]
Name = Annotated[str, Path(max_length=96, description="The adapter's name.")]
Selector = Annotated[
    str, Path(max_length=200, description="latest, v3, an alias, sha256:…, or v3@sha256:…", examples=["latest"])
]


async def get_adapter(namespace: Namespace, name: Name) -> AdapterName:
    """Return the adapter that the path names. Raises UsageError."""
    return _build_name(namespace, name)


async def get_ref(namespace: Namespace, name: Name, selector: Selector) -> Ref:
    """Return the ref that the path names. Raises UsageError."""
    return _build_ref(namespace, name, selector)


def parse_path_ref(request: Request) -> Ref:
    """Return the ref that a request's path names, for a route documented with :data:`REF_PARAMETERS`.

    FastAPI takes longer to resolve a route's parameters than PostgreSQL to look up a version.
    """
    return _build_ref(**request.path_params)


REF_PARAMETERS = {
    "parameters": [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 200}}
        for name in ("namespace", "name", "selector")
    ]
}


def _build_ref(namespace: str, name: str, selector: str) -> Ref:
    separator = "@" if selector.startswith("sha256:") else ":"
    return parse_ref(f"{_build_name(namespace, name)}{separator}{selector}")


def _build_name(namespace: str, name: str) -> AdapterName:
    return parse_adapter_name(name if namespace == NO_NAMESPACE else f"{namespace}/{name}")


AdapterDep = Annotated[AdapterName, Depends(get_adapter)]
RefDep = Annotated[Ref, Depends(get_ref)]


async def get_expected(
    if_match: Annotated[str | None, Header(description='The ETag that the alias had, e.g. "v3".')] = None,
    if_none_match: Annotated[str | None, Header(description="* if there must be no such alias.")] = None,
) -> int | None:
    """Return the number of the version that the alias must mean (RFC 9110, 13.1); 0 for none, None for any."""
    if if_match is not None:
        match = _ETAG.fullmatch(if_match.strip())
        if not match:
            raise UsageError(f"If-Match is {if_match[:40]!r}, expected the ETag of an alias", hint='If-Match: "v3"')
        return int(match[1])
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise UsageError(f"If-None-Match is {if_none_match[:40]!r}, expected *", hint="If-None-Match: *")
        return 0
    return None


ExpectedDep = Annotated[int | None, Depends(get_expected)]


def etag(number: int) -> str:
    """Return the ETag of an alias that means the version of that number."""
    return f'"v{number}"'
