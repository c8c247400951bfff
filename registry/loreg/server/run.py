"""Starting the server: who must have a token, the first of them, and uvicorn in one process or several."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from loreg.catalog import Catalog, tokens
from loreg.entities import Access
from loreg.errors import NotAllowedError, UsageError
from loreg.local.factory import open_local
from loreg.local.token_secrets import digest_secret, is_secret, new_secret
from loreg.local.tokens import is_administrator
from loreg.server.allowed_hosts import allowed_hosts, is_loopback
from loreg.server.app import create_app
from loreg.server.logs import write_json_lines
from loreg.server.metrics import share_between_processes
from loreg.server.state import Service, has_tokens
from loreg.settings import Settings

if TYPE_CHECKING:
    import uvicorn

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
    ``allow_anonymous``; and everybody does where a token was ever made. Raises NotAllowedError if tokens are needed and
    there is no administrator yet, or if nobody may listen there.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    if given := os.environ.get("LOREG_ADMIN_TOKEN", ""):
        make_administrator(settings, given)
    is_open = not require_tokens and (allow_anonymous or is_loopback(host))
    if is_open and _are_there_tokens(settings):
        if allow_anonymous:
            raise NotAllowedError(
                "--allow-anonymous lets everybody do everything, and this registry has tokens",
                hint=f"loreg serve --host {host} --require-tokens",
            )
        is_open = False
    if not is_open and not has_administrator(settings):
        raise NotAllowedError(
            f"on {host} everybody needs a token, and there is none yet"
            if not _are_there_tokens(settings)
            else "everybody needs a token where one was ever made, and there is no administrator's",
            hint="loreg serve --init makes the first one; --allow-anonymous lets everybody do everything",
        )
    write_json_lines()
    config = uvicorn_config(functools.partial(_application, settings, is_open, host), processes)
    with _listen(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        _log.info("running on http://%s:%d", f"[{host}]" if ":" in host else host, listener.getsockname()[1])
        if processes == 1:
            uvicorn.Server(config).run([listener])
        else:
            with share_between_processes():
                Multiprocess(config, [listener]).run()


def uvicorn_config(application: Callable[[], FastAPI], processes: int = 1) -> uvicorn.Config:
    """How uvicorn runs what ``application`` makes."""
    import uvicorn

    from loreg.server.connections import LIMITS, Connection

    return uvicorn.Config(
        application,
        factory=True,
        workers=processes,
        http=Connection,
        ws="none",
        backlog=LIMITS.at_once,
        loop="asyncio",  # uvloop takes longer to wait for PostgreSQL
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_worker_healthcheck=60,  # a process that has not started after five seconds may be on a busy machine
    )


def _application(settings: Settings, is_open: bool, host: str) -> FastAPI:
    """What each process answers with."""
    write_json_lines()
    return create_app(open_service(settings, is_open=is_open, host=host))


def _listen(host: str, port: int) -> socket.socket:
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


def open_service(settings: Settings, *, is_open: bool, host: str = "127.0.0.1") -> Service:
    """The service on the catalog and store of the settings; ``is_open`` to all who call it as what listens there."""
    backing = open_local(settings)
    return Service(backing.catalog, backing.store, backing.policy, allowed_hosts(host) if is_open else None)


def _are_there_tokens(settings: Settings) -> bool:
    """Whether a token was ever made. One in SQLite is made on first use, and not by this question."""
    with contextlib.closing(Catalog(settings.database_url)) as catalog:
        return catalog.exists() and has_tokens(catalog)


def has_administrator(settings: Settings) -> bool:
    """Whether some live token may do everything."""
    with contextlib.closing(Catalog(settings.database_url)) as catalog, catalog.read() as tx:
        return any(map(is_administrator, tokens.list_all(tx)))


def make_administrator(settings: Settings, secret: str = "") -> str:
    """Record the first token that may do everything; returns its secret, a new one if none is given.

    Raises NotAllowedError if there is another one already, which can make more.
    """
    if secret and not is_secret(secret):
        raise UsageError("LOREG_ADMIN_TOKEN is no token: it reads lrg_ and 43 letters", hint="loreg serve --init")
    chosen = secret or new_secret()
    catalog = Catalog(settings.database_url)
    with catalog.write(Access.superuser(settings.author)) as tx:
        if tokens.find_live(tx, digest_secret(chosen)) is None:
            if any(map(is_administrator, tokens.list_all(tx))):
                raise NotAllowedError(
                    "there is an administrator's token already", hint="loreg token create NAME --scope 'admin:*'"
                )
            tokens.create(tx, digest_secret(chosen), _FIRST, {"*": "admin"}, None)
    catalog.close()
    return chosen
