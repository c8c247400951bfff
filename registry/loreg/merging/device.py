"""Where the mathematics runs."""

from __future__ import annotations

import torch

from loreg.errors import UsageError


def choose_device(name: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:1``; ``auto`` is a GPU where there is one. Raises UsageError for one that is not."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu" and not number)
    if (number and not number.isdecimal()) or int(number or 0) >= count:
        raise UsageError(f"there is no device {name!r} here", hint="--device cpu")
    return name
