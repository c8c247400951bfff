"""What a running server has: one catalog and store for all, a ledger for each who asks."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, Request

from loreg.catalog import tokens
from loreg.errors import UnauthenticatedError
from loreg.recording.ledger import LocalLedger
from loreg.recording.opening import Backing
from loreg.recording.secrets import digest_of_secret, is_secret
from loreg.recording.uploads import Uploads
from loreg.records import Access, everything

VERSION = version("loreg")
AUTHOR_HEADER = "X-Loreg-Author"
ANONYMOUS = Access("anonymous", {})


@dataclass(frozen=True)
class Service(Backing):
    """``open`` means that whoever reaches the server may do everything, and says who he is."""

    open: bool

    def access(self, authorization: str, author: str) -> Access:
        """Who asks, by the two headers. Raises UnauthenticatedError for a token that does not hold."""
        if self.open:
            return everything(author[:128] or "anonymous")
        scheme, _, secret = authorization.partition(" ")
        if not authorization:
            return ANONYMOUS
        if scheme.lower() != "bearer" or not is_secret(secret.strip()):
            raise UnauthenticatedError("this is no token of loreg: they read lrg_…", hint="loreg login")
        digest = digest_of_secret(secret.strip())
        with self.catalog.read() as tx:
            found = tokens.with_digest(tx, digest)
        if found is None or not hmac.compare_digest(found[1], digest):
            raise UnauthenticatedError("the token is unknown, expired or revoked", hint="loreg login")
        token = found[0]
        access = Access(token.name, token.grants)
        if tokens.used_long_ago(token, datetime.now(UTC)):
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
    authorization = request.headers.get("Authorization", "")
    author = request.headers.get(AUTHOR_HEADER, "")
    if authorization and not service.open:
        access = await service.catalog.awaited(service.access, authorization, author)
    else:
        access = service.access(authorization, author)
    request.state.access, request.state.author = access, access.author
    return access


async def ledger_of(request: Request) -> LocalLedger:
    """The ledger as who asks sees it."""
    return (await service_of(request)).ledger(await access_of(request))


# None of these depends on another, for FastAPI needs longer to follow that than they to ask each other.
Serving = Annotated[Service, Depends(service_of)]
Asking = Annotated[Access, Depends(access_of)]
Books = Annotated[LocalLedger, Depends(ledger_of)]
