"""Which share of all blobs is read this time, and which comes next: twenty runs of 5 % read each blob once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from loreg.errors import UsageError
from loreg.file_modes import make_folder, write_file
from loreg.settings import Settings

SPACE = 2**64  # the beginnings of digests, of 16 hexadecimal digits
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")
_PART = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class ReadShare:
    """The blobs whose digest begins from ``start`` on, ``length`` of the 2^64 beginnings; it may go around the end."""

    start: int
    length: int

    def contains(self, sha256: str) -> bool:
        """Whether the blob is of this share."""
        return (int(sha256[:16], 16) - self.start) % SPACE < self.length

    @property
    def first(self) -> str:
        """Return the beginning of its first digest; empty at the first of all."""
        return f"{self.start:016x}" if self.start else ""

    @property
    def end(self) -> str:
        """Return the beginning of the first digest behind it."""
        return f"{(self.start + self.length) % SPACE:016x}"


class ReadPosition:
    """Where the next share begins, remembered in a file of this machine for one catalog and store.

    Not in the catalog: to look at a registry changes nothing of it, and works where nothing may be written.
    """

    def __init__(self, folder: Path, *places: str) -> None:
        self._path = folder / f"{hashlib.sha256(json.dumps(places).encode()).hexdigest()[:32]}.json"

    def load(self) -> int:
        """Return the remembered position; 0 if there is none."""
        try:
            return int(json.loads(self._path.read_bytes())["next"], 16) % SPACE
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def save(self, beginning: str) -> None:
        """Remember that everything before this beginning of digests was read; where that cannot be, it is forgotten."""
        with contextlib.suppress(OSError):
            make_folder(self._path.parent)
            write_file(self._path, json.dumps({"next": beginning}).encode())


def position_of(settings: Settings) -> ReadPosition:
    """Return where the next share of the registry of these settings begins, as this machine remembers it."""
    places = (settings.database_url, settings.storage_url, settings.storage_endpoint)
    return ReadPosition(settings.home / "cache" / "verify", *places)


def parse_share(text: str, position: ReadPosition) -> tuple[ReadShare, bool]:
    """Return the share that ``5%`` means, which goes on at the position, or ``3/20``; and whether it goes on there.

    Raises UsageError.
    """
    if match := _PERCENT.fullmatch(text.strip()):
        part = Fraction(match[1]) / 100
        if 0 < part <= 1:
            return ReadShare(position.load(), math.ceil(SPACE * part)), True
    if match := _PART.fullmatch(text.strip()):
        number, count = int(match[1]), int(match[2])
        if 1 <= number <= count:
            start = (number - 1) * SPACE // count
            return ReadShare(start, number * SPACE // count - start), False
    raise UsageError(
        f"the share {text!r} is not understood: expected 5%, or 3/20 for the third of twenty parts",
        hint="loreg verify --read-data 5%; refs come before the option",
    )
