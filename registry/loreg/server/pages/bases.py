"""The page ``/bases``: which models adapters were trained on, by content or by name only, and how many on each."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.entities import BaseSummary
from loreg.server.pages.commands import command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE = 50  # bases


class BaseRow(Value, frozen=True):
    """A base, and the command that makes one known by content that is known by name only; empty for others."""

    summary: BaseSummary
    add: str


class BasesView(Value, frozen=True):
    """What the page shows."""

    rows: tuple[BaseRow, ...]
    next_path: str


@routes.api_route("/bases", methods=["GET", "HEAD"])
async def bases(request: Request) -> Response:
    """Show the bases of the versions that the visitor may read, the most used first."""
    visitor = await get_visitor(request)
    summaries = await visitor.backend.base_summaries(_PAGE, request.query_params.get("cursor") or None)
    view = BasesView(
        rows=tuple(map(_to_row, summaries.items)),
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


def _to_row(summary: BaseSummary) -> BaseRow:
    is_plain = bool(summary.name) and summary.name.isprintable() and not summary.name.startswith("-")
    is_unknown = not summary.digest and is_plain
    return BaseRow(summary, command("base", "add", "./model", "--name", summary.name) if is_unknown else "")
