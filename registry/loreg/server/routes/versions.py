"""Routes of adapters and their versions: show, commit, check, export, aliases and metrics."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints

from loreg.entities import (
    AdapterEntry,
    Candidate,
    CheckReport,
    Committed,
    Deletion,
    Details,
    FindingCounts,
    Metric,
    NearDuplicates,
    Page,
    Version,
    VersionFacts,
)
from loreg.errors import NotFoundError, UsageError
from loreg.local.bases import limit_concurrent_reads
from loreg.manifest import Manifest
from loreg.refs import is_path, parse_adapter_pattern, parse_alias, parse_ref
from loreg.schemas import AliasTarget, CommitRequest, ExportRequest, LineageResponse, SketchResponse, YankRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import (
    REF_PARAMETERS,
    AdapterDep,
    Cursor,
    ExpectedDep,
    Limit,
    RefDep,
    Sha256,
    Words,
    etag,
    parse_path_ref,
)
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses, json_response, no_content
from loreg.server.state import AsyncBackendDep, BackendDep, CurrentAccess, ServiceDep, get_async_backend
from loreg.verbs import check as checking
from loreg.workspace.context import Context

routes = APIRouter(prefix="/api/v1", tags=["versions"], route_class=BodyRoute)
HashPrefix = Annotated[str, StringConstraints(pattern="^[0-9a-f]{6,64}$")]
HashPrefixes = Annotated[tuple[HashPrefix, ...], Query(max_length=8)]
MAX_CANDIDATES = 100
_IN_ADAPTER = "/adapters/{namespace}/{name}"
_VERSION = _IN_ADAPTER + "/versions/{selector}"
_ALIAS = _IN_ADAPTER + "/aliases/{alias}"
_PULL_PARAMETER = {
    "name": "pull",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "The caller fetches the files next: an event, where the registry records pulls.",
}


@routes.get(
    _VERSION,
    response_model=Details,
    responses=error_responses(404, 409),
    openapi_extra={"parameters": [*REF_PARAMETERS["parameters"], _PULL_PARAMETER]},
)
async def show(request: Request) -> Response:
    """Return all that is recorded of a version; with ``pull=true`` to one who fetches its files next."""
    backend = await get_async_backend(request)
    ask = backend.begin_pull if request.query_params.get("pull") == "true" else backend.show
    return json_response(await ask(parse_path_ref(request)))


@routes.get("/adapters", response_model=Page[AdapterEntry], responses=error_responses())
async def adapters(backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of the adapters that the caller may read, by name."""
    return await page_response(backend.adapters, limit, cursor)


@routes.get(_IN_ADAPTER + "/versions", response_model=Page[Version], responses=error_responses(404))
async def versions(adapter: AdapterDep, backend: AsyncBackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return a page of the versions of one adapter, the newest first, yanked ones too."""
    return await page_response(functools.partial(backend.versions, adapter), limit, cursor)


@routes.post(
    _IN_ADAPTER + "/versions",
    status_code=201,
    response_model=Committed,
    responses={200: {"model": Committed, "description": "It was there already."}, **error_responses(409, 422)},
)
def commit(
    adapter: AdapterDep, body: CommitRequest, backend: BackendDep, service: ServiceDep, access: CurrentAccess
) -> Response:
    """Record a version whose blobs were uploaded, come along, or are in versions that the caller may read."""
    commit = body.commit
    if commit.adapter != adapter:
        raise UsageError(f"the path names {adapter}, the commit {commit.adapter}", hint="one name for both")
    with service.uploads(access).accept(commit.digests, body.uploads, body.contents) as accepted:
        committed = backend.commit(commit, accepted)
    return json_response(committed, 201 if committed.created else 200)


@routes.get(_VERSION + "/lineage", response_model=LineageResponse, responses=error_responses(404, 409))
async def lineage(ref: RefDep, backend: AsyncBackendDep) -> Response:
    """Return the version and every merge that it descends from, the nearest first."""
    return json_response(LineageResponse(*await backend.lineage(ref)))


@routes.get(_VERSION + "/descendants", response_model=LineageResponse, responses=error_responses(404, 409))
async def descendants(ref: RefDep, backend: AsyncBackendDep) -> Response:
    """Return the version and the merges that were made of it and may be read, the nearest first."""
    return json_response(LineageResponse(*await backend.descendants(ref)))


@routes.get(_VERSION + "/check", response_model=CheckReport, responses=error_responses(404, 409))
def check(
    ref: RefDep,
    backend: BackendDep,
    service: ServiceDep,
    base: Annotated[str | None, Query(max_length=512)] = None,
    profile: Words = (),
    against: Annotated[str, Query(max_length=300)] = "",
) -> Response:
    """Check a version by its headers: alone, on a recorded base, for servers, and beside another version."""
    for name in (base or "", *profile):
        if is_path(name) or name.endswith(".toml"):
            raise UsageError(
                f"{name!r} is a path, and the server reads none of its own",
                hint="check it on the machine where the path is",
            )
    context = Context(backend, service.store, Path(), service.policy)
    text = str(ref)
    with limit_concurrent_reads() if base is not None else contextlib.nullcontext():
        (report,) = checking.check(context, [text], base=base, profiles=profile, against=against, header_only=True)
    return json_response(report)


@routes.post(_VERSION + "/metrics", response_model=Version, responses=error_responses(404, 409))
async def add_metrics(ref: RefDep, body: tuple[Metric, ...], backend: AsyncBackendDep) -> Response:
    """Record metrics of a version; one of the same name on the same data is replaced."""
    return json_response(await backend.add_metrics(ref, body))


@routes.put(_VERSION + "/yanked", response_model=Version, responses=error_responses(404, 409))
async def set_yanked(ref: RefDep, body: YankRequest, backend: AsyncBackendDep) -> Response:
    """Yank a version, which hides it from search and aliases, or show it again."""
    return json_response(await backend.set_yanked(ref, body.yanked, body.reason))


@routes.get(_VERSION + "/deletion", response_model=Deletion, responses=error_responses(404, 409))
def preview_deletion(ref: RefDep, backend: BackendDep) -> Response:
    """Return what deleting the version for good would remove, and what other versions share."""
    return json_response(backend.preview_deletion(ref))


@routes.delete(_VERSION, response_model=Deletion, responses=error_responses(404, 409))
def delete(ref: RefDep, reason: Annotated[str, Query(max_length=1000)], backend: BackendDep) -> Response:
    """Delete a version for good: its content is removed and never recorded again; its events stay."""
    return json_response(backend.delete(ref, reason))


@routes.get(_VERSION + "/exports/{request}", response_model=Manifest, responses=error_responses(404, 409))
async def export(ref: RefDep, request: Sha256, backend: AsyncBackendDep) -> Response:
    """Return the files of an export, the version as one server takes it, by the digest of the request."""
    manifest = await backend.export(ref, request)
    if manifest is None:
        raise NotFoundError(f"{ref} was never exported so", hint="pulling it with that profile makes it")
    return json_response(manifest)


@routes.put(_VERSION + "/exports/{request}", response_model=Manifest, responses=error_responses(404, 409, 422))
def record_export(ref: RefDep, request: Sha256, body: ExportRequest, backend: BackendDep) -> Response:
    """Export the version for a server, named by its profile, and record the files."""
    return json_response(backend.record_export(ref, request, body.profile))


@routes.delete(_VERSION + "/exports/{request}", status_code=204, responses=error_responses(404, 409))
async def drop_export(ref: RefDep, request: Sha256, backend: AsyncBackendDep) -> Response:
    """Forget an export; the next request makes it anew."""
    await backend.drop_export(ref, request)
    return no_content()


@routes.get(_ALIAS, response_model=Details, responses=error_responses(404))
async def alias(adapter: AdapterDep, alias: str, backend: AsyncBackendDep) -> Response:
    """Return the version that an alias means; the ETag can be sent as If-Match to move it."""
    details = await backend.show(parse_ref(f"{adapter}:{parse_alias(alias)}"))
    return json_response(details, headers={"ETag": etag(details.version.number)})


@routes.put(_ALIAS, response_model=Version, responses=error_responses(404, 409, 412, 422))
async def tag(
    adapter: AdapterDep, alias: str, body: AliasTarget, expected: ExpectedDep, backend: AsyncBackendDep
) -> Response:
    """Set an alias to a version of the adapter; with If-Match, only if it was not moved meanwhile."""
    ref = parse_ref(body.ref)
    if ref.adapter != adapter:
        raise UsageError(f"an alias of {adapter} cannot mean {ref}", hint=f"a ref of {adapter}")
    version = await backend.tag(ref, parse_alias(alias), expected, body.reason)
    return json_response(version, headers={"ETag": etag(version.number)})


@routes.delete(_ALIAS, status_code=204, responses=error_responses(404, 412))
async def untag(adapter: AdapterDep, alias: str, expected: ExpectedDep, backend: AsyncBackendDep) -> Response:
    """Delete an alias but not its history; with If-Match, only if it was not moved meanwhile."""
    await backend.untag(adapter, parse_alias(alias), expected)
    return no_content()


@routes.get("/contents/{digest}", response_model=Version, responses=error_responses(404))
async def with_content(digest: Sha256, backend: AsyncBackendDep) -> Response:
    """Return the oldest version of any adapter that the caller may read with exactly this manifest."""
    version = await backend.with_content(digest)
    if version is None:
        raise NotFoundError(f"no version has the content sha256:{digest[:12]}", hint="loreg search")
    return json_response(version)


@routes.get("/candidates", response_model=tuple[Candidate, ...], responses=error_responses())
def candidates(
    backend: BackendDep,
    hash: HashPrefixes = (),  # noqa: A002  the name of the parameter in the URL
    vector: Annotated[str, Query(max_length=2000)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_CANDIDATES)] = 20,
) -> Response:
    """Find versions by the beginnings of hashes, and by a sketch of their deltas: the nearest first.

    Only those that the caller may read. A sketch is what its pusher says: compare the weights before you believe it.
    """
    return json_response(backend.candidates(hash, vector, limit))


@routes.get("/near-duplicates", response_model=tuple[NearDuplicates, ...], responses=error_responses())
def near_duplicates(backend: BackendDep, pattern: Annotated[str, Query(max_length=200)] = "*") -> Response:
    """Return the groups of versions of the adapters that match whose deltas are nearly the same, by their sketches."""
    return json_response(backend.near_duplicates(parse_adapter_pattern(pattern)))


@routes.get(_VERSION + "/facts", response_model=tuple[VersionFacts, ...], responses=error_responses(404, 409))
async def facts(ref: RefDep, backend: AsyncBackendDep) -> Response:
    """Return what the registry's probes said of a version, as ``check``: the findings by its header."""
    return json_response(await backend.facts(ref))


@routes.get("/findings", response_model=FindingCounts, responses=error_responses())
async def findings(backend: AsyncBackendDep, pattern: Annotated[str, Query(max_length=200)] = "*") -> Response:
    """Count findings on the versions of the adapters that match, by code and namespace, as far as they were checked."""
    return json_response(await backend.count_findings(parse_adapter_pattern(pattern)))


@routes.get(_VERSION + "/sketch", response_model=SketchResponse, responses=error_responses(404, 409))
def sketch(ref: RefDep, backend: BackendDep) -> Response:
    """Return the digest of a version's data and the sketch of its deltas, as far as they are recorded."""
    return json_response(SketchResponse(backend.sketch(ref)))


@routes.get("/files/{sha256}", response_model=tuple[str, ...], responses=error_responses())
async def with_file(sha256: Sha256, backend: AsyncBackendDep) -> Response:
    """List the refs of the versions that have a file with this sha256, the oldest first."""
    return json_response(await backend.with_file(sha256))
