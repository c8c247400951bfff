"""Jobs for workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from loreg.entities import Job, Page
from loreg.schemas import JobRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import Cursor, Limit
from loreg.server.pages import page_of
from loreg.server.responses import error_responses, json_response
from loreg.server.state import BackendDep

routes = APIRouter(prefix="/api/v1", tags=["jobs"], route_class=BodyRoute)
JobId = Annotated[int, Path(ge=1, lt=2**31)]


@routes.post("/jobs", status_code=202, response_model=Job, responses=error_responses())
async def submit(body: JobRequest, backend: BackendDep) -> Response:
    """Ask a worker for a merge, a re-ranking or a bake."""
    return json_response(await backend.catalog.run_async(backend.submit, body.kind, body.request), 202)


@routes.get("/jobs", response_model=Page[Job], responses=error_responses())
async def jobs(backend: BackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """A page of jobs, the newest first."""
    return await page_of(backend.catalog, backend.jobs, limit, cursor)


@routes.get("/jobs/{job_id}", response_model=Job, responses=error_responses(404))
async def job(job_id: JobId, backend: BackendDep) -> Response:
    """How a job is doing."""
    return json_response(await backend.catalog.run_async(backend.job, job_id))


@routes.delete("/jobs/{job_id}", response_model=Job, responses=error_responses(404))
async def cancel(job_id: JobId, backend: BackendDep) -> Response:
    """Give a job up."""
    return json_response(await backend.catalog.run_async(backend.cancel_job, job_id))
