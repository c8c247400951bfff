"""What a running server has: one catalog and store for all requests, an access and a backend for each."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import Depends, Request

from loreg.catalog import Catalog, tokens
from loreg.entities import ANONYMOUS_AUTHOR, Access
from loreg.errors import UnauthenticatedError
from loreg.local.backend import LocalBackend
from loreg.local.factory import LocalRegistry
from loreg.local.token_secrets import digest_secret, is_secret
from loreg.local.uploads import Uploads
from loreg.local.webhook_transport import IpNetwork
from loreg.server.allowed_hosts import AllowedHosts
from loreg.server.async_backend import AsyncBackend
from loreg.server.local_session import LocalSession

AUTHOR_HEADER = "X-Loreg-Author"
ANONYMOUS = Access(ANONYMOUS_AUTHOR, {})
_TOKEN_CACHE_SECONDS = 0.02  # so that not each of a thousand requests a second asks the catalog


@dataclass
class _TokenLookup:
    """When the catalog was last asked whether there is a token, and what it answered."""

    looked_up_at: float = float("-inf")
    has_token: bool = False


def has_tokens(catalog: Catalog) -> bool:
    """Return whether a token was ever made, even one that has expired or was revoked."""
    with catalog.read() as tx:
        return tokens.any_exist(tx)


@dataclass(frozen=True)
class Service(LocalRegistry):
    """The catalog, store and policy of a server; ``open_to`` are the hosts by which it is reached without a token.

    Such callers may do everything, and say themselves who they are. That ends with the first token that is made; None
    if everybody needs one from the beginning. With a ``local_session`` one person on this machine is answered, and no
    stranger, not even with what is public. Webhooks may be in ``webhook_networks``, which are not public.
    """

    open_to: AllowedHosts | None
    webhook_networks: tuple[IpNetwork, ...] = ()
    local_session: LocalSession | None = None
    _token_lookup: _TokenLookup = field(default_factory=_TokenLookup, repr=False, compare=False)

    async def is_open(self) -> bool:
        """Return whether there is no token yet; one made by another process is seen after 20 ms at most."""
        if self.open_to is None or self.local_session is not None or self._token_lookup.has_token:
            return False
        if time.monotonic() - self._token_lookup.looked_up_at > _TOKEN_CACHE_SECONDS:
            self._token_lookup.has_token = await self.catalog.run_async(has_tokens, self.catalog)
            self._token_lookup.looked_up_at = time.monotonic()
        return not self._token_lookup.has_token

    async def is_without_tokens(self) -> bool:
        """Return whether somebody is answered without a token: everybody, or the person of the local session."""
        return self.local_session is not None or await self.is_open()

    def refuse_strangers(self) -> None:
        """Raise UnauthenticatedError where one person alone is answered: for everybody who has no token."""
        if self.local_session is not None:
            self.local_session.admit("")

    def end_open_access(self) -> None:
        """Require tokens from now on: this process has made one."""
        self._token_lookup.has_token = True

    def authenticate(self, authorization: str) -> Access:
        """Return the access that an Authorization header gives. Raises UnauthenticatedError for an invalid token."""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not is_secret(secret.strip()):
            raise UnauthenticatedError("this is no token of loreg: they read lrg_…", hint="loreg login")
        digest = digest_secret(secret.strip())
        with self.catalog.read() as tx:
            match = tokens.find_live(tx, digest)
        if match is None or not hmac.compare_digest(match[1], digest):
            raise UnauthenticatedError("the token is unknown, expired or revoked", hint="loreg login")
        token = match[0]
        access = Access(token.name, token.grants, token.id)
        if tokens.needs_use_update(token, datetime.now(UTC)):
            with self.catalog.write(access) as tx:
                tokens.mark_used(tx, token)
        return access

    def uploads(self, access: Access) -> Uploads:
        """Return the uploads of the caller with ``access``."""
        return Uploads(self.catalog, self.store, access)


async def get_service(request: Request) -> Service:
    """Return the service that the application was created with."""
    service: Service = request.app.state.service
    return service


async def get_access(request: Request) -> Access:
    """Return the caller's access; its token is looked up once for each request."""
    cached: Access | None = getattr(request.state, "access", None)
    if cached is not None:
        return cached
    service = await get_service(request)
    if await service.is_open():
        author = request.headers.get(AUTHOR_HEADER, "")[:128] or ANONYMOUS_AUTHOR
        access = msgspec.structs.replace(Access.superuser(author), while_open=True)
    elif authorization := request.headers.get("Authorization", ""):
        access = await service.catalog.run_async(service.authenticate, authorization)
    else:
        service.refuse_strangers()
        access = ANONYMOUS
    request.state.access, request.state.author = access, access.author
    return access


async def get_backend(request: Request) -> LocalBackend:
    """Return the backend with the caller's access."""
    return (await get_service(request)).backend(await get_access(request))


async def get_async_backend(request: Request) -> AsyncBackend:
    """Return the backend with the caller's access, for a route that awaits it."""
    return AsyncBackend(await get_backend(request))


# None of these depends on another: FastAPI takes longer to resolve that than they to call each other.
ServiceDep = Annotated[Service, Depends(get_service)]
CurrentAccess = Annotated[Access, Depends(get_access)]
BackendDep = Annotated[LocalBackend, Depends(get_backend)]
AsyncBackendDep = Annotated[AsyncBackend, Depends(get_async_backend)]
