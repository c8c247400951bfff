"""Routes that compute with stored weights: what a merge would keep and lose, and what is inside a version."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import StringConstraints

from loreg.entities import AdapterSimilarity, AdapterSpectra, MergePreview
from loreg.refs import parse_ref
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import RefDep
from loreg.server.responses import error_responses, json_response
from loreg.server.state import BackendDep

routes = APIRouter(prefix="/api/v1", tags=["versions"], route_class=BodyRoute)
_SourceRef = Annotated[str, StringConstraints(min_length=1, max_length=300)]


@routes.get("/merge-preview", response_model=MergePreview, responses=error_responses(404, 409, 422))
def merge_preview(
    backend: BackendDep,
    source: Annotated[tuple[_SourceRef, ...], Query(max_length=16, description="A ref, as team/news:v3; repeat it.")],
    weight: Annotated[tuple[float, ...], Query(max_length=16, description="One for each source; 1 if none.")] = (),
    rank: Annotated[int | None, Query(ge=1, le=65536, description="Of every module; nothing is lost without.")] = None,
    method: Annotated[str, Query(max_length=40, description="linear, slerp, karcher or model_stock.")] = "linear",
) -> Response:
    """Say what an exact merge of versions keeps and loses at a rank: the figures of the merge's certificate.

    The first preview of these versions reads their files; every later one, at any weights, none.
    """
    refs = tuple(map(parse_ref, source))
    return json_response(backend.preview_merge(refs, weight or (1.0,) * len(refs), rank, method))


@routes.get(
    "/adapters/{namespace}/{name}/versions/{selector}/spectra",
    response_model=AdapterSpectra,
    responses=error_responses(404, 409),
)
def spectra(ref: RefDep, backend: BackendDep) -> Response:
    """Return the singular values of each module's delta; the files of the version are read by the first request."""
    return json_response(backend.spectra(ref))


@routes.get("/comparison", response_model=tuple[AdapterSimilarity, ...], responses=error_responses(404, 409, 422))
def comparison(
    backend: BackendDep,
    source: Annotated[tuple[_SourceRef, ...], Query(max_length=16, description="A ref, as team/news:v3; repeat it.")],
) -> Response:
    """Say how alike every two of 2 to 16 versions are; the files of these versions are read by the first request."""
    return json_response(tuple(backend.compare_versions(tuple(map(parse_ref, source)))))
