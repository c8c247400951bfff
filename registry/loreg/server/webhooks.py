"""Deliver to webhooks in the background of a server process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from loreg.local.webhook_deliverer import delivering
from loreg.server.state import Service


@asynccontextmanager
async def deliver_to_webhooks(service: Service) -> AsyncIterator[None]:
    """Deliver as long as the context lasts; the event loop goes on while the last delivery is broken off."""
    context = delivering(service.catalog, service.webhook_networks)
    context.__enter__()
    try:
        yield
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
