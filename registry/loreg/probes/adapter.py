"""One adapter as a probe sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.structure import AdapterStructure
from loreg.bases.compatibility import BaseTensors


@dataclass(frozen=True)
class Output:
    """The empty ``folder`` in which a probe leaves what it makes of a version, and what that is recorded as made of."""

    folder: Path
    ref: str
    digest: str
    base: BaseTensors | None


@dataclass(frozen=True)
class ProbedAdapter:
    """An adapter without its numbers, and the names of all files that are stored with it.

    For a probe that reads them, ``structure.weights`` is a file with the numbers. One that makes something has an
    ``output``.
    """

    structure: AdapterStructure
    files: tuple[str, ...]
    output: Output | None = None
