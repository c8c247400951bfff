"""The adapters that lie below a folder which is none itself: checkpoints of a run, or several with names."""

from __future__ import annotations

import os
import re
from pathlib import Path

_DEEPEST = 2
_SHOWN = 6
_STEP = re.compile(r"\d+")


def find_adapters_below(folder: Path, needed: str) -> list[str]:
    """The folders below ``folder`` that have the file ``needed``, relative to it; checkpoints of late steps first."""
    found = []
    for top, folders, files in os.walk(folder):
        here = Path(top).relative_to(folder)
        folders[:] = [] if len(here.parts) == _DEEPEST else [name for name in folders if not name.startswith(".")]
        if here.parts and needed in files:
            found.append(here.as_posix())
    return sorted(found, key=lambda name: ([-int(step) for step in _STEP.findall(name)] or [1], name))


def describe_adapters_below(folder: Path, inside: list[str]) -> tuple[str, str]:
    """What an error says of the adapters below a folder, and the command for the first of them."""
    more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    many = "1 adapter lies" if len(inside) == 1 else f"{len(inside)} adapters lie"
    return f"{many} in it: {', '.join(inside[:_SHOWN])}{more}", f"loreg push {folder / inside[0]} NAME"
