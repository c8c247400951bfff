"""The body of a commit of the Hub: one JSON document a line, files as base64 within them.

A line may be gigabytes long, so the base64 is found and decoded where it lies; only the rest of the line is parsed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loreg.errors import UsageError
from loreg.storage import Blob, BlobStore

_PIECE = 4 * 1024 * 1024  # of base64: a multiple of four
_MOST_JSON = 1024 * 1024
_CONTENT = b'"content":'


@dataclass
class HubCommit:
    """``added`` files are stored already; ``removed`` folders end in a slash."""

    message: str = ""
    added: dict[str, Blob] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def read_commit(body: Path, folder: Path, store: BlobStore) -> HubCommit:
    """Store every file of the commit in the file ``body``; ``folder`` takes what lies between.

    Raises UsageError for a body that is none.
    """
    found = HubCommit()
    for number, (document, content) in enumerate(_lines(body, folder)):
        try:
            key, value = document["key"], document["value"]
            if key == "header":
                found.message = str(value.get("summary", ""))[:1000]
            elif key == "file" and content is not None:
                blob, path = content
                store.put(blob, path)
                path.unlink()
                found.added[str(value["path"])] = blob
            elif key == "deletedFile":
                found.removed.append(str(value["path"]))
            elif key == "deletedFolder":
                found.removed.append(str(value["path"]).rstrip("/") + "/")
            else:
                raise KeyError(key)
        except (KeyError, TypeError, AttributeError):
            raise UsageError(f"line {number + 1} of the commit is not understood", hint="hf upload REPO DIR") from None
    return found


def _lines(body: Path, folder: Path) -> Iterator[tuple[dict[str, Any], tuple[Blob, Path] | None]]:
    """Each line parsed without its content, and that content in a file."""
    if body.stat().st_size == 0:
        return
    with body.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        while start < len(data):
            newline = data.find(b"\n", start)
            end = newline if newline >= 0 else len(data)
            if end > start:
                yield _line(data, start, end, folder)
            start = end + 1


def _line(data: mmap.mmap, start: int, end: int, folder: Path) -> tuple[dict[str, Any], tuple[Blob, Path] | None]:
    content = None
    text = b""
    mark = data.find(_CONTENT, start, end)
    if mark >= 0 and (first := data.find(b'"', mark + len(_CONTENT), end)) >= 0:
        last = data.find(b'"', first + 1, end)
        content = _decoded(data, first + 1, last, folder / "content")
        text = data[start : first + 1] + data[last:end] if end - last < _MOST_JSON else b""
    elif end - start < _MOST_JSON:
        text = data[start:end]
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError
        return document, content
    except (ValueError, RecursionError):
        raise UsageError("the commit is not one JSON document a line", hint="hf upload REPO DIR") from None


def _decoded(data: mmap.mmap, start: int, end: int, path: Path) -> tuple[Blob, Path]:
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as sink:
        for piece in range(start, end, _PIECE):
            try:
                raw = base64.b64decode(data[piece : min(piece + _PIECE, end)], validate=True)
            except binascii.Error:
                raise UsageError("a file in the commit is not base64", hint="hf upload REPO DIR") from None
            hasher.update(raw)
            size += len(raw)
            sink.write(raw)
    return Blob(hasher.hexdigest(), size), path
