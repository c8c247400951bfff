"""Read the small JSON, JSON Lines, YAML and text files of a run; what cannot be read is empty.

A run may come from anybody, and a link in it may lead to any file of this machine. So only what really lies in the
folder of the run is read: each function takes that folder as ``run``, by default the file's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loreg.strict_json import refuse_many_values
from loreg.strict_yaml import parse_yaml

_MAX_BYTES = 32 * 1024**2  # a trainer_state.json of a hundred thousand steps
_MAX_YAML_BYTES = 1024**2
_MAX_VALUES = 4_000_000


def read_json(path: Path, run: Path | None = None) -> Mapping[str, Any]:
    """Return the JSON object in the file; empty where there is none, or none that can be read."""
    try:
        content = _read(path, run, _MAX_BYTES)
        refuse_many_values(content, _MAX_VALUES)
        document = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def read_json_lines(path: Path, run: Path | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of a file that has one on each line; lines that are none are left out."""
    try:
        lines = _read(path, run, _MAX_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            yield document


def read_yaml(path: Path, run: Path | None = None) -> Mapping[str, Any]:
    """Return the YAML mapping in the file; empty where there is none, or none that can be read."""
    try:
        return parse_yaml(_read(path, run, _MAX_YAML_BYTES).decode(errors="replace"))
    except OSError:
        return {}


def read_text(path: Path, run: Path | None = None) -> str:
    """Return the text in a small file; empty where there is none."""
    try:
        return _read(path, run, _MAX_YAML_BYTES).decode(errors="replace")
    except OSError:
        return ""


def read_bytes(path: Path, run: Path) -> bytes:
    """Return the content of a small regular file of the run; empty where there is none.

    Raises OSError if it cannot be read.
    """
    return _read(path, run, _MAX_YAML_BYTES)


def to_number(value: object) -> float | None:
    """Return a finite number as such; None for anything else, also for a truth value and text that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def real_file_in(path: Path, run: Path) -> Path | None:
    """Return where the regular file ``path`` really lies; None if it is none, or lies outside of the folder ``run``.

    A link to another place of the run counts, one out of it does not, whatever folder on the way is that link.
    """
    try:
        real = path.resolve(strict=True)
        return real if real.is_relative_to(run.resolve()) and real.is_file() else None
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return None


def _read(path: Path, run: Path | None, max_bytes: int) -> bytes:
    """Return the content of a regular file of the run; empty if it is larger than ``max_bytes``."""
    real = real_file_in(path, run or path.parent)
    if real is None or real.stat().st_size > max_bytes:
        return b""
    return real.read_bytes()
