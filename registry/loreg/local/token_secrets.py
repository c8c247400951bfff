"""The secret of a token: 256 random bits, of which only the sha256 is kept."""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "lrg_"
_FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


def new_secret() -> str:
    """A new one."""
    return PREFIX + secrets.token_urlsafe(32)


def is_secret(text: str) -> bool:
    """Whether ``text`` reads like one."""
    return _FORM.fullmatch(text) is not None


def digest_secret(secret: str) -> str:
    """What is kept of it. A random secret of that length needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
