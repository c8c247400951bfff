"""The page ``/audit``: who did what, and when, the newest first; also as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping

import msgspec
from fastapi import APIRouter, Request, Response

from loreg.entities import Event
from loreg.entities.display.text import printable
from loreg.entities.webhooks import ACTIONS
from loreg.errors import UsageError
from loreg.parsing import parse_event_filter
from loreg.server.pages.commands import command
from loreg.server.pages.paths import with_query
from loreg.server.pages.visitor import HEADERS, PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE, _CSV = 100, 1000  # events
_FIELDS = ("adapter", "namespace", "author", "action", "since", "until", "pulls")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MAX_FIELD = 200  # characters
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


class EventRow(Value, frozen=True):
    """An event, with its detail in one line."""

    event: Event
    detail: str


class AuditView(Value, frozen=True):
    """What the page shows of the events that are asked for; ``asked`` is what the fields of its form hold."""

    asked: Mapping[str, str]
    actions: tuple[str, ...]
    rows: tuple[EventRow, ...]
    csv_path: str
    next_path: str
    time_field: str

    @property
    def is_filtered(self) -> bool:
        """Whether less is asked for than all events."""
        return any(self.asked.values())


@routes.api_route("/audit", methods=["GET", "HEAD"])
async def audit(request: Request) -> Response:
    """Show the events that the visitor may read."""
    visitor = await get_visitor(request)
    asked = {name: _read_field(request, name) for name in _FIELDS}
    wanted = parse_event_filter(
        adapter=asked["adapter"],
        namespace=asked["namespace"],
        author=asked["author"],
        actions=[asked["action"]] if asked["action"] else [],
        since=asked["since"],
        until=asked["until"],
        pulls=asked["pulls"] != "false",
    )
    cursor = request.query_params.get("cursor") or None
    is_csv = request.query_params.get("format") == "csv"
    events = await visitor.backend.events(_CSV if is_csv else _PAGE, cursor, wanted)
    if is_csv:
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="events.csv"'}
        return Response(_to_csv(events.items), 200, headers, "text/csv; charset=utf-8")
    pairs = list(asked.items())
    view = AuditView(
        asked=asked,
        actions=tuple(sorted(ACTIONS)),
        rows=tuple(EventRow(event, _describe(event)) for event in events.items),
        csv_path=with_query("/audit", [*pairs, ("format", "csv")]),
        next_path=with_query("/audit", [*pairs, ("cursor", events.cursor)]) if events.cursor else "",
        time_field="text" if any(map(_is_no_date, (asked["since"], asked["until"]))) else "date",
    )
    return page(
        visitor,
        "audit.html",
        title="Audit",
        view=view,
        command=_command(asked),
        api=with_query("/api/v1/events", pairs),
        document=events,
    )


def _is_no_date(text: str) -> bool:
    """Return whether a field for dates would not show what is asked for: a time, or a span before now."""
    return bool(text) and not _DATE.fullmatch(text)


def _read_field(request: Request, name: str) -> str:
    """Return a field of the form. Raises UsageError for one that nobody types."""
    value = request.query_params.get(name, "").strip()
    if len(value) > _MAX_FIELD:
        raise UsageError(
            f"{name} has {len(value):,} characters, expected {_MAX_FIELD} at most", hint="loreg events --help"
        )
    return value


def _command(asked: Mapping[str, str]) -> str:
    if asked["adapter"] and not any(value for name, value in asked.items() if name != "adapter"):
        return command("log", asked["adapter"])
    options = [word for name, value in asked.items() if value and name != "pulls" for word in (f"--{name}", value)]
    return command("events", *options, *(["--no-pulls"] if asked["pulls"] == "false" else []))


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
