"""A real uvicorn on a free loopback port, in a thread of the tests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn

from deployments import Deployment
from loreg.server.app import create_app
from loreg.server.run import build_uvicorn_config, open_service
from loreg.settings import load


@contextlib.contextmanager
def live_server(deployment: Deployment, *, is_open: bool = True) -> Iterator[str]:
    """A server on the place; yields its endpoint."""
    settings = load({}, {**deployment.environment, "LOREG_ENDPOINT": ""})
    config = build_uvicorn_config(lambda: create_app(open_service(settings, is_open=is_open)))
    config.port = 0
    server = uvicorn.Server(config)
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
        server.should_exit = True
        thread.join()
