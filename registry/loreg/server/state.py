"""What a running server has: one catalog and store for all, a backend for each who asks."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, Request

from loreg.catalog import Catalog, tokens
from loreg.entities import Access
from loreg.errors import UnauthenticatedError
from loreg.local.backend import LocalBackend
from loreg.local.factory import LocalRegistry
from loreg.local.token_secrets import digest_secret, is_secret
from loreg.local.uploads import Uploads
from loreg.server.allowed_hosts import AllowedHosts

VERSION = version("loreg")
AUTHOR_HEADER = "X-Loreg-Author"
ANONYMOUS = Access("anonymous", {})
_TOKEN_CACHE_SECONDS = 0.02  # seconds: what a thousand requests a second would otherwise each ask for


@dataclass
class _TokenLookup:
    """When the catalog was last asked for tokens, and whether there was one."""

    at: float = float("-inf")
    token: bool = False


def has_tokens(catalog: Catalog) -> bool:
    """Whether a token was ever made, holds it or not."""
    with catalog.read() as tx:
        return tokens.any_exist(tx)


@dataclass(frozen=True)
class Service(LocalRegistry):
    """``open_to`` are the names under which whoever reaches the server may do everything, and says who he is.

    That ends with the first token that is made; None if everybody needs one from the beginning.
    """

    open_to: AllowedHosts | None
    _seen: _TokenLookup = field(default_factory=_TokenLookup, repr=False, compare=False)

    async def is_open(self) -> bool:
        """Whether there is no token yet: one that was made elsewhere is seen after 20 ms at most."""
        if self.open_to is None or self._seen.token:
            return False
        if time.monotonic() - self._seen.at > _TOKEN_CACHE_SECONDS:
            self._seen.token = await self.catalog.run_async(has_tokens, self.catalog)
            self._seen.at = time.monotonic()
        return not self._seen.token

    def close(self) -> None:
        """Be open no more from now on: a token was made here."""
        self._seen.token = True

    def access(self, authorization: str) -> Access:
        """Who asks, by the header. Raises UnauthenticatedError for a token that does not hold."""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not is_secret(secret.strip()):
            raise UnauthenticatedError("this is no token of loreg: they read lrg_…", hint="loreg login")
        digest = digest_secret(secret.strip())
        with self.catalog.read() as tx:
            found = tokens.find_live(tx, digest)
        if found is None or not hmac.compare_digest(found[1], digest):
            raise UnauthenticatedError("the token is unknown, expired or revoked", hint="loreg login")
        token = found[0]
        access = Access(token.name, token.grants, token.id)
        if tokens.needs_use_update(token, datetime.now(UTC)):
            with self.catalog.write(access) as tx:
                tokens.mark_used(tx, token)
        return access

    def uploads(self, access: Access) -> Uploads:
        """What who has ``access`` sends."""
        return Uploads(self.catalog, self.store, access)


async def service_of(request: Request) -> Service:
    """The service that the application was made with."""
    service: Service = request.app.state.service
    return service


async def access_of(request: Request) -> Access:
    """Who asks; a token is looked up once for each request."""
    known: Access | None = getattr(request.state, "access", None)
    if known is not None:
        return known
    service = await service_of(request)
    if await service.is_open():
        author = request.headers.get(AUTHOR_HEADER, "")[:128] or "anonymous"
        access = replace(Access.superuser(author), while_open=True)
    elif authorization := request.headers.get("Authorization", ""):
        access = await service.catalog.run_async(service.access, authorization)
    else:
        access = ANONYMOUS
    request.state.access, request.state.author = access, access.author
    return access


async def backend_of(request: Request) -> LocalBackend:
    """The backend as who asks sees it."""
    return (await service_of(request)).backend(await access_of(request))


# None of these depends on another, for FastAPI needs longer to follow that than they to ask each other.
ServiceDep = Annotated[Service, Depends(service_of)]
CurrentAccess = Annotated[Access, Depends(access_of)]
BackendDep = Annotated[LocalBackend, Depends(backend_of)]
