"""What a server does beside answering: it forgets what nobody comes back for, and ends what nobody can do.

Uploads that nobody committed go after a week. A job that no worker can do ends after a day; one that has ended goes
after 30 days, or when a thousand of its namespace have ended since. A draft that nothing is added to is forgotten after
30 days.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from loreg.catalog import Catalog, jobs, pending_uploads, uploads
from loreg.entities import Access
from loreg.errors import LoregError
from loreg.server.state import Service

_HOUR = 3600.0
_log = logging.getLogger("loreg.sweeping")


@contextlib.asynccontextmanager
async def periodic_cleanup(service: Service) -> AsyncIterator[None]:
    """Sweep now and every hour, as long as the context lasts."""
    task = asyncio.create_task(_clean_up(service))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _clean_up(service: Service) -> None:
    while True:
        try:
            old = await service.catalog.run_async(_forget_old, service.catalog)
            await asyncio.to_thread(service.store.forget_uploads, old)
        except LoregError as error:  # the next hour is as good
            _log.warning("old uploads were not swept: %s", error)
        await asyncio.sleep(_HOUR)


def _forget_old(catalog: Catalog) -> tuple[str, ...]:
    with catalog.write(Access.superuser("loreg")) as tx:
        jobs.clean_up(tx)
        pending_uploads.discard_expired(tx)
        return uploads.discard_expired(tx)
