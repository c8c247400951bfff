"""Who may do what, and who did what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from loreg.entities import Event, Namespace, Page, Token
from loreg.parsing import parse_grants
from loreg.refs import NO_NAMESPACE
from loreg.schemas import TokenCreated, TokenRequest, VisibilityRequest, Whoami
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.dependencies import Namespace as NamespaceName
from loreg.server.pages import page_of
from loreg.server.responses import error_responses, json_response, no_content
from loreg.server.state import BackendDep, CurrentAccess, ServiceDep

routes = APIRouter(prefix="/api/v1", tags=["administration"], route_class=BodyRoute)


@routes.get("/whoami", response_model=Whoami, responses=error_responses())
def whoami(access: CurrentAccess) -> Response:
    """Who asks, and what he may do."""
    return json_response(Whoami(access.author, access.permissions))


@routes.get("/events", response_model=Page[Event], responses=error_responses())
async def events(backend: BackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """A page of events, the newest first."""
    return await page_of(backend.catalog, backend.events, limit, cursor)


@routes.get("/namespaces", response_model=tuple[Namespace, ...], responses=error_responses())
async def namespaces(backend: BackendDep) -> Response:
    """All namespaces that may be read."""
    return json_response(await backend.catalog.run_async(backend.namespaces))


@routes.put("/namespaces/{namespace}", status_code=204, responses=error_responses())
async def set_public(namespace: NamespaceName, body: VisibilityRequest, backend: BackendDep) -> Response:
    """Let everyone read a namespace, or only those who have a token for it."""
    await backend.catalog.run_async(backend.set_public, "" if namespace == NO_NAMESPACE else namespace, body.public)
    return no_content()


@routes.get("/tokens", response_model=tuple[Token, ...], responses=error_responses())
async def tokens(backend: BackendDep) -> Response:
    """All tokens, the newest first, those that hold no more too."""
    return json_response(await backend.catalog.run_async(backend.tokens))


@routes.post("/tokens", status_code=201, response_model=TokenCreated, responses=error_responses(409))
async def create_token(body: TokenRequest, backend: BackendDep, service: ServiceDep) -> Response:
    """A new token."""
    grants = parse_grants(body.scopes)
    made = await backend.catalog.run_async(backend.create_token, body.name, grants, body.expires_at)
    service.close()
    return json_response(TokenCreated(*made), 201)


@routes.delete("/tokens/{token_id}", response_model=Token, responses=error_responses(404))
async def revoke_token(token_id: Annotated[int, Path(ge=1, lt=2**31)], backend: BackendDep) -> Response:
    """Let a token hold no more, from now on."""
    return json_response(await backend.catalog.run_async(backend.revoke_token, token_id))
