"""What a sweep has done so far, in a folder: each number as it is known, so that no kill costs more than what runs.

A file appears whole or not at all, and one that was changed since is told by its digest. One process at a time drives
a sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from loreg.canonical_json import canonical_json
from loreg.entities import SweepOptions
from loreg.errors import IntegrityError, NotFoundError, UnderWayError, explain_os_errors
from loreg.file_locks import lock_file
from loreg.storage.durable import AtomicFile
from loreg.value import Value

#: The file of the moments that a sweep collected for ``regmean``.
MOMENTS = "moments.safetensors"
#: Under which label a version has the name of the sweep that it was tried in.
SWEEP_LABEL = "sweep"
_REQUEST = "sweep.json"
_IDENTITY = re.compile(r"[0-9a-f]{12}")
_PREFIX = "of "  # of the names of arrays: a task may be called as an argument of numpy's function


def sweeps_folder(cache: Path) -> Path:
    """Return where the sweeps of this machine lie: beside ``cache``, the folder of the digests of bases."""
    return cache.parent / "sweeps"


def is_identity(text: str) -> bool:
    """Return whether a text is the name of a sweep: 12 hexadecimal digits."""
    return _IDENTITY.fullmatch(text) is not None


class SweepRequest(Value, frozen=True):
    """How a sweep was asked for, in which ``folder``; ``by_function`` of a program, which no command line can name.

    ``on`` is the cluster on which trials are evaluated, empty for this machine.
    """

    folder: str
    sources: tuple[str, ...]
    evaluate: str | None
    by_function: bool
    data: tuple[str, ...]
    options: SweepOptions
    base: str | None
    calibration: str | None
    name: str | None
    dry_run: bool
    on: str = ""


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

    def write_request(self, request: SweepRequest) -> None:
        """Keep how the sweep was asked for."""
        self._write(_REQUEST, msgspec.json.format(msgspec.json.encode(request), indent=1))

    def read_request(self) -> SweepRequest:
        """Return how the sweep was asked for.

        Raises NotFoundError if there is none of that name, IntegrityError if its file is damaged.
        """
        path = self.folder / _REQUEST
        content = _read(path)
        if content is None:
            raise NotFoundError(f"there is no sweep {self.folder.name} to go on with", hint="loreg sweep --help")
        try:
            return msgspec.json.decode(content, type=SweepRequest)
        except ValueError as error:
            raise IntegrityError(
                f"{path} does not say how the sweep was asked for: {error}",
                hint="loreg sweep, as it was typed then: it goes on with what was measured",
            ) from error

    def recall(self, key: Mapping[str, object]) -> dict[str, Any] | None:
        """Return the document that was recorded under ``key``; None if there is none. Raises IntegrityError."""
        path = self.folder / f"{_name(key)}.json"
        if (content := _read(path)) is None:
            return None
        try:
            document: dict[str, Any] = json.loads(content)
            is_whole = document.pop("sha256") == _digest(canonical_json(document))
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            is_whole = False
        if not is_whole:
            raise _damaged(path)
        return document

    def record(self, key: Mapping[str, object], document: Mapping[str, object]) -> None:
        """Record a document under ``key``, which is kept beside it for who reads the folder."""
        keyed = {**document, "key": key}
        whole = {**keyed, "sha256": _digest(canonical_json(keyed))}
        self._write(f"{_name(key)}.json", json.dumps(whole, indent=1).encode())

    def recall_arrays(self, key: Mapping[str, object]) -> dict[str, npt.NDArray[Any]] | None:
        """Return the arrays that were recorded under ``key``; None if there are none. Raises IntegrityError."""
        path = self.recall_file(f"{_name(key)}.npz")
        if path is None:
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {name.removeprefix(_PREFIX): array for name, array in arrays.items()}

    def record_arrays(self, key: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Record arrays under ``key``."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **{f"{_PREFIX}{name}": array for name, array in arrays.items()})
        self.record_file(f"{_name(key)}.npz", content.getvalue())

    def recall_file(self, name: str) -> Path | None:
        """Return the file that was recorded as ``name``; None if there is none. Raises IntegrityError."""
        path, recorded = self.folder / name, self.recall({"file": name})
        content = _read(path)
        if recorded is None or content is None:
            return None
        if _digest(content) != recorded["content"]:
            raise _damaged(path)
        return path

    def record_file(self, name: str, content: bytes) -> Path:
        """Record a file as ``name``, and return where it lies."""
        self._write(name, content)
        self.record({"file": name}, {"content": _digest(content)})
        return self.folder / name

    def _write(self, name: str, content: bytes) -> None:
        with (
            explain_os_errors(self.folder, "free some space, then run it again: what is done is kept"),
            AtomicFile(self.folder) as file,
        ):
            file.sink.write(content)
            file.commit(self.folder / name)


def _name(key: Mapping[str, object]) -> str:
    return _digest(canonical_json(key))[:24]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    """Return the content of a file, None if there is none."""
    with explain_os_errors(path, "loreg --home DIR names a folder that you may read"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} is not as the sweep wrote it",
        hint=f"rm -f {shlex.quote(str(path))}; then run the sweep again: it measures what was in that file anew",
    )
