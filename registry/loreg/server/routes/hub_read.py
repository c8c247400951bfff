"""Routes that clients of the Hugging Face Hub read with ``HF_ENDPOINT`` set to this server.

A repository is an adapter; a revision is main (the newest version), an alias, vN, or the first 40 digits of a digest.
Observed with huggingface_hub 0.36, 1.33 and 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from loreg.adapters.structure import WEIGHTS_NAME
from loreg.entities import Access, Role, Version
from loreg.errors import ConflictError, LoregError, NotFoundError, UsageError
from loreg.local.backend import LocalBackend
from loreg.local.pending_uploads import find_pending
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName, Ref, parse_adapter_name, parse_ref
from loreg.server.bodies import MAX_JSON, read_body, read_json
from loreg.server.pages.paths import RESOLVE
from loreg.server.problems import public_message, status_of
from loreg.server.responses import json_response
from loreg.server.routes.blobs import stream_blob
from loreg.server.state import AsyncBackendDep, BackendDep, CurrentAccess, ServiceDep
from loreg.storage import SigningStore

MAIN = "main"
_COMMIT = re.compile("[0-9a-f]{40}")
_BEGINNING = re.compile("bytes=0-(?!0$)")  # of a file: a client that asks for one byte only looks how long it is
_UNPRINTABLE = re.compile("[^ -~]")  # characters that no header may hold
_MAX_HEADER_LENGTH = 1000  # characters
_MAX_PATHS = 10_000  # in one request
_MAX_FILES = 1000  # in a page of a tree
_MAX_VERSIONS, _BATCH_SIZE = 1000, 50  # versions whose refs are listed, and that are read at once


class HubError(Exception):
    """An error answered as the Hub does; clients choose their exception by ``code``."""

    def __init__(self, status: int, code: str, message: str, commit: str = "") -> None:
        super().__init__(message)
        printable = _UNPRINTABLE.sub(" ", message[:_MAX_HEADER_LENGTH].encode("ascii", "replace").decode())
        headers = {"X-Error-Message": printable, "X-Error-Code": code, "X-Repo-Commit": commit}
        self.response = json_response(
            {"error": message}, status, {name: value for name, value in headers.items() if value}
        )


class HubRoute(APIRoute):
    """A route that answers with errors as clients of the Hub expect them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        """Return what answers requests, with errors translated."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HubError as error:
                return error.response
            except LoregError as error:
                message, hint = public_message(error)
                text = f"{message} Hint: {hint}" if hint else message
                return HubError(status_of(error), "", text).response

        return answer


routes = APIRouter(tags=["hub"], include_in_schema=False, route_class=HubRoute)  # the Hub documents it


def parse_repository(repository: str) -> AdapterName:
    """Return the adapter that a repository's id names. Raises HubError."""
    try:
        return parse_adapter_name(repository)
    except UsageError as error:
        raise HubError(404, "RepoNotFound", error.message) from error


def parse_revision(repository: str, revision: str) -> Ref:
    """Return the ref of a repository at a revision. Raises HubError."""
    adapter = parse_repository(repository)
    if revision == MAIN:
        return Ref(adapter)
    if _COMMIT.fullmatch(revision):
        return Ref(adapter, digest=revision)
    try:
        return parse_ref(f"{adapter}:{revision}")
    except UsageError as error:
        raise HubError(404, "RevisionNotFound", error.message) from error


def commit_id(digest: str) -> str:
    """Return the commit id of a version: clients take revisions of 40 hex digits for immutable."""
    return digest[:40]


@dataclass(frozen=True)
class Snapshot:
    """A repository at a revision: a version, or the files uploaded so far of one that is not complete."""

    adapter: AdapterName
    manifest: Manifest
    created_at: datetime
    version: Version | None = None

    @property
    def commit(self) -> str:
        """The commit id that clients see."""
        return commit_id(self.manifest.digest)

    def file(self, path: str) -> File:
        """Return the file at ``path``. Raises HubError if there is none."""
        match = next((file for file in self.manifest.files if file.path == path), None)
        if match is None:
            raise HubError(404, "EntryNotFound", f"{path} is not in {self.adapter}", self.commit)
        return match


async def get_snapshot(backend: AsyncBackendDep, access: CurrentAccess, repository: str, revision: str) -> Snapshot:
    """Return a repository at a revision; drafts only to callers that may write them.

    Raises HubError: RepoNotFound or RevisionNotFound, which clients tell apart.
    """
    return await backend.run(_find_snapshot, access, repository, revision)


def _find_snapshot(backend: LocalBackend, access: Access, repository: str, revision: str) -> Snapshot:
    ref = parse_revision(repository, revision)
    try:
        version, files = backend.files_of(ref)
        return Snapshot(version.adapter, Manifest(files), version.created_at, version)
    except (NotFoundError, ConflictError) as error:
        draft_files = find_pending(backend, access, ref.adapter, "" if revision == MAIN else revision)
        if draft_files is not None:
            return Snapshot(ref.adapter, Manifest(draft_files), datetime.now(UTC))
        if find_pending(backend, access, ref.adapter, "") is None:
            try:
                backend.versions(ref.adapter, 1, None)
            except NotFoundError as missing:
                raise HubError(404, "RepoNotFound", error.message) from missing
        raise HubError(404, "RevisionNotFound", error.message) from error


async def get_newest(backend: AsyncBackendDep, access: CurrentAccess, repository: str) -> Snapshot:
    """Return a repository at its newest version. Raises HubError."""
    return await get_snapshot(backend, access, repository, MAIN)


SnapshotDep = Annotated[Snapshot, Depends(get_snapshot)]
NewestDep = Annotated[Snapshot, Depends(get_newest)]


@routes.get("/api/models/{repository:path}/revision/{revision}")
async def model_at(snapshot: SnapshotDep) -> Response:
    """Describe a repository at a revision."""
    return json_response(_model_json(snapshot))


@routes.get("/api/models/{repository:path}/tree/{revision}")
@routes.get("/api/models/{repository:path}/tree/{revision}/{folder:path}")
async def tree(
    snapshot: SnapshotDep, request: Request, folder: str = "", cursor: Annotated[int, Query(ge=0, lt=2**31)] = 0
) -> Response:
    """List a page of the files, or of those below a folder; the ``Link`` header has the next page, as at the Hub."""
    below = f"{folder.strip('/')}/" if folder.strip("/") else ""
    files = [file for file in snapshot.manifest.files if file.path.startswith(below)]
    end = cursor + _MAX_FILES
    headers = {"Link": f'<{request.url.include_query_params(cursor=end)}>; rel="next"'} if end < len(files) else None
    return json_response([_file_json(file) for file in files[cursor:end]], headers=headers)


@routes.post("/api/models/{repository:path}/paths-info/{revision}")
async def paths_info(snapshot: SnapshotDep, request: Request) -> Response:
    """Describe the files at the paths in the body."""
    paths = await _read_paths(request)
    return json_response([_file_json(file) for file in snapshot.manifest.files if file.path in paths])


async def _read_paths(request: Request) -> frozenset[str]:
    """Read the paths from a body of JSON, or from a form as older clients send it."""
    if request.headers.get("Content-Type", "").startswith("application/json"):
        paths = (await read_json(request)).get("paths", [])
    else:
        form = (await read_body(request, MAX_JSON)).decode(errors="replace")
        try:
            paths = parse_qs(form, max_num_fields=_MAX_PATHS).get("paths", [])
        except ValueError as error:
            raise UsageError(f"more than {_MAX_PATHS:,} paths", hint="ask for fewer at once") from error
    if not isinstance(paths, list):
        raise UsageError("paths is not a list", hint='{"paths": ["README.md"]}')
    return frozenset(path for path in paths if isinstance(path, str))


@routes.get("/api/models/{repository:path}/refs")
async def refs(snapshot: NewestDep, backend: AsyncBackendDep) -> Response:
    """List aliases as branches, versions as tags."""
    branches, tags = [_ref_json("heads", MAIN, snapshot.manifest.digest)], []
    cursor: str | None = None
    for _ in range(_MAX_VERSIONS // _BATCH_SIZE):
        page = await backend.versions(snapshot.adapter, _BATCH_SIZE, cursor)
        branches += [_ref_json("heads", alias, version.digest) for version in page.items for alias in version.aliases]
        tags += [_ref_json("tags", f"v{version.number}", version.digest) for version in page.items]
        if (cursor := page.cursor) is None:
            break
    return json_response({"branches": branches, "tags": tags, "converts": []})


@routes.get("/api/models/{repository:path}")
async def model(snapshot: NewestDep) -> Response:
    """Describe a repository at its newest version."""
    return json_response(_model_json(snapshot))


def _model_json(snapshot: Snapshot) -> dict[str, object]:
    timestamp = f"{snapshot.created_at:%Y-%m-%dT%H:%M:%S.000Z}"
    return {
        "_id": snapshot.manifest.digest[:24],
        "id": str(snapshot.adapter),
        "modelId": str(snapshot.adapter),
        "sha": snapshot.commit,
        "private": False,
        "disabled": False,
        "gated": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["peft", "lora", *(snapshot.version.tasks if snapshot.version is not None else ())],
        "library_name": "peft",
        "lastModified": timestamp,
        "createdAt": timestamp,
        "siblings": [{"rfilename": file.path, "size": file.size} for file in snapshot.manifest.files],
    }


def _file_json(file: File) -> dict[str, object]:
    return {
        "type": "file",
        "path": file.path,
        "size": file.size,
        "oid": file.sha256[:40],
        "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134},
    }


def _ref_json(kind: str, name: str, digest: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit_id(digest)}


@routes.get("/api/whoami-v2")
def whoami(access: CurrentAccess) -> Response:
    """Describe the caller as the Hub does at login."""
    if not access.permissions:
        raise HubError(401, "", "Invalid credentials: no token was sent")
    role = "write" if access.may_somewhere(Role.WRITE) else "read"
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


@routes.head(RESOLVE)
async def head(snapshot: SnapshotDep, path: str) -> Response:
    """Describe a file by headers: its commit, digest and size."""
    return Response(headers=_file_headers(snapshot, snapshot.file(path)))


@routes.get(RESOLVE)
def resolve(
    snapshot: SnapshotDep,
    path: str,
    service: ServiceDep,
    backend: BackendDep,
    range_: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """Send a file, or redirect to it. Who begins to read the weights pulls the version."""
    file = snapshot.file(path)
    if snapshot.version is not None and path == WEIGHTS_NAME and _BEGINNING.match(range_ or "bytes=0-"):
        backend.record_pull(snapshot.version, "hub")
    headers = _file_headers(snapshot, file)
    if isinstance(service.store, SigningStore):
        del headers["Content-Length"]  # it would be that of the redirect
        return RedirectResponse(service.store.download_url(file.sha256), 302, headers)
    response = stream_blob(service.store, file.sha256, range_)
    response.headers["X-Repo-Commit"] = snapshot.commit
    return response


def _file_headers(snapshot: Snapshot, file: File) -> dict[str, str]:
    return {
        "X-Repo-Commit": snapshot.commit,
        "ETag": f'"{file.sha256}"',
        "X-Linked-Etag": f'"{file.sha256}"',
        "X-Linked-Size": str(file.size),
        "Content-Length": str(file.size),
        "Accept-Ranges": "bytes",
    }
