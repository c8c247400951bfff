"""Keyset pagination: a cursor holds the sort key of the last row, so that page 1000 costs what page 1 does."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from loreg.errors import UsageError


def encode(order: str, key: Sequence[object]) -> str:
    """Return a cursor for the ``key`` of the last row in this ``order``."""
    return base64.urlsafe_b64encode(json.dumps([order, *key]).encode()).decode().rstrip("=")


def decode(cursor: str, order: str, types: Sequence[type]) -> list[object]:
    """Return the key in a cursor, of these ``types``. Raises UsageError if it is damaged, or of another order."""
    key: list[object]
    try:
        cursor_order, *key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, RecursionError):
        cursor_order, key = None, []
    if cursor_order != order or len(key) != len(types) or not all(map(_is_comparable, key, types)):
        raise UsageError("this cursor is not of this search", hint="start again without --cursor")
    return key


def order_of(cursor: str) -> str:
    """Return the order that a cursor is of; empty if it is damaged."""
    try:
        order, *_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, RecursionError):
        return ""
    return order if isinstance(order, str) else ""


def _is_comparable(value: object, type_: type) -> bool:
    """Whether a column of that type can be compared with the value: its type, and what a database can hold."""
    if type_ is str:
        return isinstance(value, str) and value.isprintable()
    if type_ is float:
        return isinstance(value, int | float) and abs(value) < (2**63 if isinstance(value, int) else 1e308)
    return type(value) is int and abs(value) < 2**31
