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
_CUT = "…"


def write_seen(aliases: Sequence[tuple[str, int]]) -> str:
    """Return what the form holds of the aliases as its page shows them: who sends it moves none that moved since.

    Where they are too many the first are in it, and it ends so that :func:`_find_expected` knows.
    """
    text = ""
    for alias, number in aliases:
        pair = f"{alias}={number} "
        if len(text) + len(pair) + len(_CUT) > _MAX_LENGTH:
            return text + _CUT
        text += pair
    return text.rstrip()


def _find_expected(seen: str, alias: str) -> int | None:
    """Return the number that the alias meant on the page, 0 for none, None if the page had no place for it."""
    pairs = seen.split()
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name == alias and number.isdecimal() and len(number) < 10:
            return int(number)
    return None if pairs[-1:] == [_CUT] else 0


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
    await run_in_threadpool(visitor.backend.local.tag, ref, chosen, _find_expected(seen, chosen), reason)
    return RedirectResponse(page_path(named), 303)
