"""Start the server: decide who needs a token, make the first one, and run uvicorn in one process or several."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from loreg.catalog import Catalog, tokens
from loreg.entities import Access, Role
from loreg.errors import NotAllowedError, UsageError
from loreg.local.factory import open_local
from loreg.local.recent_answers import RecentAnswers
from loreg.local.token_secrets import digest_secret, is_secret, new_secret
from loreg.local.tokens import is_administrator
from loreg.local.webhook_transport import parse_networks
from loreg.server.allowed_hosts import allowed_hosts, is_loopback
from loreg.server.app import create_app
from loreg.server.local_session import LocalSession
from loreg.server.logs import write_json_lines
from loreg.server.metrics import share_between_processes
from loreg.server.state import Service, has_tokens
from loreg.settings import Settings

if TYPE_CHECKING:
    import uvicorn

_FIRST_ADMINISTRATOR = "first administrator"
_log = logging.getLogger("loreg.serve")


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    processes: int = 1,
    require_tokens: bool = False,
    allow_anonymous: bool = False,
    webhook_networks: str = "",
) -> None:
    """Answer on ``host:port`` until the process is stopped; with several ``processes``, in as many children.

    On loopback no token is needed unless ``require_tokens``; on any other address one is, unless ``allow_anonymous``;
    and one is needed wherever a token was ever made. Webhooks may be in ``webhook_networks``, as ``10.0.0.0/8``, though
    these are not public. Raises NotAllowedError if tokens are needed and there is no
    administrator yet, or if the address cannot be listened on.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    parse_networks(webhook_networks)
    if admin_secret := os.environ.get("LOREG_ADMIN_TOKEN", ""):
        make_administrator(settings, admin_secret)
    is_open = not require_tokens and (allow_anonymous or is_loopback(host))
    if is_open and _any_token_exists(settings):
        if allow_anonymous:
            raise NotAllowedError(
                "--allow-anonymous lets everybody do everything, and this registry has tokens",
                hint=f"loreg serve --host {host} --require-tokens",
            )
        is_open = False
    if not is_open and not has_administrator(settings):
        raise NotAllowedError(
            f"on {host} everybody needs a token, and there is none yet"
            if not _any_token_exists(settings)
            else "everybody needs a token where one was ever made, and there is no administrator's",
            hint="loreg serve --init makes the first one; --allow-anonymous lets everybody do everything",
        )
    write_json_lines()
    config = build_uvicorn_config(
        functools.partial(_create_process_app, settings, is_open, host, webhook_networks), processes
    )
    with _open_listener(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        _log.info("running on http://%s:%d", f"[{host}]" if ":" in host else host, listener.getsockname()[1])
        if processes == 1:
            uvicorn.Server(config).run([listener])
        else:
            with share_between_processes():
                Multiprocess(config, [listener]).run()


def serve_person(settings: Settings, port: int, on_ready: Callable[[str, str], None]) -> None:
    """Show the registry of this machine to one person in a browser, on loopback, until the process is stopped.

    ``on_ready`` is called with the server's URL and the invitation to it, which holds once.
    """
    import uvicorn

    session = LocalSession(settings.author)

    def create() -> FastAPI:
        service = open_service(settings, is_open=False)
        return create_app(dataclasses.replace(service, open_to=session.hosts, local_session=session))

    with _open_listener("127.0.0.1", port) as listener, contextlib.suppress(KeyboardInterrupt):
        on_ready(f"http://127.0.0.1:{listener.getsockname()[1]}", session.invitation)
        uvicorn.Server(build_uvicorn_config(create)).run([listener])


def build_uvicorn_config(create_application: Callable[[], FastAPI], processes: int = 1) -> uvicorn.Config:
    """Return how uvicorn runs the application, which each process creates for itself."""
    import uvicorn

    from loreg.server.connections import LIMITS, Connection

    return uvicorn.Config(
        create_application,
        factory=True,
        workers=processes,
        http=Connection,
        ws="none",
        backlog=LIMITS.backlog,
        loop="asyncio",  # uvloop takes longer to wait for PostgreSQL
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_worker_healthcheck=60,  # a process that has not started after five seconds may be on a busy machine
    )


def _create_process_app(settings: Settings, is_open: bool, host: str, webhook_networks: str) -> FastAPI:
    """Create the application of one process."""
    write_json_lines()
    return create_app(open_service(settings, is_open=is_open, host=host, webhook_networks=webhook_networks))


def _open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. It names its protocol, TCP: asyncio then sends without delay (TCP_NODELAY)."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise NotAllowedError(
            f"nobody can listen on {host}:{port}: {error.strerror}", hint="loreg serve --port 0 takes a free one"
        ) from error
    return listener


def open_service(settings: Settings, *, is_open: bool, host: str = "127.0.0.1", webhook_networks: str = "") -> Service:
    """Return the service on the catalog and store of the settings; open to callers at ``host`` if ``is_open``."""
    local = open_local(settings)
    open_to = allowed_hosts(host) if is_open else None
    networks = parse_networks(webhook_networks)
    return Service(
        local.catalog,
        local.store,
        local.policy,
        local.retention,
        open_to,
        networks,
        audited_pulls=local.audited_pulls,
        frames_folder=local.frames_folder,
        recent_answers=RecentAnswers(),
    )


def _any_token_exists(settings: Settings) -> bool:
    """Return whether a token was ever made, without creating the catalog if there is none."""
    with contextlib.closing(Catalog(settings.database_url)) as catalog:
        return catalog.exists() and has_tokens(catalog)


def has_administrator(settings: Settings) -> bool:
    """Return whether a live token may do everything."""
    with contextlib.closing(Catalog(settings.database_url)) as catalog, catalog.read() as tx:
        return any(map(is_administrator, tokens.list_all(tx)))


def make_administrator(settings: Settings, secret: str = "") -> str:
    """Record the first token that may do everything; returns its secret, a new one if ``secret`` is empty.

    Raises UsageError for a malformed secret, NotAllowedError if there is such a token already, which can make more.
    """
    if secret and not is_secret(secret):
        raise UsageError("LOREG_ADMIN_TOKEN is no token: it reads lrg_ and 43 letters", hint="loreg serve --init")
    secret = secret or new_secret()
    catalog = Catalog(settings.database_url)
    with catalog.write(Access.superuser(settings.author)) as tx:
        if tokens.find_live(tx, digest_secret(secret)) is None:
            if any(map(is_administrator, tokens.list_all(tx))):
                raise NotAllowedError("there is an administrator's token already", hint="loreg token create --help")
            tokens.create(tx, digest_secret(secret), _FIRST_ADMINISTRATOR, {"*": Role.ADMIN}, None)
    catalog.close()
    return secret
