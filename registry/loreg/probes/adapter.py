"""One adapter as a probe sees it."""

from __future__ import annotations

from dataclasses import dataclass

from loreg.adapters.structure import AdapterStructure


@dataclass(frozen=True)
class ProbedAdapter:
    """An adapter without its numbers, and the names of all files that are stored with it.

    For a probe that reads them, ``structure.weights`` is a file with the numbers.
    """

    structure: AdapterStructure
    files: tuple[str, ...]
