"""LoRAX pulls versioned adapters: with its gateway set to this server, an adapter's version becomes a folder in S3.

Route and answer as in LoRAX, ``adapter_source=pbase``: ``GET /v2/repos/{name}/version/{v}``.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from loreg.errors import NotAllowedError
from loreg.refs import parse_ref
from loreg.server.responses import error_responses, json_response
from loreg.server.state import BackendDep, ServiceDep

routes = APIRouter(tags=["lorax"])


@dataclass(frozen=True)
class AdapterStatus:
    """What LoRAX reads."""

    status: str
    adapterPath: str  # noqa: N815  LoRAX's own word


@routes.get(
    "/v2/repos/{name:path}/version/{version}", response_model=AdapterStatus, responses=error_responses(404, 409)
)
def version(name: str, version: str, backend: BackendDep, service: ServiceDep) -> Response:
    """Where the files of a version lie under their names: a number, or an alias."""
    found, files = backend.files_of(parse_ref(f"{name}:{f'v{version}' if version.isdecimal() else version}"))
    where = service.store.materialize_folder(found.digest, {file.path: file.sha256 for file in files})
    if where is None:
        raise NotAllowedError("LoRAX takes adapters from S3, and this registry's store is a folder", hint="loreg pull")
    return json_response(AdapterStatus("completed", where))
