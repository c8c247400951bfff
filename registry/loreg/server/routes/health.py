"""Whether the server is up, whether it can work, and its measures. No token is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from loreg.server.answers import errors, json
from loreg.server.measures import exposition
from loreg.server.service import VERSION, Serving

routes = APIRouter(tags=["health"])


@dataclass(frozen=True)
class Health:
    """``status`` is ok; ``catalog`` and ``version`` say what answers."""

    status: str
    version: str
    catalog: str = ""


@routes.get("/healthz", response_model=Health)
def healthz() -> Response:
    """The process is up."""
    return json(Health("ok", VERSION))


@routes.get("/readyz", response_model=Health, responses={503: errors()[503]})
def readyz(service: Serving) -> Response:
    """The catalog and the store can be used."""
    described = service.catalog.describe()
    service.store.check()
    return json(Health("ok", VERSION, described))


@routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics() -> Response:
    """Measures for Prometheus."""
    body, media_type = exposition()
    return Response(body, media_type=media_type)
