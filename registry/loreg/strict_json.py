"""JSON that strangers wrote, at a cost that is known before it is parsed, and with numbers that can be kept."""

from __future__ import annotations

import json
import math
from typing import Any


def count_values(content: bytes) -> int:
    """How many values JSON has at most; each takes far more memory than the bytes that it is written in."""
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def refuse_many_values(content: bytes, most: int) -> None:
    """Raise ValueError for JSON of more than ``most`` values."""
    if len(content) > most and (count := count_values(content)) > most:
        raise ValueError(f"it has {count:,} values, expected {most:,} at most")


def parse_finite(content: bytes) -> Any:
    """The document. Raises ValueError, also for NaN, a number that is not finite (``1e999``), or one over 64 bits."""
    return json.loads(content, parse_int=_whole, parse_float=_finite, parse_constant=_finite)


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) < 25 else 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{digits[:30]} is too large a number")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:30]} is not a finite number")
    return number
