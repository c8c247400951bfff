"""The page ``/bases``: which models adapters were trained on, by content or by name only, and how many on each."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.base_names import names_base
from loreg.entities import BaseModel, BaseSummary, Role
from loreg.server.pages.commands import command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import PageRoute, Visitor, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE, _MAX_CHOICES = 50, 100  # bases
_MAX_NAME = 200  # characters of a name that somebody types


class BaseRow(Value, frozen=True):
    """A base, and the command that makes one known by content that is known by name only; empty for others.

    ``choices`` are known bases that it may be, digest and title: first those that are called so.
    """

    summary: BaseSummary
    add: str
    choices: tuple[tuple[str, str], ...]


class BasesView(Value, frozen=True):
    """What the page shows."""

    rows: tuple[BaseRow, ...]
    next_path: str


@routes.api_route("/bases", methods=["GET", "HEAD"])
async def bases(request: Request) -> Response:
    """Show the bases of the versions that the visitor may read, the most used first."""
    visitor = await get_visitor(request)
    summaries = await visitor.backend.base_summaries(_PAGE, request.query_params.get("cursor") or None)
    known = await _list_known(visitor)
    view = BasesView(
        rows=tuple(_to_row(summary, known) for summary in summaries.items),
        next_path=with_query("/bases", [("cursor", summaries.cursor)]) if summaries.cursor else "",
    )
    return page(
        visitor,
        "bases.html",
        title="Bases",
        view=view,
        command=command("bases"),
        api="/api/v1/base-summaries",
        document=summaries,
    )


async def _list_known(visitor: Visitor) -> tuple[BaseModel, ...]:
    """Return the bases that the visitor may attach, the newest; none for who may write nowhere."""
    if not visitor.secret or not visitor.access.may_somewhere(Role.WRITE):
        return ()
    return tuple(base for base in (await visitor.backend.bases(_MAX_CHOICES, None)).items if base.complete)


def _to_row(summary: BaseSummary, known: tuple[BaseModel, ...]) -> BaseRow:
    is_plain = 0 < len(summary.name) <= _MAX_NAME and summary.name.isprintable() and not summary.name.startswith("-")
    is_unknown = not summary.digest and is_plain
    if not is_unknown:
        return BaseRow(summary, "", ())
    likely = sorted(known, key=lambda base: not names_base(summary.name, base.names))
    choices = tuple((base.digest, base.title) for base in likely)
    return BaseRow(summary, command("base", "add", "./model", "--name", summary.name), choices)
