"""Webhooks: who is told of which events. What is on its way to them: :mod:`loreg.catalog.webhook_deliveries`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from loreg.catalog import clock, tokens
from loreg.catalog.event_feed import FeedPosition, end_of_feed, parse_position
from loreg.catalog.schema import event_table, webhook_delivery_table, webhook_feed_table, webhook_table
from loreg.catalog.transaction import Transaction
from loreg.entities import Access, Webhook
from loreg.errors import ConflictError, NotFoundError
from loreg.settings import mask_url

_FEED = 1  # the id of the only row
WebhookRow = Row[*tuple[Any, ...]]


def add(tx: Transaction, name: str, url: str, patterns: Sequence[str], actions: Sequence[str], secret: str) -> Webhook:
    """Record a webhook of the caller, who is told of what is done from now on."""
    if not list_active(tx):
        _set_position(tx, end_of_feed(tx))
    values = {
        "name": name,
        "url": url,
        "patterns": list(patterns),
        "actions": list(actions),
        "secret": secret,
        "old_secret": "",
        "author": tx.author,
        "grants": dict(tx.access.permissions),
        "token_id": tx.access.token_id,
        "while_open": tx.access.while_open,
        "after_event": tx.connection.execute(select(func.coalesce(func.max(event_table.c.id), 0))).scalar_one(),
        "created_at": clock.now(tx),
        "claimed_by": "",
    }
    row = tx.connection.execute(insert(webhook_table).values(**values).returning(webhook_table)).one()
    webhook = to_webhook(row)
    log(tx, "webhook add", webhook.id, name=name, url=webhook.url, patterns=list(patterns), actions=list(actions))
    return webhook


def log(tx: Transaction, action: str, webhook_id: int, **detail: object) -> None:
    """Record an event about a webhook, of which the webhook itself is not told."""
    tx.log(action, None, None, webhook=webhook_id, **detail)


def list_all(tx: Transaction) -> tuple[Webhook, ...]:
    """Return all webhooks, the newest first."""
    rows = tx.connection.execute(select(webhook_table).order_by(webhook_table.c.id.desc()))
    return tuple(map(to_webhook, rows))


def find(tx: Transaction, webhook_id: int, *, for_update: bool = False) -> Webhook:
    """Return the webhook with that id, with ``for_update`` locked until the transaction ends. Raises NotFoundError."""
    query = select(webhook_table).where(webhook_table.c.id == webhook_id)
    row = tx.connection.execute(query.with_for_update() if for_update else query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no webhook {webhook_id}", hint="loreg webhook ls")
    return to_webhook(row)


def remove(tx: Transaction, webhook_id: int) -> None:
    """Remove a webhook, and all that was sent to it or waits to be."""
    tx.connection.execute(delete(webhook_delivery_table).where(webhook_delivery_table.c.webhook_id == webhook_id))
    tx.connection.execute(delete(webhook_table).where(webhook_table.c.id == webhook_id))
    log(tx, "webhook remove", webhook_id)


def rotate(tx: Transaction, webhook: Webhook, secret: str) -> Webhook:
    """Sign with ``secret`` from now on, and beside it with the one before. Raises ConflictError if there are two."""
    if webhook.has_old_secret:
        raise ConflictError(
            f"webhook {webhook.id} has two secrets already: the older one is dropped first",
            hint=f"loreg webhook rotate {webhook.id} --drop-old",
        )
    values = {"old_secret": webhook_table.c.secret, "secret": secret}
    return _change(tx, webhook.id, values, "webhook rotate", dropped=False)


def drop_old_secret(tx: Transaction, webhook: Webhook) -> Webhook:
    """Sign with the newest secret alone."""
    return _change(tx, webhook.id, {"old_secret": ""}, "webhook rotate", dropped=True)


def enable(tx: Transaction, webhook: Webhook) -> Webhook:
    """Tell a webhook of events again, which it gets with the permissions of the caller from now on."""
    if not list_active(tx):
        _set_position(tx, end_of_feed(tx))
    values = {
        "disabled_at": None,
        "failing_since": None,
        "author": tx.author,
        "grants": dict(tx.access.permissions),
        "token_id": tx.access.token_id,
        "while_open": tx.access.while_open,
        "after_event": tx.connection.execute(select(func.coalesce(func.max(event_table.c.id), 0))).scalar_one(),
    }
    return _change(tx, webhook.id, values, "webhook enable")


def disable_without_token(tx: Transaction, row: WebhookRow) -> None:
    """Disable a webhook whose maker may not act any more."""
    disable(tx, row.id, f"the token of {row.author} was revoked or has expired, or a token is needed by now")


def disable(tx: Transaction, webhook_id: int, reason: str) -> None:
    """Tell a webhook of nothing any more; what waits is kept until it is too old."""
    values = {"disabled_at": clock.now(tx), "claimed_by": "", "claimed_until": None}
    _change(tx, webhook_id, values, "webhook disable", reason=reason)


def list_active(tx: Transaction, *, for_share: bool = False) -> list[WebhookRow]:
    """Return the rows of the webhooks that are not disabled; with ``for_share`` none goes before the transaction."""
    query = select(webhook_table).where(webhook_table.c.disabled_at.is_(None)).order_by(webhook_table.c.id)
    return list(tx.connection.execute(query.with_for_update(read=True) if for_share else query))


def find_access(tx: Transaction, row: WebhookRow) -> Access | None:
    """Return what the one who made the webhook may do now; None if the token is not live, or one is needed by now."""
    if row.token_id is None:
        access = Access(row.author, row.grants, while_open=row.while_open)
        return None if row.while_open and tokens.any_exist(tx) else access
    token = tokens.find_live_by_id(tx, row.token_id)
    return Access(row.author, token.grants, token.id) if token is not None else None


def lock_position(tx: Transaction) -> FeedPosition | None:
    """Return up to where events were read for webhooks, locked until the transaction ends; None if another reads."""
    query = select(webhook_feed_table.c.position).where(webhook_feed_table.c.id == _FEED)
    position = tx.connection.execute(query.with_for_update(skip_locked=True)).scalar_one_or_none()
    return None if position is None else parse_position(position)


def read_position(tx: Transaction) -> FeedPosition | None:
    """Return up to where events were read for webhooks; None if there never was one."""
    query = select(webhook_feed_table.c.position).where(webhook_feed_table.c.id == _FEED)
    position = tx.connection.execute(query).scalar_one_or_none()
    return None if position is None else parse_position(position)


def advance(tx: Transaction, position: FeedPosition) -> None:
    """Record up to where events were read for webhooks."""
    _set_position(tx, position)


def to_webhook(row: WebhookRow) -> Webhook:
    """Return the webhook of a row, without its secrets."""
    return Webhook(
        row.id,
        row.name,
        mask_url(row.url),
        tuple(row.patterns),
        tuple(row.actions),
        row.author,
        bool(row.old_secret),
        row.created_at,
        row.failing_since,
        row.disabled_at,
    )


def _change(tx: Transaction, webhook_id: int, values: dict[str, Any], action: str, **detail: object) -> Webhook:
    statement = update(webhook_table).where(webhook_table.c.id == webhook_id).values(**values).returning(webhook_table)
    row = tx.connection.execute(statement).one()
    log(tx, action, webhook_id, **detail)
    return to_webhook(row)


def _set_position(tx: Transaction, position: FeedPosition) -> None:
    tx.upsert(webhook_feed_table, {"id": _FEED, "position": str(position)})
