"""Webhooks: who is told of events, and what was sent."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from loreg.value import Value

#: What a registry tells of; see "Changes" in docs/format.md.
ACTIONS = (
    "push", "base", "attach", "detach", "describe", "metric", "metric declare", "tag", "untag", "yank", "unyank",
    "export", "export drop", "base add", "base change", "base relate", "base upgrade", "draft", "undraft", "namespace",
    "token create", "token revoke", "job submit", "job end", "job cancel", "gc", "delete", "prune", "mirror", "verify",
    "repair", "backup", "forget", "restore", "move", "canary", "canary end", "rollback", "promote", "promote end",
    "pull", "webhook add", "webhook remove", "webhook rotate", "webhook enable",
    "webhook disable", "webhook give up", "webhook redeliver", "webhook ping",
)  # fmt: skip


class Webhook(Value, frozen=True):
    """A URL that is told of events: those of ``actions``, or of all if it is empty, of adapters that match.

    Without ``patterns`` it is told of all events, also of those that are of no adapter. ``url`` is without its query;
    ``failing_since`` is the first failure after the last delivery; ``disabled_at`` when it was given up.
    """

    id: int
    name: str
    url: str
    patterns: tuple[str, ...]
    actions: tuple[str, ...]
    author: str
    has_old_secret: bool
    created_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None


class DeliveryState(StrEnum):
    """How far a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookDelivery(Value, frozen=True):
    """An event on its way to a webhook. ``message_id`` is the same in every attempt, ``status`` is of the last one.

    ``event`` is what was done, or ``ping``; ``event_id`` None for that. ``error`` says why the last attempt failed.
    """

    id: int
    webhook_id: int
    message_id: str
    event_id: int | None
    event: str
    ref: str
    state: DeliveryState
    attempts: int
    status: int | None
    error: str
    created_at: datetime
    due_at: datetime
    finished_at: datetime | None
