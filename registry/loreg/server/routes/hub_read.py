"""What clients of the Hugging Face Hub read: the registry as repositories, with ``HF_ENDPOINT`` set to this server.

A repository is an adapter; a revision is main (the newest version), an alias, vN, or the first 40 digits of a digest.
Seen with huggingface_hub 0.36, 1.33 and 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from loreg.entities import Access
from loreg.errors import ConflictError, LoregError, NotFoundError, UsageError
from loreg.local.backend import LocalBackend
from loreg.local.pending_uploads import find_pending
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName, Ref, parse_adapter_name, parse_ref
from loreg.server.bodies import MAX_JSON, read_body, read_json
from loreg.server.problems import STATUS, public_message
from loreg.server.responses import json_response
from loreg.server.routes.blobs import stream
from loreg.server.state import BackendDep, CurrentAccess, ServiceDep

MAIN = "main"
_COMMIT = re.compile("[0-9a-f]{40}")
_UNPRINTABLE = re.compile("[^ -~]")  # what no header may hold
_LONGEST_TOLD = 1000
_MOST_PATHS = 10_000
_MOST_FILES = 1000  # in a page of a tree
_MOST_REFS, _AT_ONCE = 1000, 50


class HubError(Exception):
    """An answer as the Hub gives it: its code is what clients make their exceptions of."""

    def __init__(self, status: int, code: str, message: str, commit: str = "") -> None:
        super().__init__(message)
        told = _UNPRINTABLE.sub(" ", message[:_LONGEST_TOLD].encode("ascii", "replace").decode())
        headers = {"X-Error-Message": told, "X-Error-Code": code, "X-Repo-Commit": commit}
        self.response = json_response(
            {"error": message}, status, {name: value for name, value in headers.items() if value}
        )


class HubRoute(APIRoute):
    """A route whose errors clients of the Hub understand."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors turned."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HubError as error:
                return error.response
            except LoregError as error:
                message, hint = public_message(error)
                text = f"{message} Hint: {hint}" if hint else message
                return HubError(STATUS.get(type(error), 500), "", text).response

        return answer


routes = APIRouter(tags=["hub"], include_in_schema=False, route_class=HubRoute)  # the Hub describes it


def adapter_of(repository: str) -> AdapterName:
    """The adapter that a repository's id names."""
    try:
        return parse_adapter_name(repository)
    except UsageError as error:
        raise HubError(404, "RepoNotFound", error.message) from None


def ref_of(repository: str, revision: str) -> Ref:
    """The ref of a repository at a revision."""
    adapter = adapter_of(repository)
    if revision == MAIN:
        return Ref(adapter)
    if _COMMIT.fullmatch(revision):
        return Ref(adapter, digest=revision)
    try:
        return parse_ref(f"{adapter}:{revision}")
    except UsageError as error:
        raise HubError(404, "RevisionNotFound", error.message) from None


def commit_of(digest: str) -> str:
    """The commit id of a version: clients take revisions of 40 hex digits for immutable."""
    return digest[:40]


@dataclass(frozen=True)
class Snapshot:
    """A repository at a revision: a version, or what somebody has sent of one that is not whole yet."""

    adapter: AdapterName
    manifest: Manifest
    created_at: datetime
    tasks: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        """Clients take revisions of 40 hex digits for immutable."""
        return commit_of(self.manifest.digest)

    def file(self, path: str) -> File:
        """The file of that path."""
        found = next((file for file in self.manifest.files if file.path == path), None)
        if found is None:
            raise HubError(404, "EntryNotFound", f"{path} is not in {self.adapter}", self.commit)
        return found


async def snapshot_of(backend: BackendDep, access: CurrentAccess, repository: str, revision: str) -> Snapshot:
    """What a revision means; what is missing is told apart, as clients expect. Drafts are for who may write them."""
    return await backend.catalog.run_async(_snapshot_of, backend, access, repository, revision)


def _snapshot_of(backend: LocalBackend, access: Access, repository: str, revision: str) -> Snapshot:
    ref = ref_of(repository, revision)
    try:
        version, files = backend.files_of(ref)
        return Snapshot(version.adapter, Manifest(files), version.created_at, version.tasks)
    except (NotFoundError, ConflictError) as error:
        draft = find_pending(backend, access, ref.adapter, "" if revision == MAIN else revision)
        if draft is not None:
            return Snapshot(ref.adapter, Manifest(draft), datetime.now(UTC))
        if find_pending(backend, access, ref.adapter, "") is None:
            try:
                backend.versions(ref.adapter, 1, None)
            except NotFoundError:
                raise HubError(404, "RepoNotFound", error.message) from None
        raise HubError(404, "RevisionNotFound", error.message) from None


async def newest_of(backend: BackendDep, access: CurrentAccess, repository: str) -> Snapshot:
    """The newest version of a repository."""
    return await snapshot_of(backend, access, repository, MAIN)


SnapshotDep = Annotated[Snapshot, Depends(snapshot_of)]
NewestDep = Annotated[Snapshot, Depends(newest_of)]


@routes.get("/api/models/{repository:path}/revision/{revision}")
async def model_at(found: SnapshotDep) -> Response:
    """A repository at a revision."""
    return json_response(_model(found))


@routes.get("/api/models/{repository:path}/tree/{revision}")
@routes.get("/api/models/{repository:path}/tree/{revision}/{folder:path}")
async def tree(
    found: SnapshotDep, request: Request, folder: str = "", cursor: Annotated[int, Query(ge=0, lt=2**31)] = 0
) -> Response:
    """A page of the files, or of those below a folder; where the next one is says ``Link``, as at the Hub."""
    below = f"{folder.strip('/')}/" if folder.strip("/") else ""
    files = [file for file in found.manifest.files if file.path.startswith(below)]
    end = cursor + _MOST_FILES
    following = {"Link": f'<{request.url.include_query_params(cursor=end)}>; rel="next"'} if end < len(files) else None
    return json_response([_entry(file) for file in files[cursor:end]], headers=following)


@routes.post("/api/models/{repository:path}/paths-info/{revision}")
async def paths_info(found: SnapshotDep, request: Request) -> Response:
    """Some files, by their paths."""
    wanted = await _paths(request)
    return json_response([_entry(file) for file in found.manifest.files if file.path in wanted])


async def _paths(request: Request) -> frozenset[str]:
    """The paths in a body of JSON, or of a form as older clients send it."""
    if request.headers.get("Content-Type", "").startswith("application/json"):
        paths = (await read_json(request)).get("paths", [])
    else:
        given = (await read_body(request, MAX_JSON)).decode(errors="replace")
        try:
            paths = parse_qs(given, max_num_fields=_MOST_PATHS).get("paths", [])
        except ValueError:
            raise UsageError(f"more than {_MOST_PATHS:,} paths", hint="ask for fewer at once") from None
    if not isinstance(paths, list):
        raise UsageError("paths is not a list", hint='{"paths": ["README.md"]}')
    return frozenset(path for path in paths if isinstance(path, str))


@routes.get("/api/models/{repository:path}/refs")
async def refs(found: NewestDep, backend: BackendDep) -> Response:
    """Aliases as branches, versions as tags."""
    branches, tags = [_branch("heads", MAIN, found.manifest.digest)], []
    cursor: str | None = None
    for _ in range(_MOST_REFS // _AT_ONCE):
        page = await backend.catalog.run_async(backend.versions, found.adapter, _AT_ONCE, cursor)
        branches += [_branch("heads", alias, version.digest) for version in page.items for alias in version.aliases]
        tags += [_branch("tags", f"v{version.number}", version.digest) for version in page.items]
        if (cursor := page.cursor) is None:
            break
    return json_response({"branches": branches, "tags": tags, "converts": []})


@routes.get("/api/models/{repository:path}")
async def model(found: NewestDep) -> Response:
    """A repository at its newest version."""
    return json_response(_model(found))


def _model(found: Snapshot) -> dict[str, Any]:
    when = f"{found.created_at:%Y-%m-%dT%H:%M:%S.000Z}"
    return {
        "_id": found.manifest.digest[:24],
        "id": str(found.adapter),
        "modelId": str(found.adapter),
        "sha": found.commit,
        "private": False,
        "disabled": False,
        "gated": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["peft", "lora", *found.tasks],
        "library_name": "peft",
        "lastModified": when,
        "createdAt": when,
        "siblings": [{"rfilename": file.path, "size": file.size} for file in found.manifest.files],
    }


def _entry(file: File) -> dict[str, Any]:
    return {
        "type": "file",
        "path": file.path,
        "size": file.size,
        "oid": file.sha256[:40],
        "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134},
    }


def _branch(kind: str, name: str, digest: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit_of(digest)}


@routes.get("/api/whoami-v2")
def whoami(access: CurrentAccess) -> Response:
    """Who asks, as the Hub's login wants to know it."""
    if not access.permissions:
        raise HubError(401, "", "Invalid credentials: no token was sent")
    role = "write" if access.may_somewhere("write") else "read"
    return json_response(
        {
            "type": "user",
            "id": access.author,
            "name": access.author,
            "fullname": access.author,
            "orgs": [{"name": name, "type": "org"} for name in access.permissions if name not in ("", "*")],
            "auth": {"type": "access_token", "accessToken": {"displayName": access.author, "role": role}},
        }
    )


@routes.head("/{repository:path}/resolve/{revision}/{path:path}")
async def head(found: SnapshotDep, path: str) -> Response:
    """What a file is: its commit, its digest and its size."""
    return Response(headers=_headers(found, found.file(path)))


@routes.get("/{repository:path}/resolve/{revision}/{path:path}")
def resolve(
    found: SnapshotDep, path: str, service: ServiceDep, range_: Annotated[str | None, Header(alias="Range")] = None
) -> Response:
    """A file's bytes, or where they are."""
    file = found.file(path)
    headers = _headers(found, file)
    if url := service.store.download_url(file.sha256):
        del headers["Content-Length"]  # of a redirect
        return RedirectResponse(url, 302, headers)
    response = stream(service.store, file.sha256, range_)
    response.headers["X-Repo-Commit"] = found.commit
    return response


def _headers(found: Snapshot, file: File) -> dict[str, str]:
    return {
        "X-Repo-Commit": found.commit,
        "ETag": f'"{file.sha256}"',
        "X-Linked-Etag": f'"{file.sha256}"',
        "X-Linked-Size": str(file.size),
        "Content-Length": str(file.size),
        "Accept-Ranges": "bytes",
    }
