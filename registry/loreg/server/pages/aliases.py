"""The form on ``/NS/NAME`` that moves an alias, for those who may write there."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from loreg.errors import UsageError
from loreg.refs import Ref, page_path, parse_adapter_name, parse_alias
from loreg.server.pages import sessions
from loreg.server.pages.visitor import PageRoute, get_visitor

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
MOVE = "/_/alias-move"
_MAX_LENGTH = 4096


def write_seen(aliases: Sequence[tuple[str, int]]) -> str:
    """Return what the form holds of the aliases as its page shows them: who sends it moves none that moved since."""
    return " ".join(f"{alias}={number}" for alias, number in aliases)


def _read_seen(text: str) -> dict[str, int]:
    pairs = (pair.partition("=") for pair in text.split())
    return {alias: int(number) for alias, _, number in pairs if number.isdecimal() and len(number) < 10}


@routes.post(MOVE)
async def move(request: Request) -> Response:
    """Let an alias mean a version, as ``loreg tag`` does, unless it means another by now than the page has shown."""
    visitor = await get_visitor(request)
    fields = await sessions.read_form(request, visitor.secret)
    names = ("adapter", "alias", "version", "seen", "reason")
    adapter, alias, version, seen, reason = (fields.get(name, "").strip()[:_MAX_LENGTH] for name in names)
    if not (version.isdecimal() and 0 < len(version) < 10):
        raise UsageError(f"expected a version's number, got {version!r}", hint="loreg tag --help")
    named, chosen = parse_adapter_name(adapter), parse_alias(alias)
    ref = Ref(named, number=int(version))
    await run_in_threadpool(visitor.backend.local.tag, ref, chosen, _read_seen(seen).get(chosen, 0), reason)
    return RedirectResponse(page_path(named), 303)
