"""Remove expired uploads, jobs, drafts and silent followers, every hour while the server runs.

Uploads that nobody committed are removed after a week. A job that no worker can do fails after a day; one that has
ended is removed after 30 days, or when a thousand of its namespace have ended since. A draft is removed 30 days after
the last addition, a follower that told nothing for a week.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from loreg.catalog import Catalog, deployments, jobs
from loreg.entities import Access
from loreg.errors import LoregError
from loreg.local.expiry import Discarded, discard_expired
from loreg.server.state import Service
from loreg.storage import SigningStore

_INTERVAL = 3600.0  # seconds
_log = logging.getLogger("loreg.sweeping")


@contextlib.asynccontextmanager
async def periodic_cleanup(service: Service) -> AsyncIterator[None]:
    """Clean up now and every hour, as long as the context lasts."""
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
            await service.catalog.run_async(_clean_up_rows, service.catalog)
            while (await _discard_expired(service)).upload_ids:
                pass
        except LoregError as error:  # it is tried again in an hour
            _log.warning("old uploads were not swept: %s", error)
        await asyncio.sleep(_INTERVAL)


def _clean_up_rows(catalog: Catalog) -> None:
    with catalog.write(Access.superuser("loreg")) as tx:
        jobs.clean_up(tx)
        deployments.remove_silent(tx)


async def _discard_expired(service: Service) -> Discarded:
    """Discard some of what has expired, from the store too; ``loreg gc`` finds what a server that is killed leaves."""
    discarded = await service.catalog.run_async(discard_expired, service.catalog, Access.superuser("loreg"))
    if isinstance(service.store, SigningStore):
        await asyncio.to_thread(service.store.forget_uploads, discarded.upload_ids)
    return discarded
