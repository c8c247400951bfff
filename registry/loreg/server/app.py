"""The application: its routes, and what holds for every request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from loreg.server.cleanup import periodic_cleanup
from loreg.server.middleware import RequestMiddleware
from loreg.server.problems import ProblemDetails, install_problem_handlers
from loreg.server.routes import administration, bases, blobs, health, hub_read, hub_write, jobs, lorax, versions
from loreg.server.state import VERSION, Service


def create_app(service: Service) -> FastAPI:
    """The application on this service; the catalog is closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with periodic_cleanup(service):
            yield
        await service.catalog.aclose()

    app = FastAPI(
        title="loreg",
        version=VERSION,
        description="The registry for LoRA adapters. Errors are RFC 9457 problem details with loreg's code and hint.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # pages that load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    install_problem_handlers(app)
    for room in (versions, health, bases, blobs, administration, jobs, lorax, hub_write, hub_read):
        app.include_router(room.routes)
    app.openapi = _with_problems(app.openapi)  # type: ignore[method-assign]
    app.add_middleware(RequestMiddleware, service=service)
    return app


def _with_problems(describe: Callable[[], dict[str, object]]) -> Callable[[], dict[str, object]]:
    """The description, with the schema of problems and the way to say who asks."""

    def described() -> dict[str, object]:
        document = describe()
        components: dict[str, dict[str, object]] = document.setdefault("components", {})  # type: ignore[assignment]
        schemas = components.setdefault("schemas", {})
        if "ProblemDetails" not in schemas:
            from pydantic import TypeAdapter

            schemas["ProblemDetails"] = TypeAdapter(ProblemDetails).json_schema()
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "lrg_…"}}
            document["security"] = [{}, {"token": []}]
        return document

    return described
