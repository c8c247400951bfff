"""Who may do what, and who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from loreg.expressions import parse_grants
from loreg.messages import Identity, NewToken, TokenRequest, Visibility
from loreg.records import Event, Namespace, Page, Token
from loreg.refs import NO_NAMESPACE
from loreg.server.answers import errors, json, nothing
from loreg.server.bodies import BodyRoute
from loreg.server.inputs import Cursor, Limit
from loreg.server.inputs import Namespace as NamespaceName
from loreg.server.pages import page_of
from loreg.server.service import Asking, Books, Serving

routes = APIRouter(prefix="/api/v1", tags=["administration"], route_class=BodyRoute)


@routes.get("/whoami", response_model=Identity, responses=errors())
def whoami(access: Asking) -> Response:
    """Who asks, and what he may do."""
    return json(Identity(access.author, access.grants))


@routes.get("/events", response_model=Page[Event], responses=errors())
async def events(ledger: Books, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """A page of events, the newest first."""
    return await page_of(ledger.catalog, ledger.events, limit, cursor)


@routes.get("/namespaces", response_model=tuple[Namespace, ...], responses=errors())
async def namespaces(ledger: Books) -> Response:
    """All namespaces that may be read."""
    return json(await ledger.catalog.awaited(ledger.namespaces))


@routes.put("/namespaces/{namespace}", status_code=204, responses=errors())
async def set_public(namespace: NamespaceName, body: Visibility, ledger: Books) -> Response:
    """Let everyone read a namespace, or only those who have a token for it."""
    await ledger.catalog.awaited(ledger.set_public, "" if namespace == NO_NAMESPACE else namespace, body.public)
    return nothing()


@routes.get("/tokens", response_model=tuple[Token, ...], responses=errors())
async def tokens(ledger: Books) -> Response:
    """All tokens, the newest first, those that hold no more too."""
    return json(await ledger.catalog.awaited(ledger.tokens))


@routes.post("/tokens", status_code=201, response_model=NewToken, responses=errors(409))
async def create_token(body: TokenRequest, ledger: Books, service: Serving) -> Response:
    """A new token."""
    grants = parse_grants(body.scopes)
    made = await ledger.catalog.awaited(ledger.create_token, body.name, grants, body.expires_at)
    service.close()
    return json(NewToken(*made), 201)


@routes.delete("/tokens/{token_id}", response_model=Token, responses=errors(404))
async def revoke_token(token_id: Annotated[int, Path(ge=1, lt=2**31)], ledger: Books) -> Response:
    """Let a token hold no more, from now on."""
    return json(await ledger.catalog.awaited(ledger.revoke_token, token_id))
