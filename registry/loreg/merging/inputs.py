"""What goes into a merge, before anything is opened. Imports no torch: to ask whether it can be merged needs none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.structure import AdapterStructure


@dataclass(frozen=True)
class MergeInput:
    """One source before it is opened, by its ``digest``.

    ``initial`` is the adapter that its training started from, where that changed the base (PiSSA, OLoRA, CorDA,
    LoRA-GA); ``base`` the folder of the model, where the delta depends on it (DoRA).
    """

    structure: AdapterStructure
    label: str
    digest: str
    initial: AdapterStructure | None = None
    base: Path | None = None
