"""The page ``/admin``: tokens, namespaces and storage; for administrators of everything alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from loreg.entities import Event, Namespace, Role, Token, UpkeepAction, Usage, UsageBy
from loreg.errors import NotFoundError, UsageError
from loreg.local.authorization import require
from loreg.local.backend import LocalBackend
from loreg.parsing import parse_scopes, parse_span
from loreg.refs import ALL_ADAPTERS, NO_NAMESPACE, parse_adapter_name
from loreg.server.pages import sessions
from loreg.server.pages.commands import command
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
ADMIN = "/admin"
CREATE_TOKEN, REVOKE_TOKEN, SET_NAMESPACE = "/_/token-create", "/_/token-revoke", "/_/namespace-set"
_MAX_NAMESPACES = 500  # whose bytes are counted
_SOON = timedelta(days=14)
_STALE = timedelta(days=8)  # of upkeep that is done every week
_MAX_ID = 2**31 - 1


class TokenRow(Value, frozen=True):
    """A token: its scopes as they are typed, and whether it holds, and not for long."""

    token: Token
    scopes: str
    is_live: bool
    ends_soon: bool


class UpkeepRow(Value, frozen=True):
    """When something was last done to the whole registry, what came of it in words, and the command that does it."""

    name: str
    last: Event | None
    days: int
    is_stale: bool
    outcome: str
    command: str


class StorageView(Value, frozen=True):
    """What is stored, by namespace."""

    usage: Usage
    upkeep: tuple[UpkeepRow, ...]


class AdminView(Value, frozen=True):
    """What the page shows; ``storage`` is None until it is asked for, ``secret`` is that of the token just made."""

    tokens: tuple[TokenRow, ...]
    namespaces: tuple[Namespace, ...]
    storage: StorageView | None
    may_ask: bool
    made: str = ""
    secret: str = ""


@routes.api_route(ADMIN, methods=["GET", "HEAD"])
async def admin(request: Request) -> Response:
    """Show who may what, and what is stored; the latter, which is counted, in a second request."""
    visitor = await get_visitor(request)
    return await _show(visitor, with_storage=bool(request.query_params.get("storage")))


@routes.post(CREATE_TOKEN)
async def create_token(request: Request) -> Response:
    """Make a token, and show its secret in this answer and never again."""
    visitor = await get_visitor(request)
    fields = await sessions.read_form(request, visitor.secret)
    permissions = parse_scopes(fields.get("scopes", "").replace(",", " ").split())
    span = fields.get("expires", "").strip()
    expires_at = datetime.now(UTC) + parse_span(span) if span else None
    token, secret = await visitor.backend.create_token(fields.get("name", "").strip(), permissions, expires_at)
    visitor.service.end_open_access()
    return await _show(visitor, made=token.name, secret=secret)


@routes.post(REVOKE_TOKEN)
async def revoke_token(request: Request) -> Response:
    """Revoke a token: it does not hold from the next request on."""
    visitor = await get_visitor(request)
    text = (await sessions.read_form(request, visitor.secret)).get("token", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= _MAX_ID):
        raise NotFoundError("there is no such token", hint="loreg token ls")
    await visitor.backend.revoke_token(int(text))
    return RedirectResponse(ADMIN, 303)


@routes.post(SET_NAMESPACE)
async def set_namespace(request: Request) -> Response:
    """Make a namespace public or private."""
    visitor = await get_visitor(request)
    fields = await sessions.read_form(request, visitor.secret)
    name, visibility = fields.get("namespace", "").strip(), fields.get("visibility", "")
    if not name or visibility not in ("public", "private"):
        raise UsageError("expected a namespace, and public or private", hint="loreg namespace set --help")
    if name != NO_NAMESPACE:
        parse_adapter_name(f"{name}/x")
    await visitor.backend.set_public("" if name == NO_NAMESPACE else name, visibility == "public")
    return RedirectResponse(ADMIN, 303)


async def _show(visitor: Visitor, *, with_storage: bool = False, made: str = "", secret: str = "") -> Response:
    require(visitor.access, Role.ADMIN, "*")
    tokens = await visitor.backend.tokens()
    now = datetime.now(UTC)
    view = AdminView(
        tokens=tuple(_to_row(token, now) for token in tokens),
        namespaces=await visitor.backend.namespaces(),
        storage=await visitor.backend.run(_count_storage, now) if with_storage else None,
        may_ask=bool(visitor.secret),
        made=made,
        secret=secret,
    )
    return page(
        visitor,
        "admin.html",
        title="Administration",
        view=view,
        command=command("token", "ls"),
        api="/api/v1/tokens",
        document=tokens,
    )


def _to_row(token: Token, now: datetime) -> TokenRow:
    scopes = " ".join(f"{role}:{namespace or NO_NAMESPACE}" for namespace, role in token.grants.items())
    is_live = token.revoked_at is None and (token.expires_at is None or token.expires_at > now)
    ends_soon = is_live and token.expires_at is not None and token.expires_at - now < _SOON
    return TokenRow(token, scopes, is_live, ends_soon)


def _count_storage(backend: LocalBackend, now: datetime) -> StorageView:
    usage = backend.usage(UsageBy.NAMESPACE, ALL_ADAPTERS, _MAX_NAMESPACES, None)
    rows = (
        (UpkeepAction.VERIFY, command("verify", "--read-data")),
        (UpkeepAction.BACKUP, command("backup", "s3://bucket/prefix")),
        (UpkeepAction.GC, command("gc")),
    )
    return StorageView(
        usage, tuple(_to_upkeep(action, backend.last_upkeep(action), text, now) for action, text in rows)
    )


def _to_upkeep(action: UpkeepAction, last: Event | None, text: str, now: datetime) -> UpkeepRow:
    age = now - last.at if last is not None else timedelta()
    is_stale = action is not UpkeepAction.GC and (last is None or age > _STALE)
    return UpkeepRow(action, last, max(age.days, 0), is_stale, _describe(action, last), text)


def _describe(action: UpkeepAction, last: Event | None) -> str:
    """Return what an event says of what came of it."""
    if last is None:
        return ""
    detail = last.detail
    if action is UpkeepAction.VERIFY:
        return f"{detail.get('broken', 0)} of {detail.get('references', 0)} broken, {detail.get('orphans', 0)} orphans"
    if action is UpkeepAction.BACKUP:
        missing = detail.get("missing", 0)
        return f"{detail.get('blobs', 0)} blobs, {missing} not whole, to {detail.get('to', '')}"
    return ""
