"""A real uvicorn on a free loopback port, in a thread of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from deployments import Deployment
from loreg.server.app import create_app
from loreg.server.run import build_uvicorn_config, open_service
from loreg.settings import load


class _Server(uvicorn.Server):
    """One that ends when it is told to and nobody is left: uvicorn's looks for that ten times a second."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end.wait(), 0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.002)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    def end(self) -> None:
        """Have it end, from another thread."""
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._end.set)


@contextlib.contextmanager
def live_server(
    deployment: Deployment, *, is_open: bool = True, port: int = 0, webhook_networks: str = ""
) -> Iterator[str]:
    """A server on the place; yields its endpoint."""
    settings = load({}, {**deployment.environment, "LOREG_ENDPOINT": ""})
    config = build_uvicorn_config(
        lambda: create_app(open_service(settings, is_open=is_open, webhook_networks=webhook_networks))
    )
    config.port = port
    server = _Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.002)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.end()
        thread.join()
