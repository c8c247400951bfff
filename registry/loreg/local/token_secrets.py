"""Make and recognise the secrets of tokens: 256 random bits, of which only the sha256 is stored."""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "lrg_"
_PATTERN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


def new_secret() -> str:
    """Return a new random secret."""
    return PREFIX + secrets.token_urlsafe(32)


def is_secret(text: str) -> bool:
    """Return whether ``text`` reads like a secret of loreg."""
    return _PATTERN.fullmatch(text) is not None


def digest_secret(secret: str) -> str:
    """Return the sha256 that is stored of a secret: one this long and random needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
