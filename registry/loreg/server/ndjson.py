"""The body of a commit of the Hub: one JSON document a line, files as base64 within them.

A line may be gigabytes long, so the base64 is found and decoded where it lies; only the rest of the line is parsed. No
file is decoded before all lines were read and all names may be a version's.
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
from loreg.server.bodies import parse
from loreg.storage import Blob
from loreg.storage.staged import StagedStore

MOST_OPERATIONS = 500  # the Hub itself asks for 50 to 100
_PIECE = 4 * 1024 * 1024  # of base64: a multiple of four
_MOST_JSON = 64 * 1024
_CONTENT = b'"content":'
_COMMIT = re.compile("[0-9a-fA-F]{5,40}")
_UPLOAD = "hf upload REPO DIR"


@dataclass
class _ParsedCommit:
    """What the lines say; ``contents`` has where in the body the base64 of each file begins and ends."""

    message: str = ""
    parent: str = ""
    contents: dict[str, tuple[int, int]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def read_commit(body: Path, store: StagedStore) -> HubCommit:
    """Stage every file of the commit in the file ``body``.

    Raises UsageError for a body that is none, or too many files, AdapterFormatError for a name that no version has.
    """
    with _mapped(body) as data:
        asked = _ParsedCommit()
        for number, (document, content) in _lines(data):
            if number > MOST_OPERATIONS:  # the first line is the header
                raise UsageError(
                    f"a commit may add and remove {MOST_OPERATIONS} files, this one has more",
                    hint="upload in several commits, or loreg push DIR NAME",
                )
            try:
                _read_line(asked, document, content)
            except (KeyError, TypeError, AttributeError):
                raise UsageError(f"line {number + 1} of the commit is not understood", hint=_UPLOAD) from None
        validate_file_names({CONFIG_NAME, WEIGHTS_NAME, *asked.contents})
        added = {path: _stage(data, start, end, store) for path, (start, end) in asked.contents.items()}
    return HubCommit(asked.message, added, tuple(asked.removed), asked.parent)


def _read_line(asked: _ParsedCommit, document: dict[str, Any], content: tuple[int, int] | None) -> None:
    key, value = document["key"], document["value"]
    if key == "header":
        asked.message = str(value.get("summary", ""))[:1000]
        parent = value.get("parentCommit") or ""
        if parent and not _COMMIT.fullmatch(str(parent)):
            raise UsageError(f"parentCommit is {str(parent)[:80]!r}, expected a commit", hint=_UPLOAD)
        asked.parent = str(parent).lower()
    elif key == "file" and content is not None:
        asked.contents[_path(value)] = content
    elif key == "deletedFile":
        asked.removed.append(_path(value))
    elif key == "deletedFolder":
        asked.removed.append(_path(value).rstrip("/") + "/")
    else:
        raise KeyError(key)


def _path(value: Mapping[str, Any]) -> str:
    """The path that a line names. Raises UsageError for one that nobody can keep."""
    path = str(value["path"])
    if "\0" in path or not is_unicode(path):
        raise UsageError(f"the path {path[:80]!a} holds a character that nobody can keep", hint="rename the file")
    return path


@contextlib.contextmanager
def _mapped(body: Path) -> Iterator[mmap.mmap | bytes]:
    """The bytes of the file without reading them; nothing cannot be mapped."""
    if body.stat().st_size == 0:
        yield b""
        return
    with body.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _lines(data: mmap.mmap | bytes) -> Iterator[tuple[int, tuple[dict[str, Any], tuple[int, int] | None]]]:
    """Each line that is not empty, by its number, parsed without its content, and where that begins and ends."""
    start = 0
    for number in itertools.count():
        if start >= len(data):
            return
        newline = data.find(b"\n", start)
        end = newline if newline >= 0 else len(data)
        if end > start or number > MOST_OPERATIONS:
            yield number, _line(data, start, end)
        start = end + 1


def _line(data: mmap.mmap | bytes, start: int, end: int) -> tuple[dict[str, Any], tuple[int, int] | None]:
    content = None
    first, last = end, end
    mark = data.find(_CONTENT, start, end)
    if mark >= 0 and (opening := data.find(b'"', mark + len(_CONTENT), end)) >= 0:
        first, last = opening + 1, data.find(b'"', opening + 1, end)
        content = (first, last)
    text = data[start:first] + data[last:end] if 0 <= first - start + end - last < _MOST_JSON else b""
    try:
        document = parse(text)
    except UsageError as error:
        raise UsageError(f"the commit is not one JSON document a line: {error.message}", hint=_UPLOAD) from None
    if not isinstance(document, dict):
        raise UsageError("the commit is not one JSON object a line", hint=_UPLOAD)
    return document, content


def _stage(data: mmap.mmap | bytes, start: int, end: int, store: StagedStore) -> Blob:
    """Decode a file and give it to the store."""
    hasher, size = hashlib.sha256(), 0
    path = store.folder / "content"
    with path.open("wb") as sink:
        for piece in range(start, end, _PIECE):
            try:
                raw = base64.b64decode(data[piece : min(piece + _PIECE, end)], validate=True)
            except binascii.Error:
                raise UsageError("a file in the commit is not base64", hint=_UPLOAD) from None
            hasher.update(raw)
            size += len(raw)
            sink.write(raw)
    blob = Blob(hasher.hexdigest(), size)
    store.put(blob, path)
    return blob
