"""What a sweep has done so far, in a folder: each number as it is known, so that no kill costs more than what runs.

A file appears whole or not at all. One process at a time drives a sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loreg.canonical_json import canonical_json
from loreg.errors import NotFoundError, UnderWayError, explain_os_errors
from loreg.file_locks import lock_file

_REQUEST = "sweep.json"
_PREFIX = "of "  # of the names of arrays: a task may be called as an argument of numpy's function


def sweeps_folder(cache: Path) -> Path:
    """Return where the sweeps of this machine lie: beside ``cache``, the folder of the digests of bases."""
    return cache.parent / "sweeps"


@dataclass(frozen=True)
class Journal:
    """The folder of one sweep."""

    folder: Path

    @contextlib.contextmanager
    def drive(self) -> Iterator[None]:
        """Hold the sweep. Raises UnderWayError if another process does."""
        with explain_os_errors(self.folder, "loreg --home DIR names a folder that you may write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if not lock_file(descriptor):
                hint = f"wait for it; then loreg sweep --resume {self.folder.name}"
                raise UnderWayError(f"the sweep {self.folder.name} runs in another process", hint=hint)
            yield
        finally:
            os.close(descriptor)

    def write_request(self, request: Mapping[str, object]) -> None:
        """Keep how the sweep was asked for."""
        self._write(_REQUEST, json.dumps(request, indent=1).encode())

    def read_request(self) -> dict[str, Any]:
        """Return how the sweep was asked for. Raises NotFoundError if there is none of that name."""
        try:
            request: dict[str, Any] = json.loads((self.folder / _REQUEST).read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(
                f"there is no sweep {self.folder.name} to go on with", hint="loreg sweep --help"
            ) from error
        return request

    def recall(self, key: Mapping[str, object]) -> dict[str, Any] | None:
        """Return the document that was recorded under ``key``; None if there is none."""
        path = self.folder / f"{_name(key)}.json"
        document: dict[str, Any] | None = json.loads(path.read_bytes()) if path.exists() else None
        return document

    def record(self, key: Mapping[str, object], document: Mapping[str, object]) -> None:
        """Record a document under ``key``, which is kept beside it for who reads the folder."""
        self._write(f"{_name(key)}.json", json.dumps({**document, "key": key}, indent=1).encode())

    def recall_arrays(self, key: Mapping[str, object]) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays that were recorded under ``key``; None if there are none."""
        path = self.folder / f"{_name(key)}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {name.removeprefix(_PREFIX): array for name, array in arrays.items()}

    def record_arrays(self, key: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Record arrays under ``key``."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **{f"{_PREFIX}{name}": array for name, array in arrays.items()})
        self._write(f"{_name(key)}.npz", content.getvalue())

    def _write(self, name: str, content: bytes) -> None:
        with explain_os_errors(self.folder, "free some space, then run it again: what is done is kept"):
            temporary = self.folder / f".new-{name}"
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)


def _name(key: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(key)).hexdigest()[:24]
