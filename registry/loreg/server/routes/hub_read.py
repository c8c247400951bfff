"""What clients of the Hugging Face Hub read: the registry as repositories, with ``HF_ENDPOINT`` set to this server.

A repository is an adapter; a revision is main (the newest version), an alias, vN, or the first 40 digits of a digest.
Seen with huggingface_hub 0.36, 1.33 and 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from loreg.errors import ConflictError, LoregError, NotFoundError, UsageError
from loreg.manifest import File, Manifest
from loreg.recording.drafts import draft_of
from loreg.records import Details
from loreg.refs import AdapterName, Ref, parse_adapter_name, parse_ref
from loreg.server.answers import json
from loreg.server.problems import STATUS
from loreg.server.routes.blobs import stream
from loreg.server.service import Asking, Books, Serving

MAIN = "main"
_COMMIT = re.compile("[0-9a-f]{40}")


class HubError(Exception):
    """An answer as the Hub gives it: its code is what clients make their exceptions of."""

    def __init__(self, status: int, code: str, message: str, commit: str = "") -> None:
        super().__init__(message)
        told = message.encode("ascii", "replace").decode().replace("\n", " ")
        headers = {"X-Error-Message": told, "X-Error-Code": code, "X-Repo-Commit": commit}
        self.response = json({"error": message}, status, {name: value for name, value in headers.items() if value})


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
                hint = f" Hint: {error.hint}" if error.hint else ""
                return HubError(STATUS.get(type(error), 500), "", error.message + hint).response

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


def details_of(ledger: Books, repository: str, revision: str) -> Details:
    """The version of a repository at a revision; what is missing is told apart, as clients expect."""
    ref = ref_of(repository, revision)
    try:
        return ledger.show(ref)
    except (NotFoundError, ConflictError) as error:
        try:
            ledger.versions(ref.adapter, 1, None)
        except NotFoundError:
            raise HubError(404, "RepoNotFound", error.message) from None
        raise HubError(404, "RevisionNotFound", error.message) from None


def _file(details: Details, path: str) -> File:
    found = next((file for file in details.files if file.path == path), None)
    if found is None:
        raise HubError(
            404, "EntryNotFound", f"{path} is not in {details.version.ref}", commit_of(details.version.digest)
        )
    return found


def _described(ledger: Books, access: Asking, repository: str, revision: str) -> dict[str, Any]:
    """A repository at a revision; to who writes, also one that has no whole adapter yet."""
    try:
        details = details_of(ledger, repository, revision)
    except HubError:
        adapter, branch = adapter_of(repository), "" if revision == MAIN else revision
        draft = draft_of(ledger, access, adapter, branch)
        if draft is not None:
            return _model(adapter, Manifest(draft), datetime.now(UTC), ())
        if draft_of(ledger, access, adapter, "") is not None:
            raise HubError(404, "RevisionNotFound", f"{adapter} has no branch {revision}") from None
        raise
    version = details.version
    return _model(version.adapter, Manifest(details.files), version.created_at, version.tasks)


def _model(adapter: AdapterName, manifest: Manifest, at: datetime, tasks: tuple[str, ...]) -> dict[str, Any]:
    when = f"{at:%Y-%m-%dT%H:%M:%S.000Z}"
    return {
        "_id": manifest.digest[:24],
        "id": str(adapter),
        "modelId": str(adapter),
        "sha": commit_of(manifest.digest),
        "private": False,
        "disabled": False,
        "gated": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["peft", "lora", *tasks],
        "library_name": "peft",
        "lastModified": when,
        "createdAt": when,
        "siblings": [{"rfilename": file.path, "size": file.size} for file in manifest.files],
    }


@routes.get("/api/models/{repository:path}/revision/{revision}")
def model_at(repository: str, revision: str, ledger: Books, access: Asking) -> Response:
    """A repository at a revision."""
    return json(_described(ledger, access, repository, revision))


@routes.get("/api/models/{repository:path}/tree/{revision}")
@routes.get("/api/models/{repository:path}/tree/{revision}/{folder:path}")
def tree(repository: str, revision: str, ledger: Books, folder: str = "") -> Response:
    """Every file, or those below a folder: adapters have too few for a second page."""
    details = details_of(ledger, repository, revision)
    below = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return json([_entry(file) for file in details.files if file.path.startswith(below)])


@routes.post("/api/models/{repository:path}/paths-info/{revision}")
async def paths_info(repository: str, revision: str, request: Request, ledger: Books) -> Response:
    """Some files, by their paths."""
    if request.headers.get("Content-Type", "").startswith("application/json"):
        wanted = (await request.json()).get("paths", [])
    else:
        wanted = parse_qs((await request.body()).decode()).get("paths", [])
    details = await run_in_threadpool(details_of, ledger, repository, revision)
    return json([_entry(file) for file in details.files if file.path in wanted])


def _entry(file: File) -> dict[str, Any]:
    return {
        "type": "file",
        "path": file.path,
        "size": file.size,
        "oid": file.sha256[:40],
        "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134},
    }


@routes.get("/api/models/{repository:path}/refs")
def refs(repository: str, ledger: Books) -> Response:
    """Aliases as branches, versions as tags."""
    details = details_of(ledger, repository, MAIN)
    adapter = details.version.adapter
    known = ledger.versions(adapter, 1000, None).items
    branches = [(MAIN, details.version.digest), *((alias, v.digest) for v in known for alias in v.aliases)]
    return json(
        {
            "branches": [_branch("heads", name, digest) for name, digest in branches],
            "tags": [_branch("tags", f"v{version.number}", version.digest) for version in known],
            "converts": [],
        }
    )


def _branch(kind: str, name: str, digest: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit_of(digest)}


@routes.get("/api/models/{repository:path}")
def model(repository: str, ledger: Books, access: Asking) -> Response:
    """A repository at its newest version."""
    return json(_described(ledger, access, repository, MAIN))


@routes.get("/api/whoami-v2")
def whoami(access: Asking) -> Response:
    """Who asks, as the Hub's login wants to know it."""
    if not access.grants:
        raise HubError(401, "", "Invalid credentials: no token was sent")
    role = "write" if access.may_somewhere("write") else "read"
    return json(
        {
            "type": "user",
            "id": access.author,
            "name": access.author,
            "fullname": access.author,
            "orgs": [{"name": name, "type": "org"} for name in access.grants if name not in ("", "*")],
            "auth": {"type": "access_token", "accessToken": {"displayName": access.author, "role": role}},
        }
    )


@routes.head("/{repository:path}/resolve/{revision}/{path:path}")
def head(repository: str, revision: str, path: str, ledger: Books) -> Response:
    """What a file is: its commit, its digest and its size."""
    details = details_of(ledger, repository, revision)
    return Response(headers=_file_headers(details, _file(details, path)))


@routes.get("/{repository:path}/resolve/{revision}/{path:path}")
def resolve(
    repository: str,
    revision: str,
    path: str,
    ledger: Books,
    service: Serving,
    range_: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    """A file's bytes, or where they are."""
    details = details_of(ledger, repository, revision)
    file = _file(details, path)
    headers = _file_headers(details, file)
    if url := service.store.download_url(file.sha256):
        return RedirectResponse(url, 302, headers={k: v for k, v in headers.items() if k != "Content-Length"})
    response = stream(service.store, file.sha256, range_)
    response.headers["X-Repo-Commit"] = headers["X-Repo-Commit"]
    return response


def _file_headers(details: Details, file: File) -> dict[str, str]:
    return {
        "X-Repo-Commit": commit_of(details.version.digest),
        "ETag": f'"{file.sha256}"',
        "X-Linked-Etag": f'"{file.sha256}"',
        "X-Linked-Size": str(file.size),
        "Content-Length": str(file.size),
        "Accept-Ranges": "bytes",
    }
