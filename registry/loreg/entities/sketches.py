"""What is found by the content of weights."""

from __future__ import annotations

from enum import StrEnum

from loreg.entities.versions import Sketch, Version
from loreg.value import Value


class HashKind(StrEnum):
    """What a hash that people know a file by is of."""

    MANIFEST = "manifest"
    FILE = "file"
    DATA = "data"


class Candidate(Value, frozen=True):
    """A version that a file may be, or be made from: ``hashes`` says which of its hashes are those asked for."""

    version: Version
    hashes: tuple[HashKind, ...] = ()
    sketch: Sketch | None = None


class SketchReport(Value, frozen=True):
    """How many versions got a sketch that had none; ``failed`` are those whose weights could not be read, with why."""

    sketched: int
    failed: tuple[tuple[str, str], ...] = ()
    failed_count: int = 0
