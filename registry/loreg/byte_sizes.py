"""Write numbers of bytes for people. It imports nothing: every command needs it."""

from __future__ import annotations


def format_size(count: int) -> str:
    """Return a number of bytes for people: ``301 kB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
