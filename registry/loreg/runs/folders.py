"""Find the adapters in a tree of folders, and which of them are states of one run.

A run is a folder with checkpoints (``checkpoint-20``, torchtune's ``epoch_1``), with the final adapter, or with both;
PEFT writes adapters that have names into folders of their names, in the run or in each checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.errors import NotFoundError, explain_os_errors
from loreg.runs.adapter_folder import CHECKPOINT, AdapterFolder
from loreg.runs.digests import DigestMemory
from loreg.runs.names import name_adapters, to_name, to_text_path
from loreg.runs.reading import read_states
from loreg.runs.source import RunAdapter
from loreg.runs.trackers import Trackers, read_mlflow_run

_TRACKERS = re.compile("wandb|mlruns")
_READ = re.compile(rf".*\.(?:jsonl?|ya?ml|md)|{_TRACKERS.pattern}")  # what is read of a run is called so
_MAX_SHOWN = 3  # links that a note names
_SKIPPED = re.compile(r"\..*|__pycache__|node_modules|wandb|global_step\d+")


@dataclass(frozen=True)
class FolderSource:
    """The adapters below the folders ``paths``."""

    paths: Sequence[Path]
    memory: DigestMemory = field(compare=False)
    notes: list[str] = field(default_factory=list, compare=False)

    def adapters(self) -> Iterator[RunAdapter]:
        """Yield the adapters with their states, by their paths. Raises NotFoundError if there is none in a path."""
        groups: dict[Path, list[AdapterFolder]] = {}
        roots: dict[Path, Path] = {}
        for path in self.paths:
            with explain_os_errors(path, "check the folder and its permissions"):
                adapters = find_adapters(path, self._note_unreadable)
            if not adapters:
                raise _nothing_error(path)
            for adapter in adapters:
                group = groups.setdefault(adapter.adapter_root, [])
                if all(other.folder != adapter.folder for other in group):
                    group.append(adapter)
                roots.setdefault(adapter.adapter_root, _absolute(path))
        trackers = Trackers()
        self._note_links(groups.values())
        folders = [_name_parts(of, roots[of], group) for of, group in groups.items()]
        for (of, group), name in zip(groups.items(), name_adapters(folders), strict=True):
            group.sort(key=lambda adapter: (adapter.step is None, adapter.step or 0, adapter.folder))
            yield RunAdapter(name, to_text_path(of), read_states(group, self.memory, trackers))

    def _note_links(self, groups: Iterable[Sequence[AdapterFolder]]) -> None:
        """Say which links were not followed: those to trainers' files, out of their run, and those to trackers'."""
        adapters = [adapter for group in groups for adapter in group]
        runs = {folder: adapter.run for adapter in adapters for folder in (adapter.run, adapter.folder)}
        above = {parent for run in set(runs.values()) for parent in (run.parent, run.parent.parent)} - runs.keys()
        links = [link for folder, run in runs.items() for link in _links_out(folder, run, _READ)]
        links += [link for folder in sorted(above) for link in _links_out(folder, folder, _TRACKERS)]
        if links:
            more = f" and {len(links) - _MAX_SHOWN} more" if len(links) > _MAX_SHOWN else ""
            shown = ", ".join(map(to_text_path, links[:_MAX_SHOWN]))
            lead, were = ("1 link leads", "was") if len(links) == 1 else (f"{len(links)} links lead", "were")
            self.notes.append(f"{lead} out of a run and {were} not followed: {shown}{more}")

    def _note_unreadable(self, error: OSError) -> None:
        self.notes.append(f"{to_text_path(error.filename)} was not looked into: {error.strerror}")


def find_adapters(path: Path, on_error: Callable[[OSError], None] | None = None) -> list[AdapterFolder]:
    """Return every folder at or below ``path`` that has the configuration of an adapter, with its place in a run.

    ``on_error`` is called for a folder that cannot be looked into.

    One that has no weights itself, and adapters below it, is no adapter: scripts leave a copy of the configuration.
    Links to folders are not followed. Raises NotFoundError if there is no such folder.
    """
    root = _absolute(path)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise NotFoundError(f"{path} {what}; expected a folder with adapters below it", hint="loreg import ./runs")
    folders = []
    for parent, names, files in os.walk(root, onerror=on_error):
        names[:] = sorted(name for name in names if not _SKIPPED.fullmatch(name))
        if CONFIG_NAME in files:
            folders.append(Path(parent))
    with_weights = [folder for folder in folders if _has_weights(folder)]
    adapters = [
        folder
        for folder in folders
        if folder in with_weights or not any(other.is_relative_to(folder) for other in with_weights)
    ]
    known = set(adapters)
    return [_place_in_run(folder, known) for folder in adapters]


def _links_out(folder: Path, run: Path, name: re.Pattern[str]) -> list[Path]:
    """Return the links in a folder that lead out of the run and have such a name."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: links in a circle
        links = [path for path in sorted(folder.iterdir()) if name.fullmatch(path.name) and path.is_symlink()]
        return [link for link in links if not link.resolve().is_relative_to(run.resolve())]
    return []


def _place_in_run(folder: Path, adapters: set[Path]) -> AdapterFolder:
    """Say of which run, and of which moment of it, the adapter in the folder is."""
    if CHECKPOINT.fullmatch(folder.name):
        return AdapterFolder(folder, folder.parent, folder.name)
    if CHECKPOINT.fullmatch(folder.parent.name):
        return AdapterFolder(folder, folder.parent.parent, folder.parent.name, folder.name)
    is_named = folder.parent in adapters or any(
        other.name == folder.name and CHECKPOINT.fullmatch(other.parent.name) and other.parent.parent == folder.parent
        for other in adapters
    )
    return AdapterFolder(folder, folder.parent, "", folder.name) if is_named else AdapterFolder(folder, folder)


def _has_weights(folder: Path) -> bool:
    return any(
        path.stem in ("adapter_model", "adapters") for path in folder.glob("adapter*.*") if path.suffix != ".json"
    )


def _name_parts(of: Path, root: Path, group: Sequence[AdapterFolder]) -> tuple[str, ...]:
    """Return the names of folders that an adapter may be called by: those below the path that was given, or its own."""
    tracked = read_mlflow_run(group[0].folder)
    if tracked is not None:
        return (to_name(tracked[0]), *((group[0].named,) if group[0].named else ()))
    parts = of.relative_to(root).parts if of.is_relative_to(root) else ()
    return parts or (of.name,)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  resolve() would follow links


def _nothing_error(path: Path) -> NotFoundError:
    return NotFoundError(
        f"{path} has no {CONFIG_NAME} in it or below it: there is no PEFT adapter",
        hint="model.save_pretrained(DIR) of a PeftModel writes one; loreg import --help lists what is read",
    )
