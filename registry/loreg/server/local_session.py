"""Let one person alone see the registry of their machine in a browser: who has the invitation, once, gets the session.

Loopback is reached by everybody on the machine, so neither the pages nor the API answer anybody else there.
"""

from __future__ import annotations

import hmac
import secrets
import threading

from loreg.entities import Access
from loreg.errors import UnauthenticatedError
from loreg.server.allowed_hosts import AllowedHosts

_HINT = "loreg ui opens it for the person who types that"


class LocalSession:
    """The session of the person ``author``, who may do everything; ``invitation`` is exchanged for it once."""

    def __init__(self, author: str) -> None:
        self.hosts = AllowedHosts(loopback=True)
        self.invitation = secrets.token_urlsafe(32)
        self._access = Access.superuser(author)
        self._secret = secrets.token_urlsafe(32)
        self._lock = threading.Lock()

    def redeem(self, invitation: str) -> str:
        """Return the secret of the session for the invitation, which holds once. Raises UnauthenticatedError."""
        with self._lock:
            if not self.invitation or not hmac.compare_digest(invitation.encode(), self.invitation.encode()):
                raise UnauthenticatedError("this invitation was used already, or is none", hint=_HINT)
            self.invitation = ""
        return self._secret

    def admit(self, secret: str) -> Access:
        """Return what the holder of the session's secret may do. Raises UnauthenticatedError for anybody else."""
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            raise UnauthenticatedError("this registry is shown to the person alone who opened it", hint=_HINT)
        return self._access
