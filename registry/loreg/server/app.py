"""Put the application together: its routes, error responses and middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from loreg.server.cleanup import periodic_cleanup
from loreg.server.event_hub import EventHub
from loreg.server.middleware import RequestMiddleware
from loreg.server.pages.router import install_pages
from loreg.server.problems import ProblemDetails, install_problems
from loreg.server.responses import error_responses
from loreg.server.routes import (
    administration,
    bases,
    blobs,
    canaries,
    deployments,
    events,
    health,
    hub_read,
    hub_write,
    jobs,
    lorax,
    previews,
    search,
    versions,
    webhooks,
)
from loreg.server.state import Service
from loreg.server.webhooks import deliver_to_webhooks
from loreg.version import VERSION

_CHANGING = {"post", "put", "patch", "delete"}


def create_app(service: Service) -> FastAPI:
    """Create the application on this service; it closes the catalog when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.catalog.use_event_loop()
        async with periodic_cleanup(service), app.state.event_hub.running(), deliver_to_webhooks(service):
            yield
        await service.catalog.aclose()

    app = FastAPI(
        title="loreg",
        version=VERSION,
        description="The registry for LoRA adapters. Errors are RFC 9457 problem details with loreg's code and hint.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # its pages would load scripts from another site
        redoc_url=None,
    )
    app.state.service, app.state.event_hub = service, EventHub(service)
    install_problems(app)
    for module in (
        search,
        versions,
        canaries,
        health,
        bases,
        blobs,
        administration,
        deployments,
        events,
        webhooks,
        jobs,
        previews,
        lorax,
        hub_write,
        hub_read,
    ):
        app.include_router(module.routes)
    install_pages(app)
    app.openapi = _with_problems(app.openapi)  # type: ignore[method-assign]
    app.add_middleware(RequestMiddleware, service=service)
    return app


def _with_problems(describe: Callable[[], dict[str, object]]) -> Callable[[], dict[str, object]]:
    """Add the schema of problems and the way to authenticate to the OpenAPI description.

    Every route that changes something may also answer 409: the registry was moved to another place.
    """

    def describe_with_problems() -> dict[str, object]:
        document = describe()
        components: dict[str, dict[str, object]] = document.setdefault("components", {})  # type: ignore[assignment]
        schemas = components.setdefault("schemas", {})
        if "ProblemDetails" not in schemas:
            from pydantic import TypeAdapter

            schemas["ProblemDetails"] = TypeAdapter(ProblemDetails).json_schema()
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "lrg_…"}}
            document["security"] = [{}, {"token": []}]
            for methods in document["paths"].values():  # type: ignore[attr-defined]
                for method in methods.keys() & _CHANGING:
                    methods[method]["responses"].setdefault("409", error_responses(409)[409])
        return document

    return describe_with_problems
