"""``registry.webhooks``: tell other programs of what happens, by signed requests to their URLs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from loreg.backend import Backend
from loreg.entities import DeliveryState, Page, Webhook, WebhookDelivery
from loreg.errors import UnavailableError

_POLL = 0.25  # seconds between two looks at a ping


class Webhooks:
    """URLs that are told of events. Every server and worker of the registry delivers."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def add(
        self, url: str, *, patterns: Sequence[str] = (), actions: Sequence[str] = (), name: str = ""
    ) -> tuple[Webhook, str]:
        """Tell ``url`` of events from now on; return the webhook with its secret, which nobody can read again.

        Of events of adapters that match, as ``team/*``, and of these actions, as ``tag``; of all where there are none.
        :func:`loreg.webhooks.verify` verifies what the URL receives. Raises UsageError, NotAllowedError for what the
        caller does not administer.

        >>> webhook, secret = registry.webhooks.add("https://ci.example.com/hook", patterns=["team/*"], actions=["tag"])
        >>> webhook.patterns, webhook.actions, secret.startswith("whsec_")
        (('team/*',), ('tag',), True)
        """
        return self._backend.add_webhook(url, patterns, actions, name)

    def list(self) -> tuple[Webhook, ...]:
        """Return the webhooks that the caller may change, the newest first. Raises NotAllowedError.

        >>> added = registry.webhooks.add("https://ci.example.com/hook?key=secret")
        >>> [webhook.url for webhook in registry.webhooks.list()]
        ['https://ci.example.com/hook']
        """
        return self._backend.webhooks()

    def remove(self, webhook_id: int) -> None:
        """Remove a webhook, and what waits to be sent to it. Raises NotFoundError."""
        self._backend.remove_webhook(webhook_id)

    def rotate(self, webhook_id: int, *, drop_old: bool = False) -> str:
        """Give a webhook another secret and return it; the one before signs beside it until ``drop_old`` drops it.

        Returns an empty text for that. Raises ConflictError for a third secret, NotFoundError.

        >>> webhook, old = registry.webhooks.add("https://ci.example.com/hook")
        >>> new = registry.webhooks.rotate(webhook.id)
        >>> new != old, registry.webhooks.rotate(webhook.id, drop_old=True)
        (True, '')
        """
        return self._backend.rotate_webhook(webhook_id, drop_old)[1]

    def enable(self, webhook_id: int) -> Webhook:
        """Tell a webhook that was disabled of events again, as the caller may read them. Raises NotFoundError."""
        return self._backend.enable_webhook(webhook_id)

    def test(self, webhook_id: int, *, seconds: float = 30.0) -> WebhookDelivery:
        """Have a ping sent, and return what came of the first attempt.

        Raises UnavailableError if within ``seconds`` no server or worker has sent it.
        """
        delivery_id = self._backend.ping_webhook(webhook_id)
        deadline = time.monotonic() + seconds
        while True:
            page = self._backend.webhook_deliveries(webhook_id, 50, None)
            delivery = next((item for item in page.items if item.id == delivery_id), None)
            if delivery is not None and (delivery.attempts or delivery.state != DeliveryState.PENDING):
                return delivery
            if time.monotonic() >= deadline:
                raise UnavailableError(
                    f"nobody sent the ping within {seconds:g} seconds: servers and workers deliver, after what waits "
                    "longer",
                    hint=f"loreg webhook deliveries {webhook_id}",
                )
            threading.Event().wait(_POLL)

    def deliveries(self, webhook_id: int, *, limit: int = 50, cursor: str | None = None) -> Page[WebhookDelivery]:
        """Return a page of what was sent to a webhook and waits to be, the newest first. Raises NotFoundError.

        >>> webhook, secret = registry.webhooks.add("https://ci.example.com/hook")
        >>> len(registry.webhooks.deliveries(webhook.id))
        0
        """
        page = self._backend.webhook_deliveries(webhook_id, limit, cursor)
        return page.followed_by(
            WebhookDelivery, lambda cursor: self._backend.webhook_deliveries(webhook_id, limit, cursor)
        )

    def redeliver(self, webhook_id: int, delivery_id: int) -> WebhookDelivery:
        """Have a delivery sent again, under its id. Raises NotFoundError."""
        return self._backend.redeliver(webhook_id, delivery_id)
