"""What is on its way to webhooks: queued with the events, sent by whoever claims the webhook, kept for a while.

A webhook gets one delivery at a time, the oldest first. Who delivers claims the webhook, for a minute; a process that
is killed leaves a claim that runs out, and what it may have sent is sent again under the same id.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select, update

from loreg.catalog import clock, webhooks
from loreg.catalog.paging import decode, encode
from loreg.catalog.schema import webhook_delivery_table, webhook_table
from loreg.catalog.transaction import Transaction
from loreg.entities import DeliveryState, Page, WebhookDelivery
from loreg.errors import NotFoundError

#: How long a claim holds: longer than one attempt may take.
LEASE = timedelta(seconds=60)
#: How long a delivery is tried, and how long a webhook may fail before it is disabled.
MAX_AGE = timedelta(days=1)
MAX_FAILING = timedelta(days=3)
#: How long a delivery that has ended is kept, and how many of one webhook are, and how many may wait.
RETENTION = timedelta(days=30)
MAX_ENDED = 1000
MAX_PENDING = 10_000
_GONE = 410  # HTTP: the receiver asks for no more
_PENDING = webhook_delivery_table.c.state == DeliveryState.PENDING
_DeliveryRow = Row[*tuple[Any, ...]]


class Attempt(msgspec.Struct, frozen=True):
    """A delivery that the caller has claimed, and how to send it."""

    delivery_id: int
    webhook_id: int
    message_id: str
    url: str
    secrets: tuple[str, ...]
    body: str
    attempts: int


class Outcome(msgspec.Struct, frozen=True):
    """What came of an attempt: the ``status`` that was answered, or an ``error``; next try in ``pause`` seconds."""

    status: int | None
    error: str
    pause: float

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


def new_message_id() -> str:
    """Return an id for a delivery, the same in all of its attempts."""
    return "msg_" + secrets.token_hex(12)


def enqueue(
    tx: Transaction, webhook_id: int, message_id: str, event_id: int | None, event: str, ref: str, body: str
) -> WebhookDelivery:
    """Queue a delivery, due at once."""
    now = clock.now(tx)
    values = {
        "webhook_id": webhook_id,
        "message_id": message_id,
        "event_id": event_id,
        "event": event,
        "ref": ref,
        "body": body,
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "error": "",
        "created_at": now,
        "queued_at": now,
        "due_at": now,
    }
    statement = insert(webhook_delivery_table).values(**values).returning(webhook_delivery_table)
    return _to_delivery(tx.connection.execute(statement).one())


def list_page(tx: Transaction, webhook_id: int, limit: int, cursor: str | None) -> Page[WebhookDelivery]:
    """Return a page of the deliveries of a webhook, the newest first."""
    query = select(webhook_delivery_table).where(webhook_delivery_table.c.webhook_id == webhook_id)
    if cursor:
        query = query.where(webhook_delivery_table.c.id < decode(cursor, "deliveries", (int,))[0])
    rows = tx.connection.execute(query.order_by(webhook_delivery_table.c.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page(tuple(map(_to_delivery, shown)), encode("deliveries", [shown[-1].id]) if len(rows) > limit else None)


def redeliver(tx: Transaction, webhook_id: int, delivery_id: int) -> WebhookDelivery:
    """Queue a delivery again, under its id; it is tried for as long as a new one. Raises NotFoundError."""
    now = clock.now(tx)
    values = {"state": DeliveryState.PENDING, "queued_at": now, "due_at": now, "finished_at": None, "attempts": 0}
    which = and_(webhook_delivery_table.c.id == delivery_id, webhook_delivery_table.c.webhook_id == webhook_id)
    statement = update(webhook_delivery_table).where(which).values(**values).returning(webhook_delivery_table)
    row = tx.connection.execute(statement).one_or_none()
    if row is None:
        raise NotFoundError(
            f"webhook {webhook_id} has no delivery {delivery_id}", hint=f"loreg webhook deliveries {webhook_id}"
        )
    hasten(tx, webhook_id)
    webhooks.log(tx, "webhook redeliver", webhook_id, delivery=delivery_id)
    return _to_delivery(row)


def stop_all(tx: Transaction, reason: str) -> None:
    """Disable every webhook, and give up what waits: it may have been sent, or be about what is long past."""
    values = {"state": DeliveryState.FAILED, "error": reason[:256], "finished_at": clock.now(tx)}
    tx.connection.execute(update(webhook_delivery_table).where(_PENDING).values(**values))
    for row in webhooks.list_active(tx):
        webhooks.disable(tx, row.id, reason)


def hasten(tx: Transaction, webhook_id: int) -> None:
    """Let what waits for its next attempt be tried now: somebody has mended the receiver."""
    which = and_(webhook_delivery_table.c.webhook_id == webhook_id, _PENDING)
    tx.connection.execute(update(webhook_delivery_table).where(which).values(due_at=clock.now(tx)))


def list_due(tx: Transaction) -> tuple[list[int], float | None]:
    """Return the webhooks that have something due and are claimed by nobody, and in how many seconds others have."""
    head = (
        select(func.min(webhook_delivery_table.c.id))
        .where(webhook_delivery_table.c.webhook_id == webhook_table.c.id, _PENDING)
        .correlate(webhook_table)
        .scalar_subquery()
    )
    delivery = webhook_delivery_table.alias()
    query = (
        select(webhook_table.c.id, webhook_table.c.claimed_until, delivery.c.due_at)
        .select_from(webhook_table)
        .join(delivery, delivery.c.id == head)
        .where(webhook_table.c.disabled_at.is_(None))
    )
    rows = tx.connection.execute(query).all()
    if not rows:
        return [], None
    now = tx.connection.execute(select(clock.now(tx))).scalar_one()
    due, waits = [], []
    for row in rows:
        wait = (max(row.due_at, row.claimed_until or row.due_at) - now).total_seconds()
        if wait <= 0:
            due.append(row.id)
        else:
            waits.append(wait)
    return due, min(waits, default=None)


def claim_next(tx: Transaction, webhook_id: int, claimant: str) -> Attempt | None:
    """Claim a webhook, or keep the claim, and return what is to be sent now; None, and no claim, if there is nothing.

    Of several processes one has the claim. A webhook whose maker may not act any more is disabled.
    """
    is_free = or_(
        webhook_table.c.claimed_until.is_(None),
        webhook_table.c.claimed_until < clock.now(tx),
        webhook_table.c.claimed_by == claimant,
    )
    claim = (
        update(webhook_table)
        .where(webhook_table.c.id == webhook_id, webhook_table.c.disabled_at.is_(None), is_free)
        .values(claimed_by=claimant, claimed_until=clock.now(tx, LEASE))
        .returning(webhook_table)
    )
    row = tx.connection.execute(claim).one_or_none()
    if row is None:
        return None
    if webhooks.find_access(tx, row) is None:
        webhooks.disable_without_token(tx, row)
        return None
    _give_up_old(tx, webhook_id)
    query = select(webhook_delivery_table).where(webhook_delivery_table.c.webhook_id == webhook_id, _PENDING)
    head = tx.connection.execute(query.order_by(webhook_delivery_table.c.id).limit(1)).one_or_none()
    now = tx.connection.execute(select(clock.now(tx))).scalar_one()
    if head is None or head.due_at > now:
        release(tx, webhook_id, claimant)
        return None
    both = tuple(filter(None, (row.secret, row.old_secret)))
    return Attempt(head.id, webhook_id, head.message_id, row.url, both, head.body, head.attempts)


def release(tx: Transaction, webhook_id: int, claimant: str) -> None:
    """Give the claim of a webhook back, if the caller has it."""
    which = and_(webhook_table.c.id == webhook_id, webhook_table.c.claimed_by == claimant)
    tx.connection.execute(update(webhook_table).where(which).values(claimed_by="", claimed_until=None))


def record(tx: Transaction, attempt: Attempt, claimant: str, outcome: Outcome) -> None:
    """Record what came of an attempt, unless another has the claim by now."""
    query = select(webhook_table).where(
        webhook_table.c.id == attempt.webhook_id, webhook_table.c.claimed_by == claimant
    )
    webhook = tx.connection.execute(query.with_for_update()).one_or_none()
    if webhook is None:
        return
    values: dict[str, Any] = {
        "attempts": attempt.attempts + 1,
        "status": outcome.status,
        "error": outcome.error,
        "due_at": clock.now(tx, timedelta(seconds=outcome.pause)),
    }
    if outcome.is_delivered:
        values |= {"state": DeliveryState.DELIVERED, "finished_at": clock.now(tx)}
    which = and_(webhook_delivery_table.c.id == attempt.delivery_id, _PENDING)
    tx.connection.execute(update(webhook_delivery_table).where(which).values(**values))
    failing_since = None if outcome.is_delivered else func.coalesce(webhook_table.c.failing_since, clock.now(tx))
    change = update(webhook_table).where(webhook_table.c.id == webhook.id).values(failing_since=failing_since)
    since = tx.connection.execute(change.returning(webhook_table.c.failing_since < clock.now(tx, -MAX_FAILING)))
    has_failed_long = bool(since.scalar_one())
    if outcome.status == _GONE:
        webhooks.disable(tx, webhook.id, "the receiver answered 410: it wants no more")
    elif has_failed_long:
        webhooks.disable(tx, webhook.id, f"nothing was delivered for {MAX_FAILING.days} days: {outcome.error}")


def clean_up(tx: Transaction) -> None:
    """Remove the deliveries that ended long ago, or of which their webhook has had many since; give up the oldest."""
    table = webhook_delivery_table
    tx.connection.execute(delete(table).where(table.c.finished_at < clock.now(tx, -RETENTION)))
    for webhook_id in tx.connection.execute(select(webhook_table.c.id).order_by(webhook_table.c.id)).scalars().all():
        ended = and_(table.c.webhook_id == webhook_id, ~_PENDING)
        last = _nth_newest(tx, ended, MAX_ENDED)
        tx.connection.execute(delete(table).where(ended, table.c.id <= last))
        _give_up_old(tx, webhook_id)


def _give_up_old(tx: Transaction, webhook_id: int) -> None:
    """Let the deliveries fail that were tried for a day, or of which too many wait; the event says how many."""
    table = webhook_delivery_table
    of_webhook = and_(table.c.webhook_id == webhook_id, _PENDING)
    last = _nth_newest(tx, of_webhook, MAX_PENDING)
    too_old = or_(table.c.queued_at < clock.now(tx, -MAX_AGE), table.c.id <= last)
    statement = update(table).where(of_webhook, too_old).values(state=DeliveryState.FAILED, finished_at=clock.now(tx))
    if count := tx.connection.execute(statement).rowcount:
        webhooks.log(tx, "webhook give up", webhook_id, deliveries=count)


def _nth_newest(tx: Transaction, which: ColumnElement[bool], count: int) -> int:
    """Return the id of the delivery that comes after the newest ``count`` of those; 0 if there are no more."""
    query = select(webhook_delivery_table.c.id).where(which).order_by(webhook_delivery_table.c.id.desc())
    return tx.connection.execute(query.offset(count).limit(1)).scalar() or 0


def _to_delivery(row: _DeliveryRow) -> WebhookDelivery:
    return WebhookDelivery(
        row.id,
        row.webhook_id,
        row.message_id,
        row.event_id,
        row.event,
        row.ref,
        DeliveryState(row.state),
        row.attempts,
        row.status,
        row.error,
        row.created_at,
        row.due_at,
        row.finished_at,
    )
