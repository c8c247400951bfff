"""What routes are given: names, refs and pages, within limits.

What only parses is ``async`` though it awaits nothing: FastAPI gives everything else a thread of its own, which takes
longer than the parsing.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from loreg.errors import UsageError
from loreg.refs import NO_NAMESPACE, AdapterName, Ref, parse_adapter_name, parse_ref

_ETAG = re.compile(r'"v([1-9][0-9]{0,8})"')

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=4096, description="Where the page before ended.")]
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
Namespace = Annotated[str, Path(max_length=96, description="The namespace; - for adapters without one.")]


Name = Annotated[str, Path(max_length=96, description="The adapter's name.")]
Selector = Annotated[
    str, Path(max_length=200, description="latest, v3, an alias, sha256:…, or v3@sha256:…", examples=["latest"])
]


async def adapter_of(namespace: Namespace, name: Name) -> AdapterName:
    """The adapter of a path."""
    return _adapter(namespace, name)


async def ref_of(namespace: Namespace, name: Name, selector: Selector) -> Ref:
    """The ref of a path."""
    return _ref(namespace, name, selector)


def ref_in(request: Request) -> Ref:
    """The ref of a request's path, for a route that has :data:`REF_PARAMETERS`.

    FastAPI needs longer to find a route's parameters than PostgreSQL to look up a version.
    """
    return _ref(**request.path_params)


REF_PARAMETERS = {
    "parameters": [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "maxLength": 200}}
        for name in ("namespace", "name", "selector")
    ]
}


def _ref(namespace: str, name: str, selector: str) -> Ref:
    sign = "@" if selector.startswith("sha256:") else ":"
    return parse_ref(f"{_adapter(namespace, name)}{sign}{selector}")


def _adapter(namespace: str, name: str) -> AdapterName:
    return parse_adapter_name(name if namespace == NO_NAMESPACE else f"{namespace}/{name}")


Adapter = Annotated[AdapterName, Depends(adapter_of)]
Selected = Annotated[Ref, Depends(ref_of)]


async def expected_of(
    if_match: Annotated[str | None, Header(description='The ETag that the alias had, e.g. "v3".')] = None,
    if_none_match: Annotated[str | None, Header(description="* if there must be no such alias.")] = None,
) -> int | None:
    """Which version an alias must mean for it to be moved (RFC 9110, 13.1); None if any will do."""
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


Expected = Annotated[int | None, Depends(expected_of)]


def etag(number: int) -> str:
    """The ETag of an alias that means the version of that number."""
    return f'"v{number}"'
