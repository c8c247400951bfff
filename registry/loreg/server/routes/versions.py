"""Adapters and their versions: found, shown, committed, and what is said of them afterwards."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints

from loreg.entities import AdapterEntry, CheckReport, Committed, Details, Metric, Page, Version
from loreg.entities import Query as Search
from loreg.errors import NotFoundError, UsageError
from loreg.local.bases import limit_concurrent_reads
from loreg.manifest import Manifest
from loreg.parsing import parse_comparison, parse_label, parse_metric_condition, parse_sort
from loreg.refs import parse_alias, parse_ref
from loreg.schemas import AliasTarget, CommitRequest, ExportRequest, LineageResponse, YankRequest
from loreg.server.bodies import BodyRoute
from loreg.server.dependencies import REF_PARAMETERS, Adapter, Cursor, Expected, Limit, Selected, Sha256, etag, ref_in
from loreg.server.pages import page_of
from loreg.server.responses import error_responses, json_response, no_content
from loreg.server.state import BackendDep, CurrentAccess, ServiceDep, backend_of
from loreg.verbs import check as checking
from loreg.workspace.context import Context, is_path

routes = APIRouter(prefix="/api/v1", tags=["versions"], route_class=BodyRoute)
Word = Annotated[str, StringConstraints(max_length=200)]
Words = Annotated[tuple[Word, ...], Query(max_length=20)]
_IN_ADAPTER = "/adapters/{namespace}/{name}"
_VERSION = _IN_ADAPTER + "/versions/{selector}"
_ALIAS = _IN_ADAPTER + "/aliases/{alias}"


@routes.get(_VERSION, response_model=Details, responses=error_responses(404, 409), openapi_extra=REF_PARAMETERS)
async def show(request: Request) -> Response:
    """All that is known of a version."""
    backend = await backend_of(request)
    return json_response(await backend.catalog.run_async(backend.show, ref_in(request)))


@routes.get("/search", response_model=Page[Version], responses=error_responses())
async def search(
    backend: BackendDep,
    text: Annotated[str, Query(max_length=512)] = "",
    task: Words = (),
    base: Annotated[str, Query(max_length=512)] = "",
    module: Words = (),
    rank: Words = (),
    metric: Words = (),
    label: Words = (),
    author: Annotated[str, Query(max_length=128)] = "",
    variant: Annotated[str, Query(max_length=32)] = "",
    sort: Annotated[str, Query(max_length=512)] = "created",
    all_versions: bool = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """A page of the versions that hold every condition, written as on the command line: ``metric=accuracy>=0.9``."""
    query = Search(
        text=text,
        tasks=task,
        base=base,
        modules=module,
        ranks=tuple(map(parse_comparison, rank)),
        metrics=tuple(map(parse_metric_condition, metric)),
        labels=tuple(map(parse_label, label)),
        author=author,
        variant=variant,
        sort=parse_sort(sort),
        all_versions=all_versions,
    )

    def found(limit: int, cursor: str | None) -> Page[Version]:
        return backend.search(replace(query, limit=limit, cursor=cursor))

    return await page_of(backend.catalog, found, limit, cursor)


@routes.get("/adapters", response_model=Page[AdapterEntry], responses=error_responses())
async def adapters(backend: BackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """A page of all adapters, by name."""
    return await page_of(backend.catalog, backend.adapters, limit, cursor)


@routes.get(_IN_ADAPTER + "/versions", response_model=Page[Version], responses=error_responses(404))
async def versions(adapter: Adapter, backend: BackendDep, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """A page of the versions of one adapter, the newest first, yanked ones too."""
    return await page_of(backend.catalog, functools.partial(backend.versions, adapter), limit, cursor)


@routes.post(
    _IN_ADAPTER + "/versions",
    status_code=201,
    response_model=Committed,
    responses={200: {"model": Committed, "description": "It was there already."}, **error_responses(409, 422)},
)
def commit(
    adapter: Adapter, body: CommitRequest, backend: BackendDep, service: ServiceDep, access: CurrentAccess
) -> Response:
    """Record a version whose blobs were uploaded."""
    asked = body.commit
    if asked.adapter != adapter:
        raise UsageError(f"the path names {adapter}, the commit {asked.adapter}", hint="one name for both")
    with service.uploads(access).accept(asked.digests, body.uploads, body.contents) as accepted:
        done = backend.commit(asked, accepted)
    return json_response(done, 201 if done.created else 200)


@routes.get(_VERSION + "/lineage", response_model=LineageResponse, responses=error_responses(404, 409))
async def lineage(ref: Selected, backend: BackendDep) -> Response:
    """The version, and every merge that it descends from, nearest first."""
    return json_response(LineageResponse(*await backend.catalog.run_async(backend.lineage, ref)))


@routes.get(_VERSION + "/check", response_model=CheckReport, responses=error_responses(404, 409))
def check(
    ref: Selected,
    backend: BackendDep,
    service: ServiceDep,
    base: Annotated[str | None, Query(max_length=512)] = None,
    profile: Words = (),
    against: Annotated[str, Query(max_length=300)] = "",
) -> Response:
    """What is wrong with a version by its headers: by itself, on a base that is known, in servers, beside another."""
    for given in (base or "", *profile):
        if is_path(given) or given.endswith(".toml"):
            raise UsageError(
                f"{given!r} is a path, and the server reads none of its own", hint="loreg check REF, there"
            )
    context = Context(backend, service.store, Path(), service.policy)
    text = str(ref)
    with limit_concurrent_reads() if base is not None else contextlib.nullcontext():
        (report,) = checking.check(context, [text], base=base, profiles=profile, against=against, header_only=True)
    return json_response(report)


@routes.post(_VERSION + "/metrics", response_model=Version, responses=error_responses(404, 409))
async def add_metrics(ref: Selected, body: tuple[Metric, ...], backend: BackendDep) -> Response:
    """Record measured numbers; one measured on the same data before is replaced."""
    return json_response(await backend.catalog.run_async(backend.add_metrics, ref, body))


@routes.put(_VERSION + "/yanked", response_model=Version, responses=error_responses(404, 409))
async def set_yanked(ref: Selected, body: YankRequest, backend: BackendDep) -> Response:
    """Hide a version from search and alias, or show it again."""
    return json_response(await backend.catalog.run_async(backend.set_yanked, ref, body.yanked, body.reason))


@routes.get(_VERSION + "/exports/{request}", response_model=Manifest, responses=error_responses(404, 409))
async def export(ref: Selected, request: Sha256, backend: BackendDep) -> Response:
    """The files that the version became for a server, by the digest of what was asked for."""
    found = await backend.catalog.run_async(backend.export, ref, request)
    if found is None:
        raise NotFoundError(f"{ref} was never exported so", hint="loreg pull REF --profile SERVER makes it")
    return json_response(found)


@routes.put(_VERSION + "/exports/{request}", response_model=Manifest, responses=error_responses(404, 409, 422))
def record_export(ref: Selected, request: Sha256, body: ExportRequest, backend: BackendDep) -> Response:
    """Make the version's files for a server by the name of its profile, and remember them."""
    return json_response(backend.record_export(ref, request, body.profile))


@routes.delete(_VERSION + "/exports/{request}", status_code=204, responses=error_responses(404, 409))
async def drop_export(ref: Selected, request: Sha256, backend: BackendDep) -> Response:
    """Forget an export; the next who asks for it has it made."""
    await backend.catalog.run_async(backend.drop_export, ref, request)
    return no_content()


@routes.get(_ALIAS, response_model=Details, responses=error_responses(404))
async def alias(adapter: Adapter, alias: str, backend: BackendDep) -> Response:
    """The version that an alias means; its ETag goes into the If-Match of whoever moves it."""
    found = await backend.catalog.run_async(backend.show, parse_ref(f"{adapter}:{parse_alias(alias)}"))
    return json_response(found, headers={"ETag": etag(found.version.number)})


@routes.put(_ALIAS, response_model=Version, responses=error_responses(404, 409, 412, 422))
async def tag(adapter: Adapter, alias: str, body: AliasTarget, expected: Expected, backend: BackendDep) -> Response:
    """Let an alias mean a version of the adapter from now on; with If-Match, only if nobody moved it meanwhile."""
    ref = parse_ref(body.ref)
    if ref.adapter != adapter:
        raise UsageError(f"an alias of {adapter} cannot mean {ref}", hint=f"a ref of {adapter}")
    version = await backend.catalog.run_async(backend.tag, ref, parse_alias(alias), expected)
    return json_response(version, headers={"ETag": etag(version.number)})


@routes.delete(_ALIAS, status_code=204, responses=error_responses(404, 412))
async def untag(adapter: Adapter, alias: str, expected: Expected, backend: BackendDep) -> Response:
    """Forget an alias; its history stays; with If-Match, only if nobody moved it meanwhile."""
    await backend.catalog.run_async(backend.untag, adapter, parse_alias(alias), expected)
    return no_content()


@routes.get("/contents/{digest}", response_model=Version, responses=error_responses(404))
async def with_content(digest: Sha256, backend: BackendDep) -> Response:
    """A version of any adapter with exactly this manifest, the oldest."""
    found = await backend.catalog.run_async(backend.with_content, digest)
    if found is None:
        raise NotFoundError(f"no version has the content sha256:{digest[:12]}", hint="loreg search")
    return json_response(found)


@routes.get("/files/{sha256}", response_model=tuple[str, ...], responses=error_responses())
async def with_file(sha256: Sha256, backend: BackendDep) -> Response:
    """The refs of the versions that have a file with this content, the oldest first."""
    return json_response(await backend.catalog.run_async(backend.with_file, sha256))
