"""Tell from what was typed where adapters are imported from: folders, or the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loreg.runs.digests import DigestMemory
from loreg.runs.folders import FolderSource
from loreg.runs.hub import HubSource, is_on_hub
from loreg.runs.source import RunAdapter, RunSource


@dataclass(frozen=True)
class JoinedSource:
    """Several sources as one."""

    sources: Sequence[RunSource]

    def adapters(self) -> Iterator[RunAdapter]:
        """Yield the adapters of one source after the other."""
        for source in self.sources:
            yield from source.adapters()


def open_source(paths: Sequence[Path | str], memory: DigestMemory) -> RunSource:
    """Return the source of ``paths``: folders, and ``hf:…``. Nothing is read before it is asked for its adapters."""
    texts = list(map(str, paths))
    on_hub = [text for text in texts if is_on_hub(text)]
    folders = [Path(text).expanduser() for text in texts if not is_on_hub(text)]
    sources: list[RunSource] = [FolderSource(folders, memory)] if folders else []
    return JoinedSource([*sources, *([HubSource(on_hub)] if on_hub else [])])
