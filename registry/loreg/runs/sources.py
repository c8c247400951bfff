"""Tell from what was typed where adapters are imported from: folders, the Hub, or a tracking server of MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loreg.runs.digests import DigestMemory
from loreg.runs.folders import FolderSource
from loreg.runs.hub import HubSource, is_on_hub
from loreg.runs.mlflow import MlflowSource, is_of_mlflow
from loreg.runs.mlflow_server import MlflowServer
from loreg.runs.source import RunAdapter, RunSource


@dataclass(frozen=True)
class JoinedSource:
    """Several sources as one."""

    sources: Sequence[RunSource]

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be looked into."""
        return tuple(note for source in self.sources for note in source.notes)

    def adapters(self) -> Iterator[RunAdapter]:
        """Yield the adapters of one source after the other."""
        for source in self.sources:
            yield from source.adapters()


def open_source(paths: Sequence[Path | str], memory: DigestMemory) -> RunSource:
    """Return the source of ``paths``: folders, ``hf:…`` and ``mlflow:…``.

    Nothing is read before it is asked for its adapters. Raises UsageError for ``mlflow:`` without a tracking server.
    """
    texts = list(map(str, paths))
    on_hub = [text for text in texts if is_on_hub(text)]
    of_mlflow = [text for text in texts if is_of_mlflow(text)]
    folders = [Path(text).expanduser() for text in texts if text not in (*on_hub, *of_mlflow)]
    sources: list[RunSource] = []
    if folders:
        sources.append(FolderSource(folders, memory))
    if on_hub:
        sources.append(HubSource(on_hub))
    if of_mlflow:
        sources.append(MlflowSource(of_mlflow, MlflowServer.from_environment(os.environ)))
    return JoinedSource(sources)
