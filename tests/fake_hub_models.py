"""A Hub with models, users and collections: what huggingface.co answers to a client that lists and downloads.

Routes and fields: https://huggingface.co/docs/hub/api; pages by ``Link``, 429 with ``Retry-After`` and ``RateLimit``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fake_hub import use

_LFS = (".safetensors", ".bin")


class Models(BaseHTTPRequestHandler):
    """The models below ``root``, each in a folder ``ORG/NAME``; ``requests`` counts what was asked for, by path."""

    protocol_version = "HTTP/1.1"
    root: Path
    collections: dict[str, list[str]]
    requests: Counter[str]
    authorizations: set[str]
    #: How many requests are refused before the next is answered.
    busy: int
    page = 2

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = urlsplit(self.path)
        type(self).authorizations.add(self.headers.get("Authorization", ""))
        type(self).requests[f"{self.command} {parts.path}"] += 1
        if type(self).busy:
            type(self).busy -= 1
            self._send(429, b"{}", body, {"Retry-After": "0"})
        elif parts.path == "/api/models":
            self._list(parse_qs(parts.query), body)
        elif parts.path.startswith("/api/collections/"):
            self._collection(parts.path.removeprefix("/api/collections/"), body)
        elif parts.path.startswith("/api/models/"):
            self._model(parts.path.removeprefix("/api/models/").partition("/revision/")[0], body)
        else:
            name, _, rest = parts.path.strip("/").partition("/resolve/")
            self._file(self.root / name / rest.partition("/")[2], body)

    def commit(self, name: str) -> str:
        """The commit of a model: it changes when a file does."""
        files = sorted(path for path in (self.root / name).rglob("*") if path.is_file())
        return hashlib.sha1(b"".join(path.read_bytes() for path in files)).hexdigest()

    def _list(self, query: dict[str, list[str]], body: bool) -> None:
        author, start = query["author"][0], int(query.get("cursor", ["0"])[0])
        names = sorted(
            path.parent.relative_to(self.root).as_posix() for path in self.root.glob("*/*/adapter_config.json")
        )
        names = [name for name in names if name.startswith(f"{author}/") and "peft" in query["filter"]]
        shown = names[start : start + self.page]
        link = {}
        if names[start + self.page :]:
            url = f"http://{self.headers['Host']}/api/models?author={author}&filter=peft&cursor={start + self.page}"
            link = {"Link": f'<{url}>; rel="next"'}
        models = [{"id": name, "modelId": name, "tags": ["peft"], "library_name": "peft"} for name in shown]
        self._send(200, json.dumps(models).encode(), body, link)

    def _collection(self, slug: str, body: bool) -> None:
        names = self.collections.get(slug)
        if names is None:
            self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
            return
        items: list[dict[str, Any]] = [
            {"_id": str(i), "id": name, "type": "model", "position": i} for i, name in enumerate(names)
        ]
        items.append({"_id": "d", "id": "org/data", "type": "dataset", "position": 99})
        owner = {"name": "org", "fullname": "Org", "type": "org"}
        document = {
            "slug": slug, "title": "x", "owner": owner, "items": items, "lastUpdated": "2026-01-01T00:00:00.000Z",
            "position": 0, "private": False, "theme": "blue", "upvotes": 0,
        }  # fmt: skip
        self._send(200, json.dumps(document).encode(), body)

    def _model(self, name: str, body: bool) -> None:
        folder = self.root / name
        if not folder.is_dir():
            self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
            return
        siblings = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            size = path.stat().st_size
            entry: dict[str, Any] = {"rfilename": path.relative_to(folder).as_posix(), "size": size}
            if path.suffix in _LFS:
                entry["lfs"] = {"size": size, "sha256": _sha256(path), "pointerSize": 130}
            siblings.append(entry)
        info = {"id": name, "modelId": name, "sha": self.commit(name), "siblings": siblings, "tags": ["peft"]}
        self._send(200, json.dumps(info).encode(), body)

    def _file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})
            return
        content, name = path.read_bytes(), path.relative_to(self.root).as_posix()
        etag = _sha256(path) if path.suffix in _LFS else hashlib.sha1(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit("/".join(name.split("/")[:2]))}
        headers |= {"Accept-Ranges": "bytes"}
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first:
            self._send(200, content, body, headers)
            return
        end = min(int(last or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        self._send(206, content[int(first) : end + 1], body, headers)

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def serve_models(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Models]]:
    """The models below ``root``; huggingface_hub asks here, as long as this lasts."""
    state = {"root": root, "collections": {}, "requests": Counter(), "authorizations": set(), "busy": 0}
    handler = type("TheseModels", (Models,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, f"http://127.0.0.1:{server.server_port}", cache, offline=False)
    yield handler
    server.shutdown()
    server.server_close()
