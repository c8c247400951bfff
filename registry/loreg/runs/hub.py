"""Import from the Hugging Face Hub: a model, all adapters of a user or an organisation, or those of a collection.

For a plan nothing but configurations, headers and cards is read: weights that the registry has are told by the sha256
that the Hub keeps of them, and are not downloaded again. Tokens are those of ``hf auth login`` and ``HF_TOKEN``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.card import CARD_NAME, decode_card
from loreg.adapters.config import CONFIG_NAME, parse_config_bytes
from loreg.adapters.folder import why_excluded_by_name
from loreg.adapters.hub_errors import HUB_PREFIX, translate_hub_errors
from loreg.adapters.hub_repository import HubRepository, open_repository, wait_for_turn
from loreg.adapters.naming import KeyNaming
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure
from loreg.errors import NotFoundError
from loreg.runs.adapter_folder import CHECKPOINT
from loreg.runs.card_facts import read_card_facts
from loreg.runs.names import name_adapters
from loreg.runs.source import FileDigests, RunAdapter, SavedState

_COLLECTIONS = "collections/"
_AT_ONCE = 8
_MAX_CARD_BYTES = 1024**2
_OFFLINE = "loreg import ./the/downloaded/folder works offline"


@dataclass(frozen=True)
class HubFiles:
    """The files of an adapter in a ``folder`` of a model on the Hub, empty for the model itself."""

    repository: HubRepository
    folder: str

    @property
    def location(self) -> str:
        """``hf:NAME``, and the folder in it."""
        return "/".join(filter(None, (f"{HUB_PREFIX}{self.repository.name}", self.folder)))

    def read_structure(self) -> AdapterStructure:
        """Read the header; of a file whose names are to be mended all is downloaded, for it is written anew."""
        weights = self._path(WEIGHTS_NAME)
        structure = read_remote_structure(
            Path(self.location),
            self.repository.read(self._path(CONFIG_NAME)),
            self.repository.sizes[weights],
            lambda start, size: self.repository.read(weights, start, size),
        )
        if structure.naming == KeyNaming() and not any(0 in tensor.shape for tensor in structure.tensors.values()):
            return structure
        return replace(structure, weights=self.repository.download(weights))

    def list_files(self) -> dict[str, int]:
        """Return the files that make a version, with their bytes. Raises NotFoundError for what is no adapter."""
        files = {name: self.repository.sizes[self._path(name)] for name in self._names()}
        if WEIGHTS_NAME not in files:
            raise NotFoundError(
                f"{self.location} has no {WEIGHTS_NAME}: it is no PEFT adapter, or a pickle, which loreg never opens",
                hint="only PEFT's safetensors are read",
            )
        return files

    def digests(self) -> FileDigests:
        """Return the sha256 that the Hub keeps of the weights, and that of the configuration as a push stores it."""
        weights, content = self._path(WEIGHTS_NAME), self.repository.read(self._path(CONFIG_NAME))
        with tempfile.TemporaryDirectory(prefix="loreg-push-") as name:
            config = Path(name) / CONFIG_NAME
            config.write_bytes(content)
            hint = parse_config_bytes(Path(self.location), content).base_hint
            content = remove_base_path({CONFIG_NAME: config}, hint).get(CONFIG_NAME) or content
        known = self.repository.digests.get(weights) or hashlib.sha256(self.repository.read(weights)).hexdigest()
        return FileDigests(known, hashlib.sha256(content).hexdigest())

    @contextlib.contextmanager
    def open_folder(self) -> Iterator[Path]:
        """Download the files through the Hub's cache, which goes on where it was cut off; yield a folder of them."""
        with tempfile.TemporaryDirectory(prefix="loreg-push-") as name:
            for file in self._names():
                target = Path(name) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                cached = self.repository.download(self._path(file))
                try:
                    os.link(cached, target)
                except OSError:  # on another file system
                    shutil.copyfile(cached, target)
            yield Path(name)

    def _path(self, file: str) -> str:
        return f"{self.folder}/{file}" if self.folder else file

    def _names(self) -> list[str]:
        """Return the files that a push of the folder would take, by their names in it."""
        prefix = f"{self.folder}/" if self.folder else ""
        names = [name.removeprefix(prefix) for name in self.repository.sizes if name.startswith(prefix)]
        nested = {str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == CONFIG_NAME} - {"."}
        return sorted(name for name in names if not why_excluded_by_name(name) and not _is_below(name, nested))


@dataclass(frozen=True)
class HubSource:
    """The adapters that ``texts`` mean: ``hf:ORG/NAME[@REV]``, ``hf:ORG`` or ``hf:collections/…``."""

    texts: Sequence[str]
    notes: tuple[str, ...] = ()

    def adapters(self) -> Iterator[RunAdapter]:
        """Yield the adapters, each model's checkpoints as its states. Raises NotFoundError for a text without any."""
        models = dict.fromkeys(model for text in self.texts for model in _list_models(text))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            opened = list(pool.map(lambda model: open_repository(model, _OFFLINE), models))
            groups = [(repository, root, folders) for repository in opened for root, folders in _groups(repository)]
            if not groups:
                raise NotFoundError(
                    f"{' and '.join(self.texts)}: there is no {CONFIG_NAME}, and so no PEFT adapter",
                    hint="loreg import --help",
                )
            paths = [(_last(repository.name), *PurePosixPath(root).parts) for repository, root, _ in groups]
            names = name_adapters(paths)
            yield from pool.map(_read_adapter, names, groups)


def is_on_hub(text: str) -> bool:
    """Return whether ``text`` is something on the Hub."""
    return text.startswith(HUB_PREFIX)


def _list_models(text: str) -> list[str]:
    """Return the models that the text means, each as ``hf:NAME[@REV]``: by the Hub's pages of a user's models."""
    name = text.removeprefix(HUB_PREFIX).strip("/")
    if "/" in name and not name.startswith(_COLLECTIONS):
        return [f"{HUB_PREFIX}{name}"]
    with translate_hub_errors(text, _OFFLINE) as hub:
        api = hub.HfApi()
        if name.startswith(_COLLECTIONS):
            collection = wait_for_turn(lambda: api.get_collection(name.removeprefix(_COLLECTIONS)))
            models = [str(item.item_id) for item in collection.items if item.item_type == "model"]
        else:
            listed = wait_for_turn(lambda: list(api.list_models(author=name, filter="peft")))
            models = [str(model.id) for model in listed]
    if not models:
        raise NotFoundError(
            f"{text}: the Hub shows no adapter of PEFT there", hint="hf auth login, or loreg import hf:ORG/NAME"
        )
    return [f"{HUB_PREFIX}{model}" for model in models]


_Group = tuple[HubRepository, str, list[str]]


def _groups(repository: HubRepository) -> list[tuple[str, list[str]]]:
    """Return the adapters of a model: the folder of each, and the folders of its states, the final one last."""
    folders = [str(path.parent) for path in map(PurePosixPath, repository.sizes) if path.name == CONFIG_NAME]
    groups: dict[str, list[str]] = {}
    for folder in ("" if folder == "." else folder for folder in folders):
        path = PurePosixPath(folder)
        root = str(path.parent) if CHECKPOINT.fullmatch(path.name) else folder
        groups.setdefault("" if root == "." else root, []).append(folder)
    return [(root, sorted(states, key=_step)) for root, states in sorted(groups.items())]


def _step(folder: str) -> tuple[bool, int]:
    match = CHECKPOINT.fullmatch(PurePosixPath(folder).name)
    return match is None, int(match[1]) if match else 0


def _read_adapter(name: str, group: _Group) -> RunAdapter:
    """Return an adapter with what its card says; the card of the model counts where a state has none."""
    repository, root, folders = group
    states = []
    for folder in folders:
        match = CHECKPOINT.fullmatch(PurePosixPath(folder).name)
        facts = read_card_facts(_read_card(repository, folder) or _read_card(repository, ""))
        files = HubFiles(repository, folder)
        label, step = (match[0], int(match[1])) if match else ("", None)
        source = f"{HUB_PREFIX}{repository.name}@{repository.commit}"
        states.append(SavedState(files, label, step, None, {}, replace(facts, source=source)))
    if len(states) > 1:
        states[-1] = replace(states[-1], is_last=True)
    return RunAdapter(name, HubFiles(repository, root).location, states)


def _read_card(repository: HubRepository, folder: str) -> str:
    path = f"{folder}/{CARD_NAME}" if folder else CARD_NAME
    size = min(repository.sizes.get(path, 0), _MAX_CARD_BYTES)
    return decode_card(repository.read(path, 0, size)) if size else ""


def _is_below(name: str, folders: set[str]) -> bool:
    parents = PurePosixPath(name).parents
    return any(str(parent) in folders or CHECKPOINT.fullmatch(parent.name) for parent in parents)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
