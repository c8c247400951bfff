"""Keyset pages: a cursor holds the sort key of the last row, so that page 1000 costs what page 1 does."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from loreg.errors import UsageError


def encode(order: str, key: list[Any]) -> str:
    """A cursor: the order it belongs to and the key of the last row."""
    return base64.urlsafe_b64encode(json.dumps([order, *key]).encode()).decode().rstrip("=")


def decode(cursor: str, order: str, kinds: Sequence[type]) -> list[Any]:
    """The key in a cursor. Raises UsageError if it is damaged, or belongs to another order."""
    key: list[Any]
    try:
        found, *key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, RecursionError):
        found, key = None, []
    if found != order or len(key) != len(kinds) or not all(map(_is_a, key, kinds)):
        raise UsageError("this cursor is not of this search", hint="start again without --cursor")
    return key


def _is_a(value: Any, kind: type) -> bool:
    """Whether a column of that kind can be compared with the value: its type, and what a database holds of it."""
    if kind is str:
        return isinstance(value, str) and value.isprintable()
    if kind is float:
        return isinstance(value, int | float) and abs(value) < (2**63 if isinstance(value, int) else 1e308)
    return type(value) is int and abs(value) < 2**31
