"""Routes of deployments: which folders and servers have which versions, as they tell."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from loreg.entities import Deployment, DeploymentReport, Page
from loreg.refs import parse_adapter_pattern
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses, no_content
from loreg.server.state import AsyncBackendDep

routes = APIRouter(prefix="/api/v1", tags=["deployments"], route_class=BodyRoute)


@routes.put("/deployments", status_code=204, responses=error_responses(404))
async def report_deployment(body: Annotated[DeploymentReport, Body()], backend: AsyncBackendDep) -> Response:
    """Record what a folder or a replica of a server has now, in place of what it had."""
    await backend.report_deployment(body)
    return no_content()


@routes.get("/deployments", response_model=Page[Deployment], responses=error_responses())
async def deployments(
    backend: AsyncBackendDep,
    pattern: Annotated[str, Query(max_length=200, description="Of these adapters, as 'team/*'.")] = "*",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Return a page of where versions are, by server; of what the caller has a right of its own to read."""
    fetch = functools.partial(backend.deployments, parse_adapter_pattern(pattern))
    return await page_response(fetch, limit, cursor)
