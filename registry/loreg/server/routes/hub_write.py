"""Routes that clients of the Hub write to: ``hf upload`` and ``push_to_hub`` become versions.

Every file has to be sent in the commit itself (uploadMode regular): after lfs newer clients would ask for a Xet token.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from loreg.adapters.folder import why_excluded_by_name
from loreg.entities import Role
from loreg.errors import NotFoundError, StaleError, UsageError
from loreg.local.authorization import require, require_somewhere
from loreg.local.pending_uploads import commit_files, create_branch
from loreg.refs import parse_alias
from loreg.server.bodies import read_json, read_stream, refuse_forms
from loreg.server.ndjson import read_commit
from loreg.server.responses import json_response
from loreg.server.routes.hub_read import MAIN, HubError, HubRoute, commit_id, parse_repository, parse_revision
from loreg.server.state import BackendDep, CurrentAccess, ServiceDep
from loreg.storage.staged import StagedStore

MAX_COMMIT_BYTES = 8 * 1024**3  # a third more than the files in it: they come as base64
routes = APIRouter(tags=["hub"], include_in_schema=False, route_class=HubRoute)


@routes.post("/api/repos/create")
async def create(request: Request, access: CurrentAccess, backend: BackendDep) -> Response:
    """Begin an adapter; nothing of it can be read until its first version is complete."""
    require_somewhere(access, Role.WRITE)
    body = await read_json(request)
    organization, name = body.get("organization"), str(body.get("name", ""))
    if body.get("type") not in (None, "model"):
        raise HubError(400, "", "loreg keeps adapters: models, no datasets and no spaces")
    adapter = parse_repository(f"{organization}/{name}" if organization else name)
    require(access, Role.WRITE, adapter.namespace)
    answer = {"url": f"{str(request.base_url).rstrip('/')}/{adapter}", "name": str(adapter), "id": str(adapter)}
    try:
        await run_in_threadpool(backend.versions, adapter, 1, None)
    except NotFoundError:
        await run_in_threadpool(create_branch, backend, access, adapter, "")
        return json_response(answer)
    return json_response({**answer, "error": "You already created this model repo"}, 409)


@routes.post("/api/validate-yaml")
def validate_yaml() -> Response:
    """Accept every card: what is in it is up to its author."""
    return json_response({"errors": [], "warnings": []})


@routes.post("/api/models/{repository:path}/branch/{branch}")
async def branch(
    repository: str, branch: str, request: Request, access: CurrentAccess, backend: BackendDep
) -> Response:
    """Begin a branch, which is an alias; it means a version after the first commit to it."""
    adapter = parse_repository(repository)
    require(access, Role.WRITE, adapter.namespace)
    start = (await read_json(request)).get("startingPoint")
    start_ref = parse_revision(repository, str(start)) if start is not None else None
    await run_in_threadpool(create_branch, backend, access, adapter, _parse_branch(branch), start_ref)
    return json_response({})


@routes.post("/api/models/{repository:path}/tag/{branch}")
async def tag(repository: str, branch: str, request: Request, access: CurrentAccess, backend: BackendDep) -> Response:
    """Set a new alias to the version that ``branch`` means now; without a name for it, begin a branch instead."""
    adapter = parse_repository(repository)
    require(access, Role.WRITE, adapter.namespace)
    name = (await read_json(request)).get("tag")
    if name is None:
        await run_in_threadpool(create_branch, backend, access, adapter, _parse_branch(branch))
        return json_response({})
    try:
        await run_in_threadpool(backend.tag, parse_revision(repository, branch), parse_alias(str(name)), 0)
    except StaleError as error:
        raise HubError(409, "", f"there is an alias {name!r} of {adapter} already") from error
    return json_response({})


@routes.post("/api/models/{repository:path}/preupload/{revision}")
async def preupload(repository: str, revision: str, request: Request, access: CurrentAccess) -> Response:
    """Say how each file is to be sent, and which are to be left out because they are no part of an adapter."""
    adapter = parse_repository(repository)
    require(access, Role.WRITE, adapter.namespace)
    _parse_branch(revision)
    files = (await read_json(request)).get("files", [])
    if not isinstance(files, list) or not all(isinstance(f, dict) and isinstance(f.get("path"), str) for f in files):
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
                for file in files
            ]
        }
    )


@routes.post("/api/models/{repository:path}/commit/{revision}")
async def commit(
    repository: str,
    revision: str,
    request: Request,
    service: ServiceDep,
    access: CurrentAccess,
    backend: BackendDep,
) -> Response:
    """Add and remove files; makes a version when the adapter is complete, or answers with what is wrong with it."""
    adapter, alias = parse_repository(repository), _parse_branch(revision)
    require(access, Role.WRITE, adapter.namespace)
    refuse_forms(request)
    if request.query_params.get("create_pr"):
        raise HubError(400, "", "loreg has no pull requests: push under another name, or to a branch")
    with tempfile.TemporaryDirectory(prefix="loreg-commit-") as name:
        body = Path(name) / "body"
        with body.open("wb") as sink:
            async for chunk in read_stream(request):
                if sink.tell() + len(chunk) > MAX_COMMIT_BYTES:
                    raise HubError(
                        413, "", f"a commit may have {MAX_COMMIT_BYTES:,} bytes: upload in several, or loreg push"
                    )
                sink.write(chunk)

        def apply() -> str:
            store = StagedStore(service.store, Path(name))
            return commit_id(commit_files(backend, access, store, adapter, alias, read_commit(body, store)))

        oid = await run_in_threadpool(apply)
    url = f"{str(request.base_url).rstrip('/')}/{adapter}/commit/{oid}"
    return json_response({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _parse_branch(revision: str) -> str:
    """Return the alias that a branch stands for; empty for main. Raises UsageError."""
    return "" if revision == MAIN else parse_alias(revision)
