"""Routes of canaries, which have a share of an alias, and of promotions that are watched."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loreg.entities import AliasShares, Canary, Promotion, Version
from loreg.errors import UsageError
from loreg.refs import parse_alias, parse_ref
from loreg.schemas import CanaryRequest, PromotionRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import AdapterDep, ExpectedDep, etag
from loreg.server.responses import error_responses, json_response
from loreg.server.state import AsyncBackendDep

routes = APIRouter(prefix="/api/v1", tags=["versions"], route_class=BodyRoute)
_IN_ADAPTER = "/adapters/{namespace}/{name}"
_ALIAS = _IN_ADAPTER + "/aliases/{alias}"


@routes.get(_IN_ADAPTER + "/canaries", response_model=tuple[Canary, ...], responses=error_responses(404))
async def canaries(adapter: AdapterDep, backend: AsyncBackendDep) -> Response:
    """List the versions of an adapter that have a share of an alias."""
    return json_response(await backend.canaries(adapter))


@routes.get(_ALIAS + "/shares", response_model=AliasShares, responses=error_responses(404))
async def alias_shares(adapter: AdapterDep, alias: str, backend: AsyncBackendDep) -> Response:
    """Return what an alias means to a router: a version, and perhaps another one with a share."""
    return json_response(await backend.alias_shares(adapter, parse_alias(alias)))


@routes.put(_ALIAS + "/canary", response_model=AliasShares, responses=error_responses(404, 409, 422))
async def begin_canary(adapter: AdapterDep, alias: str, body: CanaryRequest, backend: AsyncBackendDep) -> Response:
    """Let a version have a share of an alias that means another one."""
    ref = parse_ref(body.ref)
    if ref.adapter != adapter:
        raise UsageError(f"an alias of {adapter} cannot mean {ref}", hint=f"a ref of {adapter}")
    return json_response(await backend.begin_canary(ref, parse_alias(alias), body.share, body.rollback_if))


@routes.delete(_ALIAS + "/canary", response_model=AliasShares, responses=error_responses(404))
async def end_canary(adapter: AdapterDep, alias: str, backend: AsyncBackendDep) -> Response:
    """Let an alias mean one version for all who ask again."""
    return json_response(await backend.end_canary(adapter, parse_alias(alias)))


@routes.get(_IN_ADAPTER + "/promotions", response_model=tuple[Promotion, ...], responses=error_responses(404))
async def promotions(adapter: AdapterDep, backend: AsyncBackendDep) -> Response:
    """List the aliases of an adapter that go back by themselves when their version measures badly."""
    return json_response(await backend.promotions(adapter))


@routes.put(_ALIAS + "/promotion", response_model=Version, responses=error_responses(404, 409, 412, 422))
async def promote(
    adapter: AdapterDep, alias: str, body: PromotionRequest, expected: ExpectedDep, backend: AsyncBackendDep
) -> Response:
    """Set an alias to a version until a metric of it says otherwise; with If-Match, only if it was not moved."""
    ref = parse_ref(body.ref)
    if ref.adapter != adapter:
        raise UsageError(f"an alias of {adapter} cannot mean {ref}", hint=f"a ref of {adapter}")
    version = await backend.promote(ref, parse_alias(alias), body.rollback_if, expected)
    return json_response(version, headers={"ETag": etag(version.number)})
