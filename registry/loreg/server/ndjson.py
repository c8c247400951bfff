"""Read the body of a commit of the Hub: one JSON document a line, files as base64 within them.

A line may be gigabytes long, so the base64 is found and decoded in the mapped file; only the rest of the line is
parsed. No file is decoded before all lines are read and all file names are valid.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import itertools
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.folder import validate_file_names
from loreg.adapters.header import is_unicode
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.errors import UsageError
from loreg.local.pending_uploads import HubCommit
from loreg.server.bodies import parse_json
from loreg.storage import Blob
from loreg.storage.staged import StagedStore

MAX_OPERATIONS = 500  # the Hub itself asks for 50 to 100
_CHUNK_LENGTH = 4 * 1024 * 1024  # characters of base64: a multiple of four
_MAX_LINE_BYTES = 64 * 1024  # bytes of a line without its base64
_CONTENT = b'"content":'
_COMMIT = re.compile("[0-9a-fA-F]{5,40}")
_UPLOAD = "hf upload REPO DIR"
#: Where in the body something begins and ends.
_Span = tuple[int, int]


@dataclass
class _ParsedCommit:
    """What the lines say; ``contents`` maps each path to where the base64 of the file is."""

    message: str = ""
    parent: str = ""
    contents: dict[str, _Span] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Line:
    """One line: its JSON without the content of a file, and where that content is."""

    number: int
    document: Mapping[str, Any]
    content: _Span | None


def read_commit(body: Path, store: StagedStore) -> HubCommit:
    """Stage every file of the commit that is stored as the file ``body``.

    Raises UsageError for a malformed body or too many files, AdapterFormatError for a file name that is not allowed.
    """
    with _map_file(body) as data:
        commit = _ParsedCommit()
        for line in _parse_lines(data):
            if line.number > MAX_OPERATIONS:  # the first line is the header
                raise UsageError(
                    f"a commit may add and remove {MAX_OPERATIONS} files, this one has more",
                    hint="upload in several commits, or loreg push DIR NAME",
                )
            try:
                _apply_line(commit, line)
            except (KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"line {line.number + 1} of the commit is not understood", hint=_UPLOAD) from error
        validate_file_names({CONFIG_NAME, WEIGHTS_NAME, *commit.contents})
        added = {path: _stage(data, start, end, store) for path, (start, end) in commit.contents.items()}
    return HubCommit(commit.message, added, tuple(commit.removed), commit.parent)


def _apply_line(commit: _ParsedCommit, line: _Line) -> None:
    key, value = line.document["key"], line.document["value"]
    if key == "header":
        commit.message = str(value.get("summary", ""))[:1000]
        parent = value.get("parentCommit") or ""
        if parent and not _COMMIT.fullmatch(str(parent)):
            raise UsageError(f"parentCommit is {str(parent)[:80]!r}, expected a commit", hint=_UPLOAD)
        commit.parent = str(parent).lower()
    elif key == "file" and line.content is not None:
        commit.contents[_path(value)] = line.content
    elif key == "deletedFile":
        commit.removed.append(_path(value))
    elif key == "deletedFolder":
        commit.removed.append(_path(value).rstrip("/") + "/")
    else:
        raise KeyError(key)


def _path(value: Mapping[str, object]) -> str:
    """Return the path that a line names. Raises UsageError for one that cannot be stored."""
    path = str(value["path"])
    if "\0" in path or not is_unicode(path):
        raise UsageError(f"the path {path[:80]!a} holds a character that nobody can keep", hint="rename the file")
    return path


@contextlib.contextmanager
def _map_file(body: Path) -> Iterator[mmap.mmap | bytes]:
    """Map the file into memory; an empty file cannot be mapped, and is empty bytes."""
    if body.stat().st_size == 0:
        yield b""
        return
    with body.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _parse_lines(data: mmap.mmap | bytes) -> Iterator[_Line]:
    """Yield each line that is not empty, counting from 0; of lines beyond the limit, empty ones too."""
    start = 0
    for number in itertools.count():
        if start >= len(data):
            return
        newline = data.find(b"\n", start)
        end = newline if newline >= 0 else len(data)
        if end > start or number > MAX_OPERATIONS:
            yield _parse_line(number, data, start, end)
        start = end + 1


def _parse_line(number: int, data: mmap.mmap | bytes, start: int, end: int) -> _Line:
    content = None
    content_start, content_end = end, end
    mark = data.find(_CONTENT, start, end)
    if mark >= 0 and (opening := data.find(b'"', mark + len(_CONTENT), end)) >= 0:
        content_start, content_end = opening + 1, data.find(b'"', opening + 1, end)
        content = (content_start, content_end)
    size = content_start - start + end - content_end
    text = data[start:content_start] + data[content_end:end] if 0 <= size < _MAX_LINE_BYTES else b""
    try:
        document = parse_json(text)
    except UsageError as error:
        raise UsageError(f"the commit is not one JSON document a line: {error.message}", hint=_UPLOAD) from error
    if not isinstance(document, dict):
        raise UsageError("the commit is not one JSON object a line", hint=_UPLOAD)
    return _Line(number, document, content)


def _stage(data: mmap.mmap | bytes, start: int, end: int, store: StagedStore) -> Blob:
    """Decode the base64 between ``start`` and ``end`` and put the file into the store."""
    hasher, size = hashlib.sha256(), 0
    path = store.folder / "content"
    with path.open("wb") as sink:
        for offset in range(start, end, _CHUNK_LENGTH):
            try:
                raw = base64.b64decode(data[offset : min(offset + _CHUNK_LENGTH, end)], validate=True)
            except binascii.Error as error:
                raise UsageError("a file in the commit is not base64", hint=_UPLOAD) from error
            hasher.update(raw)
            size += len(raw)
            sink.write(raw)
    blob = Blob(hasher.hexdigest(), size)
    store.put(blob, path)
    return blob
