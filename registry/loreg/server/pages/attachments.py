"""The form on ``/bases`` that attaches a known model to the adapters that only give its name, and its answer."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from loreg.entities import BaseAttachment, Query, Role
from loreg.errors import UsageError
from loreg.manifest import is_digest
from loreg.refs import Ref
from loreg.server.pages import sessions
from loreg.server.pages.commands import command
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
ATTACH = "/_/base-attach"
_MAX_REFS = 50  # whose headers are read for one answer
_MAX_LENGTH = 4096


class AttachmentView(Value, frozen=True):
    """What the answer shows: what became of each version that declares a base, and what the form is sent with again.

    ``cursor`` is where the next versions begin, empty if these were all; ``hidden`` counts those of others.
    """

    base: str
    title: str
    declared: str
    attachments: tuple[BaseAttachment, ...]
    hidden: int
    cursor: str


@routes.post(ATTACH)
async def attach(request: Request) -> Response:
    """Attach a base to the versions that give its name only and that the visitor may write, as far as it fits."""
    visitor = await get_visitor(request)
    fields = await sessions.read_form(request, visitor.secret)
    digest, declared, cursor = (fields.get(name, "")[:_MAX_LENGTH] for name in ("base", "declared", "cursor"))
    if not (is_digest(digest) and declared):
        raise UsageError("expected a base, and the name that adapters give it", hint="loreg base attach --help")
    model = (await visitor.backend.base(digest)).base
    refs, hidden, following = await _find_declaring(visitor, declared, cursor)
    attached = await run_in_threadpool(_attach, visitor, digest, refs) if refs else ()
    view = AttachmentView(digest, model.title, declared, attached, hidden, following)
    text = command("base", "attach", digest[:12], *map(str, refs)) if refs else ""
    return page(visitor, "attachments.html", title="Attach a base", view=view, command=text)


def _attach(visitor: Visitor, digest: str, refs: tuple[Ref, ...]) -> tuple[BaseAttachment, ...]:
    return visitor.backend.local.attach_base(digest, refs, _MAX_REFS, None).items


async def _find_declaring(visitor: Visitor, declared: str, cursor: str) -> tuple[tuple[Ref, ...], int, str]:
    """Return the versions whose unknown base is called so: those to change, how many others, and the next cursor."""
    query = Query(base=declared, all_versions=True, limit=_MAX_REFS, cursor=cursor or None)
    results = await visitor.backend.search(query)
    unknown = [row for row in results.items if row.base is None and row.facts.base_hint == declared]
    own = [row for row in unknown if visitor.access.may(Role.WRITE, row.adapter.namespace)]
    refs = tuple(Ref(row.adapter, number=row.number) for row in own)
    return refs, len(unknown) - len(own), results.cursor or ""
