"""Starting the server: who must have a token, the first of them, and uvicorn in one process or several."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import os
import socket
from datetime import UTC, datetime

from fastapi import FastAPI

from loreg.catalog import Catalog, tokens
from loreg.errors import NotAllowedError, UsageError
from loreg.recording.opening import open_backing
from loreg.recording.secrets import digest_of_secret, is_secret, new_secret
from loreg.records import Token, everything
from loreg.server.app import create_app
from loreg.server.logs import write_json_lines
from loreg.server.measures import measured_together
from loreg.server.service import Service
from loreg.settings import Settings

_FIRST = "first administrator"
_log = logging.getLogger("loreg.serve")


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    processes: int = 1,
    require_tokens: bool = False,
    allow_anonymous: bool = False,
) -> None:
    """Answer on ``host:port`` until the process is stopped; with ``processes``, in so many children of it.

    On loopback nobody needs a token unless ``require_tokens``; on any other address everybody does, unless
    ``allow_anonymous``. Raises NotAllowedError if tokens are needed and there is no administrator yet, or if nobody
    may listen there.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    is_open = not require_tokens and (allow_anonymous or _is_loopback(host))
    if given := os.environ.get("LOREG_ADMIN_TOKEN", ""):
        make_administrator(settings, given)
    if not is_open and not has_administrator(settings):
        raise NotAllowedError(
            f"on {host} everybody needs a token, and there is none yet",
            hint="loreg serve --init makes the first one; --allow-anonymous lets everybody do everything",
        )
    write_json_lines()
    config = uvicorn.Config(
        functools.partial(_application, settings, is_open),
        factory=True,
        workers=processes,
        http="httptools",
        loop="asyncio",  # uvloop takes longer to wait for PostgreSQL
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
    )
    with _listening(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        _log.info("running on http://%s:%d", f"[{host}]" if ":" in host else host, listener.getsockname()[1])
        if processes == 1:
            uvicorn.Server(config).run([listener])
        else:
            with measured_together():
                Multiprocess(config, [listener]).run()


def _application(settings: Settings, is_open: bool) -> FastAPI:
    """What each process answers with."""
    write_json_lines()
    return create_app(open_service(settings, is_open=is_open))


def _listening(host: str, port: int) -> socket.socket:
    """A socket there. It is of the protocol TCP by name: asyncio then sends what it has at once (TCP_NODELAY)."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise NotAllowedError(
            f"nobody can listen on {host}:{port}: {error.strerror}", hint="loreg serve --port 0 takes a free one"
        ) from None
    return listener


def open_service(settings: Settings, *, is_open: bool) -> Service:
    """The service on the catalog and store of the settings."""
    backing = open_backing(settings)
    return Service(backing.catalog, backing.store, backing.policy, is_open)


def has_administrator(settings: Settings) -> bool:
    """Whether some live token may do everything."""
    with contextlib.closing(Catalog(settings.database_url)) as catalog, catalog.read() as tx:
        return any(map(_is_administrator, tokens.every(tx)))


def _is_administrator(token: Token) -> bool:
    holds = token.expires_at is None or token.expires_at > datetime.now(UTC)
    return token.grants.get("*") == "admin" and token.revoked_at is None and holds


def make_administrator(settings: Settings, secret: str = "") -> str:
    """Record the first token that may do everything; returns its secret, a new one if none is given.

    Raises NotAllowedError if there is another one already, which can make more.
    """
    if secret and not is_secret(secret):
        raise UsageError("LOREG_ADMIN_TOKEN is no token: it reads lrg_ and 43 letters", hint="loreg serve --init")
    chosen = secret or new_secret()
    catalog = Catalog(settings.database_url)
    with catalog.write(everything(settings.author)) as tx:
        if tokens.with_digest(tx, digest_of_secret(chosen)) is None:
            if any(map(_is_administrator, tokens.every(tx))):
                raise NotAllowedError(
                    "there is an administrator's token already", hint="loreg token create NAME --scope 'admin:*'"
                )
            tokens.create(tx, digest_of_secret(chosen), _FIRST, {"*": "admin"}, None)
    catalog.close()
    return chosen


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
