"""Routes of jobs, which workers do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from loreg.entities import Job, Page
from loreg.schemas import JobRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses, json_response
from loreg.server.state import AsyncBackendDep

routes = APIRouter(prefix="/api/v1", tags=["jobs"], route_class=BodyRoute)
JobId = Annotated[int, Path(ge=1, lt=2**31)]


@routes.post("/jobs", status_code=202, response_model=Job, responses=error_responses())
async def submit(body: JobRequest, backend: AsyncBackendDep) -> Response:
    """Submit a job, to be done by a worker: a merge, a re-ranking, a bake, or for administrators upkeep."""
    return json_response(await backend.submit(body.kind, body.request), 202)


@routes.get("/jobs", response_model=Page[Job], responses=error_responses())
async def jobs(backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of jobs that the caller may read, the newest first."""
    return await page_response(backend.jobs, limit, cursor)


@routes.get("/jobs/{job_id}", response_model=Job, responses=error_responses(404))
async def job(job_id: JobId, backend: AsyncBackendDep) -> Response:
    """Return a job: its state, its progress, and its result or error."""
    return json_response(await backend.job(job_id))


@routes.delete("/jobs/{job_id}", response_model=Job, responses=error_responses(404))
async def cancel(job_id: JobId, backend: AsyncBackendDep) -> Response:
    """Cancel a job; one that runs stops when its worker next reports its progress."""
    return json_response(await backend.cancel_job(job_id))
