"""Routes to monitor the server: whether it is up, whether it can work, and its metrics. None needs a token."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from loreg.errors import LoregError, UnavailableError
from loreg.server.metrics import render_metrics
from loreg.server.responses import error_responses, json_response
from loreg.server.state import CurrentAccess, ServiceDep
from loreg.version import VERSION

routes = APIRouter(tags=["health"])


@dataclass(frozen=True)
class Health:
    """``status`` is ok, ``version`` is loreg's; ``catalog`` describes the database, to callers with a token only."""

    status: str
    version: str
    catalog: str = ""


@routes.get("/healthz", response_model=Health)
def healthz() -> Response:
    """Return ok: the process is up."""
    return json_response(Health("ok", VERSION))


@routes.get("/readyz", response_model=Health, responses={503: error_responses()[503]})
def readyz(service: ServiceDep, access: CurrentAccess) -> Response:
    """Return ok if the catalog and the store can be used."""
    try:
        catalog = service.catalog.describe()
        service.store.check()
    except LoregError as error:  # whatever it is, the caller can do nothing about it
        outside = "the server cannot work: its catalog or its store does not answer"
        raise UnavailableError(str(error), outside=outside) from error
    return json_response(Health("ok", VERSION, catalog if access.permissions else ""))


@routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics() -> Response:
    """Return the metrics of the server in the text format of Prometheus."""
    body, media_type = render_metrics()
    return Response(body, media_type=media_type)
