"""What clients of the Hub write: ``hf upload`` and ``push_to_hub`` become versions.

Every file is asked for in the commit itself (uploadMode regular): an answer of lfs makes newer clients ask for a token
of Xet.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from loreg.adapters.folder import why_excluded_by_name
from loreg.errors import NotFoundError, StaleError, UsageError
from loreg.local.authorization import require, require_somewhere
from loreg.local.pending_uploads import commit_files, create_branch
from loreg.refs import parse_alias
from loreg.server.bodies import read_json, read_stream, refuse_forms
from loreg.server.ndjson import read_commit
from loreg.server.responses import json_response
from loreg.server.routes.hub_read import MAIN, HubError, HubRoute, adapter_of, commit_of, ref_of
from loreg.server.state import BackendDep, CurrentAccess, ServiceDep
from loreg.storage.staged import StagedStore

MOST_COMMIT_BYTES = 8 * 1024**3  # a third more than the files in it: they come as base64
routes = APIRouter(tags=["hub"], include_in_schema=False, route_class=HubRoute)


@routes.post("/api/repos/create")
async def create(request: Request, access: CurrentAccess, backend: BackendDep) -> Response:
    """Begin an adapter; there is nothing of it to see until its first version is whole."""
    require_somewhere(access, "write")
    asked = await read_json(request)
    organization, name = asked.get("organization"), str(asked.get("name", ""))
    if asked.get("type") not in (None, "model"):
        raise HubError(400, "", "loreg keeps adapters: models, no datasets and no spaces")
    adapter = adapter_of(f"{organization}/{name}" if organization else name)
    require(access, "write", adapter.namespace)
    answer = {"url": f"{str(request.base_url).rstrip('/')}/{adapter}", "name": str(adapter), "id": str(adapter)}
    try:
        await run_in_threadpool(backend.versions, adapter, 1, None)
    except NotFoundError:
        await run_in_threadpool(create_branch, backend, access, adapter, "")
        return json_response(answer)
    return json_response({**answer, "error": "You already created this model repo"}, 409)


@routes.post("/api/validate-yaml")
def validate_yaml() -> Response:
    """Cards are the author's own."""
    return json_response({"errors": [], "warnings": []})


@routes.post("/api/models/{repository:path}/branch/{branch}")
async def branch(
    repository: str, branch: str, request: Request, access: CurrentAccess, backend: BackendDep
) -> Response:
    """A branch is an alias; it points to something after the first commit to it."""
    adapter = adapter_of(repository)
    require(access, "write", adapter.namespace)
    start = (await read_json(request)).get("startingPoint")
    begun = ref_of(repository, str(start)) if start is not None else None
    await run_in_threadpool(create_branch, backend, access, adapter, _alias_of(branch), begun)
    return json_response({})


@routes.post("/api/models/{repository:path}/tag/{branch}")
async def tag(repository: str, branch: str, request: Request, access: CurrentAccess, backend: BackendDep) -> Response:
    """A tag is an alias of the version that ``branch`` is now, and moves none; without a name it is a branch."""
    adapter = adapter_of(repository)
    require(access, "write", adapter.namespace)
    name = (await read_json(request)).get("tag")
    if name is None:
        await run_in_threadpool(create_branch, backend, access, adapter, _alias_of(branch))
        return json_response({})
    try:
        await run_in_threadpool(backend.tag, ref_of(repository, branch), parse_alias(str(name)), 0)
    except StaleError:
        raise HubError(409, "", f"there is an alias {name!r} of {adapter} already") from None
    return json_response({})


@routes.post("/api/models/{repository:path}/preupload/{revision}")
async def preupload(repository: str, revision: str, request: Request, access: CurrentAccess) -> Response:
    """How each file is to be sent, and which are no part of an adapter."""
    adapter = adapter_of(repository)
    require(access, "write", adapter.namespace)
    _alias_of(revision)
    asked = (await read_json(request)).get("files", [])
    if not isinstance(asked, list) or not all(isinstance(f, dict) and isinstance(f.get("path"), str) for f in asked):
        raise UsageError("files is not a list of objects with a path", hint='{"files": [{"path": "README.md"}]}')
    return json_response(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": bool(why_excluded_by_name(file["path"])),
                    "oid": None,
                }
                for file in asked
            ]
        }
    )


@routes.post("/api/models/{repository:path}/commit/{revision}")
async def commit(
    repository: str, revision: str, request: Request, service: ServiceDep, access: CurrentAccess, backend: BackendDep
) -> Response:
    """Files that come and go; a version when the adapter is whole and sound, else its findings as the error."""
    adapter, alias = adapter_of(repository), _alias_of(revision)
    require(access, "write", adapter.namespace)
    refuse_forms(request)
    if request.query_params.get("create_pr"):
        raise HubError(400, "", "loreg has no pull requests: push under another name, or to a branch")
    with tempfile.TemporaryDirectory(prefix="loreg-commit-") as name:
        body = Path(name) / "body"
        with body.open("wb") as sink:
            async for chunk in read_stream(request):
                if sink.tell() + len(chunk) > MOST_COMMIT_BYTES:
                    raise HubError(
                        413, "", f"a commit may have {MOST_COMMIT_BYTES:,} bytes: upload in several, or loreg push"
                    )
                sink.write(chunk)

        def apply() -> str:
            store = StagedStore(service.store, Path(name))
            return commit_of(commit_files(backend, access, store, adapter, alias, read_commit(body, store)))

        oid = await run_in_threadpool(apply)
    url = f"{str(request.base_url).rstrip('/')}/{adapter}/commit/{oid}"
    return json_response({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _alias_of(revision: str) -> str:
    """The alias that a branch stands for; empty for main."""
    return "" if revision == MAIN else parse_alias(revision)
