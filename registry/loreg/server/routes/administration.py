"""Routes of access: tokens, namespaces, and how much they store."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from loreg.entities import Namespace, Token, Usage, UsageBy
from loreg.parsing import parse_scopes
from loreg.refs import NO_NAMESPACE, parse_adapter_pattern
from loreg.schemas import TokenCreated, TokenRequest, VisibilityRequest, Whoami
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.dependencies import Namespace as NamespaceName
from loreg.server.responses import error_responses, json_response, no_content
from loreg.server.state import AsyncBackendDep, ServiceDep

routes = APIRouter(prefix="/api/v1", tags=["administration"], route_class=BodyRoute)


@routes.get("/whoami", response_model=Whoami, responses=error_responses())
async def whoami(backend: AsyncBackendDep) -> Response:
    """Return who the caller is, what they may do in which namespace, and until when their token holds."""
    caller = await backend.whoami()
    return json_response(Whoami(caller.author, caller.permissions, caller.token_id, caller.expires_at))


@routes.get("/usage", response_model=Usage, responses=error_responses())
async def usage(
    backend: AsyncBackendDep,
    by: UsageBy = UsageBy.NAMESPACE,
    pattern: Annotated[str, Query(max_length=200)] = "*",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Return a page of how much namespaces or adapters store, and with the first page the totals."""
    return json_response(await backend.usage(by, parse_adapter_pattern(pattern), limit, cursor))


@routes.get("/namespaces", response_model=tuple[Namespace, ...], responses=error_responses())
async def namespaces(backend: AsyncBackendDep) -> Response:
    """List the namespaces that the caller may read."""
    return json_response(await backend.namespaces())


@routes.put("/namespaces/{namespace}", status_code=204, responses=error_responses())
async def set_public(namespace: NamespaceName, body: VisibilityRequest, backend: AsyncBackendDep) -> Response:
    """Let everyone read a namespace, or only callers with a token for it."""
    await backend.set_public("" if namespace == NO_NAMESPACE else namespace, body.public)
    return no_content()


@routes.get("/tokens", response_model=tuple[Token, ...], responses=error_responses())
async def tokens(backend: AsyncBackendDep) -> Response:
    """List all tokens without their secrets, the newest first, expired and revoked ones too."""
    return json_response(await backend.tokens())


@routes.post("/tokens", status_code=201, response_model=TokenCreated, responses=error_responses(409))
async def create_token(body: TokenRequest, backend: AsyncBackendDep, service: ServiceDep) -> Response:
    """Create a token. The answer is the only one that has its secret."""
    grants = parse_scopes(body.scopes)
    created = await backend.create_token(body.name, grants, body.expires_at)
    service.end_open_access()
    return json_response(TokenCreated(*created), 201)


@routes.delete("/tokens/{token_id}", response_model=Token, responses=error_responses(404))
async def revoke_token(token_id: Annotated[int, Path(ge=1, lt=2**31)], backend: AsyncBackendDep) -> Response:
    """Revoke a token: it is refused from now on."""
    return json_response(await backend.revoke_token(token_id))
