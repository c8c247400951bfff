"""What an alias means to a router: one version, or two with shares."""

from __future__ import annotations

import hashlib

from loreg.entities.versions import Version
from loreg.value import Value


class AliasShares(Value, frozen=True):
    """What an alias means to a router: ``main``, but for the ``share`` of the keys, between 0 and 1, the ``canary``.

    Without a canary the share is 0. Who asks for the alias itself gets ``main``.
    """

    alias: str
    main: Version
    canary: Version | None = None
    share: float = 0.0

    def pick(self, key: str) -> Version:
        """Return the version for ``key``, as that of a user: the same as long as the canary is the same version.

        Keys are spread by their sha256. A greater share only adds keys to those that the canary has.
        """
        if self.canary is None:
            return self.main
        text = f"{self.main.adapter}:{self.alias}@{self.canary.digest}:{key}"
        place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        return self.canary if place < self.share else self.main
