"""What a server does beside answering: it forgets uploads that nobody committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from loreg.catalog import Catalog, uploads
from loreg.errors import LoregError
from loreg.records import everything
from loreg.server.service import Service

_HOUR = 3600.0
_log = logging.getLogger("loreg.sweeping")


@contextlib.asynccontextmanager
async def sweeping(service: Service) -> AsyncIterator[None]:
    """Sweep now and every hour, as long as the context lasts."""
    task = asyncio.create_task(_sweep(service))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _sweep(service: Service) -> None:
    while True:
        try:
            old = await service.catalog.awaited(_forget_old, service.catalog)
            await asyncio.to_thread(service.store.forget_uploads, old)
        except LoregError as error:  # the next hour is as good
            _log.warning("old uploads were not swept: %s", error)
        await asyncio.sleep(_HOUR)


def _forget_old(catalog: Catalog) -> tuple[str, ...]:
    with catalog.write(everything("loreg")) as tx:
        return uploads.forget_old(tx)
