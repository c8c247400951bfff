"""One folder with an adapter in it: its files, and which moment of which run it is."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.folder import select_files
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.errors import explain_os_errors
from loreg.runs.digests import DigestMemory
from loreg.runs.names import to_text_path
from loreg.runs.source import FileDigests

#: The folders that trainers make for the states of a run: Trainer, DeepSpeed, torchtune, scripts.
CHECKPOINT = re.compile(r"(?:checkpoint|global_step|epoch|step|iter)[-_]?(\d+)")


@dataclass(frozen=True)
class FolderFiles:
    """The files of an adapter in a folder of this machine."""

    folder: Path
    memory: DigestMemory

    @property
    def location(self) -> str:
        """The path, as messages and records can have it."""
        return to_text_path(self.folder)

    def read_structure(self) -> AdapterStructure:
        """Read header and configuration."""
        with explain_os_errors(self.folder, "check the folder and its permissions"):
            return read_structure(self.folder)

    def list_files(self) -> dict[str, int]:
        """Return the files that make a version, with their bytes."""
        with explain_os_errors(self.folder, "check the folder and its permissions"):
            return {name: path.stat().st_size for name, path in select_files(self.folder).files.items()}

    def digests(self) -> FileDigests:
        """Return the digests, of a file that has not changed since without reading it."""
        with explain_os_errors(self.folder, "check the folder and its permissions"):
            config = self.folder / CONFIG_NAME
            cleaned = remove_base_path({CONFIG_NAME: config}, read_structure(self.folder).config.base_hint)
            content = cleaned.get(CONFIG_NAME) or config.read_bytes()
            return FileDigests(self.memory.sha256(self.folder / WEIGHTS_NAME), hashlib.sha256(content).hexdigest())

    @contextlib.contextmanager
    def open_folder(self) -> Iterator[Path]:
        """Yield the folder itself."""
        yield self.folder


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter's folder, and its place in a run: ``label`` names the checkpoint, empty for the final state."""

    folder: Path
    run: Path
    label: str = ""
    named: str = ""

    @property
    def step(self) -> int | None:
        """The number in the checkpoint's name."""
        match = CHECKPOINT.fullmatch(self.label)
        return int(match[1]) if match else None

    @property
    def adapter_root(self) -> Path:
        """What all states of this adapter have in common."""
        return self.run / self.named if self.named else self.run
