"""Keyset pages: a cursor holds the sort key of the last row, so that page 1000 costs what page 1 does."""

from __future__ import annotations

import base64
import json
from typing import Any

from loreg.errors import UsageError


def encode(order: str, key: list[Any]) -> str:
    """A cursor: the order it belongs to and the key of the last row."""
    return base64.urlsafe_b64encode(json.dumps([order, *key]).encode()).decode().rstrip("=")


def decode(cursor: str, order: str, length: int) -> list[Any]:
    """The key in a cursor. Raises UsageError if it is damaged or belongs to another order."""
    key: list[Any]
    try:
        found, *key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        found, key = None, []
    scalars = all(isinstance(part, str | int | float) for part in key)
    if found != order or len(key) != length or not scalars:
        raise UsageError("this cursor is not of this search", hint="start again without --cursor")
    return key
