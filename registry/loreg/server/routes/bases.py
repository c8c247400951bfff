"""Routes of base models, and of how they came from one another."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Query, Response

from loreg.entities import (
    BaseAdded,
    BaseAttachment,
    BaseDetails,
    BaseEdge,
    BaseModel,
    Page,
    RecordedVerdicts,
    UpgradeVerdict,
)
from loreg.errors import UsageError
from loreg.refs import Ref, parse_ref
from loreg.schemas import AttachmentRequest, BaseRelationRequest, BaseRequest, UpgradeRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses, json_response
from loreg.server.state import AsyncBackendDep, BackendDep, CurrentAccess, ServiceDep

routes = APIRouter(prefix="/api/v1", tags=["bases"], route_class=BodyRoute)
_MAX_REFS, _MAX_PAGE, _MAX_CURSOR = 50, 1000, 4096
Text = Annotated[str, Query(min_length=1, max_length=512, description="A name, or the beginning of a digest.")]


@routes.get("/bases", response_model=Page[BaseModel], responses=error_responses())
async def bases(backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of the recorded bases, the newest first."""
    return await page_response(backend.bases, limit, cursor)


@routes.post("/bases", response_model=BaseAdded, responses=error_responses(404, 422))
def add_base(body: BaseRequest, backend: BackendDep, service: ServiceDep, access: CurrentAccess) -> Response:
    """Record a base whose list of tensors was uploaded or comes along."""
    with service.uploads(access).accept({body.base.digest}, body.uploads, body.contents):
        return json_response(backend.add_base(body.base))


@routes.get("/base", response_model=BaseDetails, responses=error_responses(404, 409))
async def base(backend: AsyncBackendDep, name: Text) -> Response:
    """Return all that is recorded of the base with this name or digest."""
    return json_response(await backend.base(name))


@routes.get("/base-edges", response_model=tuple[BaseEdge, ...], responses=error_responses())
async def base_path(backend: AsyncBackendDep, one: Text, other: Text) -> Response:
    """Return the shortest path of edges between two bases, both given by whole digest."""
    return json_response(await backend.base_path(one, other))


@routes.post("/base-edges", response_model=BaseEdge, responses=error_responses(404, 409))
def relate(body: BaseRelationRequest, backend: BackendDep) -> Response:
    """Record that one base came from another: declared, or verified where the two contents prove it."""
    return json_response(backend.relate(body.child, body.parent, body.kind, body.detail))


@routes.get("/base-upgrades", response_model=RecordedVerdicts, responses=error_responses(404, 409))
async def upgrade_verdicts(
    backend: AsyncBackendDep,
    old: Text,
    new: Text,
    verdict: UpgradeVerdict | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Return a page of what the upgrade of a base means for its versions, those that move exactly first."""
    return await page_response(functools.partial(backend.upgrade_verdicts, old, new, verdict), limit, cursor)


@routes.post("/base-upgrades", response_model=int, responses=error_responses(404, 409))
async def record_upgrade(body: UpgradeRequest, backend: AsyncBackendDep) -> Response:
    """Record what the upgrade of a base means for up to 100 versions; return of how many it was recorded."""
    return json_response(await backend.record_upgrade(body.upgrade))


@routes.post("/base-attachments", response_model=Page[BaseAttachment], responses=error_responses(404, 409, 422))
def attach_base(body: AttachmentRequest, backend: BackendDep) -> Response:
    """Attach a base to versions that have none: those of the refs, or a page of those that declare it and fit."""
    return json_response(backend.attach_base(body.base, _refs(body), body.limit, body.cursor))


@routes.post("/base-detachments", response_model=Page[BaseAttachment], responses=error_responses(404, 409, 422))
def detach_base(body: AttachmentRequest, backend: BackendDep) -> Response:
    """Take back what was attached: for the refs, or a page of the versions that have the base."""
    if not body.base and not body.refs:
        raise UsageError("expected a base, or refs", hint="loreg base detach --help")
    return json_response(backend.detach_base(body.base, _refs(body), body.limit, body.cursor))


def _refs(body: AttachmentRequest) -> tuple[Ref, ...]:
    """Return the refs. Raises UsageError for too many, or for a page without versions."""
    if len(body.refs) > _MAX_REFS or not 1 <= body.limit <= _MAX_PAGE or len(body.cursor or "") > _MAX_CURSOR:
        raise UsageError(f"expected {_MAX_REFS} refs at most, and a page of 1 to {_MAX_PAGE}", hint="fewer at a time")
    return tuple(map(parse_ref, body.refs))
