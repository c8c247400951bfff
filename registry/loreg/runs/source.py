"""What an import takes adapters from: a source names them, and each says where its files are and what is known of it.

Come here to let loreg import from somewhere else: write a class that keeps :class:`RunSource`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loreg.adapters.structure import AdapterStructure
from loreg.runs.facts import RunFacts


@dataclass(frozen=True)
class FileDigests:
    """The hex sha256 of an adapter's weights, and of its configuration as a push stores it."""

    weights: str
    config: str


class AdapterFiles(Protocol):
    """The files of one adapter, wherever they lie. All that a plan needs is read from headers."""

    @property
    def location(self) -> str:
        """Where they lie, as messages call it."""
        ...

    def read_structure(self) -> AdapterStructure:
        """Read the adapter's header and configuration. Raises what reading an adapter raises."""
        ...

    def list_files(self) -> dict[str, int]:
        """Return the files that make a version, by name, with their bytes. Raises what selecting them raises."""
        ...

    def digests(self) -> FileDigests:
        """Return what tells its content from other contents."""
        ...

    def open_folder(self) -> AbstractContextManager[Path]:
        """Return a folder of this machine with the files, which may go away at the end of the context."""
        ...


@dataclass(frozen=True)
class SavedState:
    """An adapter as it was at one moment of its training: ``label`` is the checkpoint's name, empty for the final one.

    ``numbers`` are what was measured then. ``facts`` are those of the run; their card is the one beside this state.
    ``has_pickled_arguments`` if what it was trained with is told by a pickle alone, which could not be read.
    """

    files: AdapterFiles
    label: str
    step: int | None
    epoch: float | None
    numbers: dict[str, float]
    facts: RunFacts
    is_best: bool = False
    is_last: bool = False
    has_pickled_arguments: bool = False


@dataclass(frozen=True)
class RunAdapter:
    """One adapter with its states, the oldest first: what it may be called, and where it was seen."""

    name: str
    location: str
    states: Sequence[SavedState]


class RunSource(Protocol):
    """Something to import adapters from: a tree of folders, a user of the Hub, an experiment of a tracker.

    ``notes`` are what a person should know once the adapters were listed, such as what could not be looked into.
    """

    @property
    def notes(self) -> Sequence[str]:
        """What could not be looked into."""
        ...

    def adapters(self) -> Iterator[RunAdapter]:
        """Yield the adapters. Raises NotFoundError if there is none."""
        ...
