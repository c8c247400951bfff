"""The route that LoRAX asks for versioned adapters, with its gateway set to this server; a version is a folder in S3.

Route and answer are as in LoRAX, ``adapter_source=pbase``: ``GET /v2/repos/{name}/version/{v}``.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from loreg.errors import NotAllowedError
from loreg.refs import parse_ref
from loreg.server.responses import error_responses, json_response
from loreg.server.state import BackendDep, ServiceDep
from loreg.storage import SigningStore

routes = APIRouter(tags=["lorax"])


@dataclass(frozen=True)
class AdapterStatus:
    """Where LoRAX finds an adapter, under the names that LoRAX reads."""

    status: str
    adapterPath: str  # noqa: N815  LoRAX's own word


@routes.get(
    "/v2/repos/{name:path}/version/{version}", response_model=AdapterStatus, responses=error_responses(404, 409)
)
def version(name: str, version: str, backend: BackendDep, service: ServiceDep) -> Response:
    """Return the folder in S3 that has the files of a version, given by number or alias, under their names."""
    stored_version, files = backend.files_of(parse_ref(f"{name}:{f'v{version}' if version.isdecimal() else version}"))
    if not isinstance(service.store, SigningStore):
        raise NotAllowedError("LoRAX takes adapters from S3, and this registry's store is a folder", hint="loreg pull")
    backend.record_pull(stored_version, "lorax")
    folder = service.store.materialize_folder(stored_version.digest, {file.path: file.sha256 for file in files})
    return json_response(AdapterStatus("completed", folder))
