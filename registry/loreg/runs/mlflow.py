"""Import from an MLflow tracking server: adapters among the artifacts of a run, an experiment or a model's versions.

What is on this machine as ``mlruns`` is a tree of folders like others. A server does not say what an artifact's sha256
is: weights are downloaded to compare them.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.card import CARD_NAME, read_card
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.folder import why_excluded_by_name
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.errors import NotFoundError
from loreg.runs.adapter_folder import CHECKPOINT
from loreg.runs.card_facts import read_card_facts
from loreg.runs.configs import from_arguments
from loreg.runs.documents import to_number
from loreg.runs.facts import RunFacts, combine, select_metrics
from loreg.runs.mlflow_server import MlflowServer
from loreg.runs.names import name_adapters, to_name
from loreg.runs.source import FileDigests, RunAdapter, SavedState
from loreg.storage import digest_of

MLFLOW_PREFIX = "mlflow:"
_EXPERIMENTS, _MODELS = "experiments/", "models/"


@dataclass(frozen=True)
class MlflowFiles:
    """The files of an adapter in a ``folder`` of a run's artifacts.

    They are downloaded to the temporary folder ``downloads``, which goes when nobody has any of its files any more.
    """

    server: MlflowServer
    run_id: str
    folder: str
    sizes: Mapping[str, int]
    downloads: tempfile.TemporaryDirectory[str]

    @property
    def location(self) -> str:
        """``mlflow:RUN`` and the folder."""
        return "/".join(filter(None, (f"{MLFLOW_PREFIX}{self.run_id}", self.folder)))

    def read_structure(self) -> AdapterStructure:
        """Download configuration and weights, once, and read the header."""
        self._download(WEIGHTS_NAME)
        return read_structure(self._download(CONFIG_NAME).parent)

    def list_files(self) -> dict[str, int]:
        """Return the files that make a version, with their bytes. Raises NotFoundError for what is no adapter."""
        files = {name: self.sizes[self._path(name)] for name in self._names()}
        if WEIGHTS_NAME not in files:
            raise NotFoundError(
                f"{self.location} has no {WEIGHTS_NAME}: it is no PEFT adapter, or a pickle, which loreg never opens",
                hint="only PEFT's safetensors are read",
            )
        return files

    def digests(self) -> FileDigests:
        """Hash weights and configuration."""
        hint = self.read_structure().config.base_hint
        weights, config = self._download(WEIGHTS_NAME), self._download(CONFIG_NAME)
        content = remove_base_path({CONFIG_NAME: config}, hint).get(CONFIG_NAME) or config.read_bytes()
        return FileDigests(digest_of(weights).sha256, hashlib.sha256(content).hexdigest())

    @contextlib.contextmanager
    def open_folder(self) -> Iterator[Path]:
        """Download what is not there yet, and yield the folder."""
        for name in self._names():
            self._download(name)
        yield self._cache / self.folder

    def _download(self, name: str) -> Path:
        path = self._path(name)
        target = self._cache / path
        if not target.is_file():
            self.server.download(self.run_id, path, self.sizes[path], target)
        return target

    @property
    def _cache(self) -> Path:
        return Path(self.downloads.name) / self.run_id

    def _path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    def _names(self) -> list[str]:
        prefix = f"{self.folder}/" if self.folder else ""
        names = [path.removeprefix(prefix) for path in self.sizes if path.startswith(prefix)]
        return sorted(name for name in names if "/" not in name and not why_excluded_by_name(name))


@dataclass(frozen=True)
class MlflowSource:
    """The adapters that ``texts`` mean: ``mlflow:RUN``, ``mlflow:experiments/NAME`` or ``mlflow:models/NAME``."""

    texts: Sequence[str]
    server: MlflowServer
    notes: tuple[str, ...] = ()
    _downloads: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="loreg-import-"), repr=False, compare=False
    )

    def adapters(self) -> Iterator[RunAdapter]:
        """Yield the adapters of the runs, and each registered model as one whose states are its versions."""
        adapters = [adapter for text in self.texts for adapter in self._read(text.removeprefix(MLFLOW_PREFIX))]
        if not adapters:
            raise NotFoundError(
                f"{' and '.join(self.texts)}: no artifact is called {CONFIG_NAME}: there is no PEFT adapter",
                hint="mlflow.log_artifacts(DIR) of what save_pretrained wrote",
            )
        names = name_adapters([(adapter.name,) for adapter in adapters])
        for adapter, name in zip(adapters, names, strict=True):
            yield replace(adapter, name=name)

    def _read(self, text: str) -> Iterator[RunAdapter]:
        if text.startswith(_MODELS):
            yield from self._read_model(text.removeprefix(_MODELS))
        elif text.startswith(_EXPERIMENTS):
            for run in self.server.runs_of(text.removeprefix(_EXPERIMENTS)):
                yield from self._read_run(run)
        else:
            yield from self._read_run(self.server.run(text))

    def _read_run(self, run: Mapping[str, Any]) -> Iterator[RunAdapter]:
        run_id = _id_of(run)
        name = to_name(str(run["info"].get("run_name") or run_id))
        sizes = self.server.list_files(run_id)
        groups: dict[str, list[str]] = {}
        for folder in _adapter_folders(sizes):
            path = PurePosixPath(folder)
            is_checkpoint = CHECKPOINT.fullmatch(path.name)
            root = str(path.parent).removeprefix(".") if is_checkpoint else folder
            groups.setdefault(root, []).append(folder)
        has_steps = any(_step(folder)[1] for folders in groups.values() for folder in folders)
        facts = self._read_facts(run, has_steps=has_steps) if groups else RunFacts()
        for root, folders in sorted(groups.items()):
            states = [self._state(run_id, folder, sizes, facts) for folder in sorted(folders, key=_step)]
            if len(states) > 1:
                states[-1] = replace(states[-1], is_last=True)
            parts = [part for part in PurePosixPath(root).parts if part not in ("adapter", "model", "artifacts")]
            yield RunAdapter(to_name("-".join([name, *parts])), f"{MLFLOW_PREFIX}{run_id}/{name}", states)

    def _read_model(self, model: str) -> Iterator[RunAdapter]:
        """Yield the model as one adapter; of a version the artifacts count that it was registered from."""
        versions = sorted(self.server.versions_of(model), key=lambda version: to_number(version.get("version")) or 0)
        states = []
        for version in versions:
            if not version.get("run_id"):
                continue  # it was registered from elsewhere
            run = self.server.run(str(version["run_id"]))
            run_id = _id_of(run)
            sizes = self.server.list_files(run_id)
            within = _path_in_run(str(version.get("source") or ""), run_id)
            folders = [folder for folder in _adapter_folders(sizes) if PurePosixPath(folder).is_relative_to(within)]
            for folder in folders[:1]:
                state = self._state(run_id, folder, sizes, self._read_facts(run, has_steps=bool(_step(folder)[1])))
                states.append(replace(state, label=f"version-{version['version']}", step=None))
        if states:
            states[-1] = replace(states[-1], is_last=True)
            yield RunAdapter(to_name(model), f"{MLFLOW_PREFIX}{_MODELS}{model}", states)

    def _state(self, run_id: str, folder: str, sizes: Mapping[str, int], facts: RunFacts) -> SavedState:
        files = MlflowFiles(self.server, run_id, folder, sizes, self._downloads)
        match = CHECKPOINT.fullmatch(PurePosixPath(folder).name)
        card = f"{folder}/{CARD_NAME}" if folder else CARD_NAME
        if card in sizes:
            facts = combine([read_card_facts(read_card(files._download(CARD_NAME))), facts])
        facts = replace(facts, source=files.location)
        if not match:
            return SavedState(files, "", None, None, dict(facts.results), facts)
        step = int(match[1])
        return SavedState(files, match[0], step, None, dict(facts.history.get(step, {})), facts)

    def _read_facts(self, run: Mapping[str, Any], *, has_steps: bool) -> RunFacts:
        """Return what a run says of itself, where it ``has_steps`` with what was measured at each."""
        data = run.get("data") or {}
        arguments = {str(entry["key"]): entry.get("value", "") for entry in data.get("params") or ()}
        last = {
            str(entry["key"]): number
            for entry in data.get("metrics") or ()
            if (number := to_number(entry.get("value"))) is not None
        }
        results = select_metrics(last)
        history: dict[int, dict[str, float]] = {}
        for name in results if has_steps else ():
            for entry in self.server.history(_id_of(run), name):
                number, step = to_number(entry.get("value")), to_number(entry.get("step"))
                if number is not None and step:
                    history.setdefault(int(step), {})[name] = number
        return combine([from_arguments(arguments), RunFacts(history=history, results=results)])


def is_of_mlflow(text: str) -> bool:
    """Return whether ``text`` is something on a tracking server."""
    return text.startswith(MLFLOW_PREFIX)


def _id_of(run: Mapping[str, Any]) -> str:
    """Return the id of a run, which names a folder. Raises NotFoundError for one that cannot."""
    run_id = str((run.get("info") or {}).get("run_id") or "")
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", run_id):
        raise NotFoundError(f"the server names a run {run_id[:70]!r}, which is no id", hint="is it an MLflow server?")
    return run_id


def _adapter_folders(sizes: Mapping[str, int]) -> list[str]:
    folders = [str(PurePosixPath(path).parent) for path in sizes if PurePosixPath(path).name == CONFIG_NAME]
    return sorted("" if folder == "." else folder for folder in folders)


def _step(folder: str) -> tuple[bool, int]:
    match = CHECKPOINT.fullmatch(PurePosixPath(folder).name)
    return match is None, int(match[1]) if match else 0


def _path_in_run(source: str, run_id: str) -> str:
    """Return the path among a run's artifacts of what a version was registered from; empty for all of them."""
    for mark in (f"/{run_id}/artifacts/", f"runs:/{run_id}/"):
        if mark in source:
            return source.partition(mark)[2].strip("/")
    return ""
