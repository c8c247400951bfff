"""Queue every event for the webhooks that are told of it, once, whoever of several processes does it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from loreg.catalog import Catalog, Transaction, webhook_deliveries, webhooks
from loreg.catalog.event_feed import FeedEvent, digests_of, read_feed
from loreg.catalog.webhooks import WebhookRow
from loreg.entities import Access, Event
from loreg.refs import parse_adapter_pattern

#: The schema of what is sent.
SCHEMA = "loreg.event/1"
_BATCH = 500
_NOBODY = Access.superuser("loreg")


def queue_events(catalog: Catalog) -> bool:
    """Queue some of the events that came since the last call; return whether there may be more."""
    with catalog.read() as tx:
        position = webhooks.read_position(tx)
        if position is None or not webhooks.list_active(tx) or not read_feed(tx, position, 1)[0]:
            return False
    with catalog.write(_NOBODY) as tx:
        locked = webhooks.lock_position(tx)
        if locked is None:
            return False
        events, after = read_feed(tx, locked, _BATCH)
        _queue(tx, events, catalog.registry_id)
        webhooks.advance(tx, after)
    return len(events) == _BATCH


def _queue(tx: Transaction, events: Sequence[FeedEvent], registry: str) -> None:
    digests = digests_of(tx, [event.event.id for event in events])
    for row in webhooks.list_active(tx, for_share=True):
        access = webhooks.find_access(tx, row)
        if access is None:
            webhooks.disable_without_token(tx, row)
            continue
        for event in events:
            if _is_for(row, event, access):
                queue(tx, row.id, registry, event.event, digests.get(event.event.id, ""))


def _is_for(row: WebhookRow, event: FeedEvent, access: Access) -> bool:
    """Return whether the webhook is told of the event: not of what is about itself."""
    if event.event.id <= row.after_event or event.event.detail.get("webhook") == row.id:
        return False
    patterns = [parse_adapter_pattern(pattern) for pattern in row.patterns]
    return (not row.actions or event.event.action in row.actions) and event.is_for(access, frozenset(), patterns)


def queue(tx: Transaction, webhook_id: int, registry: str, event: Event | None, digest: str = "") -> int:
    """Queue an event for a webhook, or a ping; return the id of the delivery."""
    message_id = webhook_deliveries.new_message_id()
    name = event.action if event is not None else "ping"
    ref = event.ref if event is not None else ""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "delivery": message_id,
        "registry": registry,
        "event": name,
        "id": event.id if event is not None else None,
        "at": (event.at if event is not None else tx.at).isoformat(),
        "author": event.author if event is not None else tx.author,
        "ref": ref,
        "digest": digest,
        "alias": event.detail.get("alias", "") if event is not None else "",
        "detail": dict(event.detail) if event is not None else {},
    }
    body = json.dumps(document, separators=(",", ":"))
    event_id = event.id if event is not None else None
    return webhook_deliveries.enqueue(tx, webhook_id, message_id, event_id, name, ref, body).id
