"""The page ``/audit``: who did what, and when, the newest first; also as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import msgspec
from fastapi import APIRouter, Request, Response

from loreg.entities import Event
from loreg.entities.display.text import printable
from loreg.refs import parse_adapter_name
from loreg.server.pages.commands import command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import HEADERS, PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE, _CSV = 100, 1000  # events
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


class EventRow(Value, frozen=True):
    """An event, with its detail in one line."""

    event: Event
    detail: str


class AuditView(Value, frozen=True):
    """What the page shows of the events of all adapters, or of one."""

    adapter: str
    rows: tuple[EventRow, ...]
    csv_path: str
    next_path: str


@routes.api_route("/audit", methods=["GET", "HEAD"])
async def audit(request: Request) -> Response:
    """Show the events that the visitor may read."""
    visitor = await get_visitor(request)
    adapter = request.query_params.get("adapter", "").strip()
    name = parse_adapter_name(adapter) if adapter else None
    cursor = request.query_params.get("cursor") or None
    is_csv = request.query_params.get("format") == "csv"
    events = await visitor.backend.events(_CSV if is_csv else _PAGE, cursor, adapter=name)
    if is_csv:
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="events.csv"'}
        return Response(_to_csv(events.items), 200, headers, "text/csv; charset=utf-8")
    view = AuditView(
        adapter=adapter,
        rows=tuple(EventRow(event, _describe(event)) for event in events.items),
        csv_path=with_query("/audit", [("adapter", adapter), ("format", "csv")]),
        next_path=with_query("/audit", [("adapter", adapter), ("cursor", events.cursor)]) if events.cursor else "",
    )
    return page(
        visitor,
        "audit.html",
        title="Audit",
        view=view,
        command=command("log", adapter) if adapter else command("events"),
        api=with_query("/api/v1/events", [("adapter", adapter)]),
        document=events,
    )


def _describe(event: Event) -> str:
    return ", ".join(f"{name}={_plain(value)}" for name, value in event.detail.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _to_csv(events: Iterable[Event]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "at", "author", "action", "ref", "detail"])
    for event in events:
        cells = [event.author, event.action, event.ref, _describe(event)]
        writer.writerow([event.id, event.at.isoformat(), *map(_as_text, cells)])
    return text.getvalue()


def _as_text(cell: str) -> str:
    """Return a cell that a spreadsheet shows and does not compute."""
    shown = printable(cell, 32_000)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
