"""Base models, and how they came from one another."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from loreg.entities import BaseAdded, BaseDetails, BaseEdge, BaseModel, Page
from loreg.schemas import BaseRelationRequest, BaseRequest
from loreg.server.answers import errors, json
from loreg.server.bodies import BodyRoute
from loreg.server.inputs import Cursor, Limit
from loreg.server.pages import page_of
from loreg.server.service import Asking, Books, Serving

routes = APIRouter(prefix="/api/v1", tags=["bases"], route_class=BodyRoute)
Text = Annotated[str, Query(min_length=1, max_length=512, description="A name, or the beginning of a digest.")]


@routes.get("/bases", response_model=Page[BaseModel], responses=errors())
async def bases(backend: Books, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """A page of the known bases, the newest first."""
    return await page_of(backend.catalog, backend.bases, limit, cursor)


@routes.post("/bases", response_model=BaseAdded, responses=errors(404, 422))
def add_base(body: BaseRequest, backend: Books, service: Serving, access: Asking) -> Response:
    """Make a base known whose list of tensors was uploaded."""
    with service.uploads(access).accept({body.base.digest}, body.uploads, body.contents):
        return json(backend.add_base(body.base))


@routes.get("/base", response_model=BaseDetails, responses=errors(404, 409))
async def base(backend: Books, name: Text) -> Response:
    """All that is known of the base of that name or digest."""
    return json(await backend.catalog.run_async(backend.base, name))


@routes.get("/base-edges", response_model=tuple[BaseEdge, ...], responses=errors())
async def base_path(backend: Books, one: Text, other: Text) -> Response:
    """The fewest edges that lead from one base to the other, both by whole digest."""
    return json(await backend.catalog.run_async(backend.base_path, one, other))


@routes.post("/base-edges", response_model=BaseEdge, responses=errors(404, 409))
def relate(body: BaseRelationRequest, backend: Books) -> Response:
    """Record that one base came from another: declared, or verified where the two contents prove it."""
    return json(backend.relate(body.child, body.parent, body.kind, body.detail))
