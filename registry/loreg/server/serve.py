"""Starting the server: who must have a token, the first of them, and uvicorn."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime

from loreg.catalog import Catalog, tokens
from loreg.errors import NotAllowedError, UsageError
from loreg.recording.opening import open_backing
from loreg.recording.secrets import digest_of_secret, is_secret, new_secret
from loreg.records import Token, everything
from loreg.server.app import create_app
from loreg.server.logs import write_json_lines
from loreg.server.service import Service
from loreg.settings import Settings

_FIRST = "first administrator"


def serve(
    settings: Settings, *, host: str, port: int, require_tokens: bool = False, allow_anonymous: bool = False
) -> None:
    """Answer on ``host:port`` until the process is stopped.

    On loopback nobody needs a token unless ``require_tokens``; on any other address everybody does, unless
    ``allow_anonymous``. Raises NotAllowedError if tokens are needed and there is no administrator yet.
    """
    import uvicorn

    is_open = not require_tokens and (allow_anonymous or _is_loopback(host))
    service = open_service(settings, is_open=is_open)
    if given := os.environ.get("LOREG_ADMIN_TOKEN", ""):
        make_administrator(settings, given)
    if not is_open and not has_administrator(service.catalog):
        raise NotAllowedError(
            f"on {host} everybody needs a token, and there is none yet",
            hint="loreg serve --init makes the first one; --allow-anonymous lets everybody do everything",
        )
    write_json_lines()
    uvicorn.run(
        create_app(service),
        host=host,
        port=port,
        http="httptools",
        loop="asyncio",  # uvloop takes longer to wait for PostgreSQL
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
    )


def open_service(settings: Settings, *, is_open: bool) -> Service:
    """The service on the catalog and store of the settings."""
    backing = open_backing(settings)
    return Service(backing.catalog, backing.store, backing.policy, is_open)


def has_administrator(catalog: Catalog) -> bool:
    """Whether some live token may do everything."""
    with catalog.read() as tx:
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
