"""Parse JSON that strangers wrote: bounded memory, and only numbers that a database can hold."""

from __future__ import annotations

import json
import math
from typing import Any


def count_values(content: bytes) -> int:
    """Count commas and opening brackets: about as many values, each taking far more memory than its bytes."""
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def refuse_many_values(content: bytes, max_values: int) -> None:
    """Raise ValueError for JSON of more than ``max_values`` values."""
    if len(content) > max_values and (count := count_values(content)) > max_values:
        raise ValueError(f"it has {count:,} values, expected {max_values:,} at most")


def parse_finite(content: bytes) -> Any:
    """Parse JSON. Raises ValueError, also for NaN, a number that is not finite (``1e999``), or one over 64 bits."""
    return json.loads(content, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_float)


def _parse_int(digits: str) -> int:
    number = int(digits) if len(digits) < 25 else 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{digits[:30]} is too large a number")
    return number


def _parse_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:30]} is not a finite number")
    return number
