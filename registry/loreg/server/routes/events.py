"""Routes of events: a page of what was done, and a stream of it as it is done (server-sent events)."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Sequence
from operator import attrgetter
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from loreg.catalog.event_feed import FeedEvent, FeedPosition, parse_position
from loreg.entities import Access, Event, Page
from loreg.errors import LoregError
from loreg.parsing import parse_event_filter
from loreg.refs import parse_adapter_pattern
from loreg.server.dependencies import Cursor, Limit, Words
from loreg.server.event_hub import Batch, EventHub, Listener
from loreg.server.pagination import page_response
from loreg.server.responses import error_responses
from loreg.server.state import AsyncBackendDep, CurrentAccess, ServiceDep

routes = APIRouter(prefix="/api/v1", tags=["administration"])
_HEARTBEAT = 20.0  # seconds without an event after which a comment says that the connection lives
_ACCESS_SECONDS = 300.0  # after which the token is looked up again: it may have expired
_POSITION_LENGTH = 32_768


@routes.get("/events", response_model=Page[Event], responses=error_responses(404))
async def events(
    backend: AsyncBackendDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    adapter: Annotated[str, Query(max_length=193, description="Those of this adapter alone.")] = "",
    namespace: Annotated[str, Query(max_length=96, description="Or - for adapters that have none.")] = "",
    author: Annotated[str, Query(max_length=128, description="Those of this person or token alone.")] = "",
    action: Words = (),
    since: Annotated[str, Query(max_length=40, description="A date, or a date and a time.")] = "",
    until: Annotated[str, Query(max_length=40, description="Until the end of that date, or that time.")] = "",
    pulls: Annotated[bool, Query(description="Also those of pulls, which change nothing.")] = True,
) -> Response:
    """Return a page of events that the caller may read, the newest first."""
    wanted = parse_event_filter(
        adapter=adapter, namespace=namespace, author=author, actions=action, since=since, until=until, pulls=pulls
    )
    return await page_response(functools.partial(backend.events, wanted=wanted), limit, cursor)


@routes.get("/events/stream", response_class=StreamingResponse, responses=error_responses())
async def stream(
    request: Request,
    service: ServiceDep,
    access: CurrentAccess,
    pattern: Words = (),
    after: Annotated[str, Query(max_length=_POSITION_LENGTH, description="The id of the last event read.")] = "",
    pulls: Annotated[bool, Query(description="Also those of pulls, which change nothing.")] = False,
    last_event_id: Annotated[str, Header(max_length=_POSITION_LENGTH)] = "",
) -> Response:
    """Stream the events that the caller may read as they are committed: those after an id, or from now on.

    Each has the name of its action, a JSON document, and an id to go on from, as ``Last-Event-ID`` or ``after``.
    ``pattern`` names adapters, as ``team/*``. What the caller is not told of comes to nothing but a later id.
    """
    text = last_event_id or after
    position = parse_position(text) if text else None
    patterns = tuple(map(parse_adapter_pattern, pattern))
    hub: EventHub = request.app.state.event_hub
    host = request.client.host if request.client else ""

    def is_visible(event: FeedEvent, public: frozenset[str]) -> bool:
        return (pulls or not event.is_pull) and event.is_for(access, public, patterns)

    async def lines() -> AsyncIterator[bytes]:
        async with hub.listening(access, host) as listener:
            request.scope["end_stream"] = listener.end
            batches = _read_batches(hub, service, listener, position, request.headers.get("Authorization", ""), access)
            sent_at = float("-inf")
            async for batch in batches:
                visible = [event.event for event in batch.events if is_visible(event, batch.public)] if batch else []
                if batch and batch.events and not visible and time.monotonic() - sent_at < _HEARTBEAT:
                    continue  # nobody is woken by what others are told, but for once in a while
                yield _encode(visible, batch.position) if batch else b": \n\n"
                sent_at = time.monotonic()

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


async def _read_batches(
    hub: EventHub,
    service: ServiceDep,
    listener: Listener,
    after: FeedPosition | None,
    authorization: str,
    access: Access,
) -> AsyncIterator[Batch | None]:
    """Yield batches of events, first those after ``after``, then as they come; None where there is none for a while."""
    position = after or listener.start
    yield Batch((), position, frozenset())  # says at once where it begins
    while after and (batch := await service.catalog.run_async(hub.read_after, position)).events:
        position = batch.position
        yield batch
    waited = 0.0
    while not listener.has_ended:
        latest = await listener.next_batch(_HEARTBEAT)
        waited = 0.0 if latest else waited + _HEARTBEAT
        may_have_changed = latest.changes_access if latest else waited >= _ACCESS_SECONDS
        if may_have_changed and not await _still_holds(service, authorization, access):
            return
        if latest is not None:
            events = tuple(event for event in latest.events if position.lacks(event.event.id))
            yield Batch(events, max(position, latest.position, key=attrgetter("last")), latest.public)
        elif not listener.has_ended:
            yield None


async def _still_holds(service: ServiceDep, authorization: str, access: Access) -> bool:
    """Return whether the caller may still do what it could when it came."""
    if access.while_open:
        return await service.is_open()
    if access.token_id is None:
        return True
    try:
        return (await service.catalog.run_async(service.authenticate, authorization)).permissions == access.permissions
    except LoregError:
        return False


def _encode(events: Sequence[Event], position: FeedPosition) -> bytes:
    """Return events in the format of server-sent events (WHATWG HTML, 9.2.6); the last of them has the id."""
    if not events:
        return f"id: {position}\ndata:\n\n".encode()
    lines = [f"event: {event.action}\ndata: {msgspec.json.encode(event).decode()}\n" for event in events]
    return ("\n".join(lines) + f"id: {position}\n\n").encode()
