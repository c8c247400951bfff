"""Routes of base models, and of how they came from one another."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from loreg.entities import BaseAdded, BaseDetails, BaseEdge, BaseModel, Page
from loreg.schemas import BaseRelationRequest, BaseRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.pages import page_response
from loreg.server.responses import error_responses, json_response
from loreg.server.state import AsyncBackendDep, BackendDep, CurrentAccess, ServiceDep

routes = APIRouter(prefix="/api/v1", tags=["bases"], route_class=BodyRoute)
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
