"""Whether the server is up, whether it can work, and its measures. No token is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from loreg.errors import LoregError, UnavailableError
from loreg.server.metrics import render_metrics
from loreg.server.responses import error_responses, json_response
from loreg.server.state import VERSION, CurrentAccess, ServiceDep

routes = APIRouter(tags=["health"])


@dataclass(frozen=True)
class Health:
    """``status`` is ok; ``version`` says what answers, and ``catalog`` on what it stands, to who has a token."""

    status: str
    version: str
    catalog: str = ""


@routes.get("/healthz", response_model=Health)
def healthz() -> Response:
    """The process is up."""
    return json_response(Health("ok", VERSION))


@routes.get("/readyz", response_model=Health, responses={503: error_responses()[503]})
def readyz(service: ServiceDep, access: CurrentAccess) -> Response:
    """The catalog and the store can be used."""
    try:
        described = service.catalog.describe()
        service.store.check()
    except LoregError as error:  # whatever it is, there is nothing that who asks could do
        outside = "the server cannot work: its catalog or its store does not answer"
        raise UnavailableError(str(error), outside=outside) from None
    return json_response(Health("ok", VERSION, described if access.permissions else ""))


@routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics() -> Response:
    """Measures for Prometheus."""
    body, media_type = render_metrics()
    return Response(body, media_type=media_type)
