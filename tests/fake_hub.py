"""A server that answers as the Hugging Face Hub does: none can be reached from a test.

What the Hub answers to the requests of huggingface_hub is written down here.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """``org/tiny`` with the files of ``folder``; every other name is refused in its own way."""

    folder: Path
    sent: int
    sha256 = "ab" * 32

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        if self.path.startswith("/api/models/org/gated"):
            self._send(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
        elif self.path.startswith("/api/models/org/tiny/revision/nowhere"):
            self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        elif self.path.startswith(("/api/models/org/tiny", "/api/models/org/pickled")):
            there = sorted(path.name for path in self.folder.iterdir())
            files = there if "tiny" in self.path else ["config.json", "pytorch_model.bin"]
            siblings = [{"rfilename": name, **self._told(name)} for name in files]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(info).encode(), body)
        elif self.path.startswith(f"/org/tiny/resolve/{COMMIT}/") and (file := self._file()).is_file():
            self._send_part(file.read_bytes(), body)
        else:
            code = "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound"
            self._send(404, b"{}", body, {"X-Error-Code": code})

    def _file(self) -> Path:
        return self.folder / self.path.split("?")[0].rpartition("/")[2]

    def _told(self, name: str) -> dict[str, object]:
        """What ``files_metadata`` adds: the size, and of a large file its digest."""
        if not (self.folder / name).is_file():
            return {}
        size = (self.folder / name).stat().st_size
        lfs = {"lfs": {"size": size, "sha256": self.sha256, "pointerSize": 130}}
        return {"size": size, **(lfs if name.endswith(".safetensors") else {})}

    def _send_part(self, content: bytes, body: bool) -> None:
        headers = {"ETag": f'"{len(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
            type(self).sent += end + 1 - int(first)
            self._send(206, content[int(first) : end + 1], body, headers)
            return
        type(self).sent += len(content) if body else 0
        self._send(200, content, body, headers)

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The folder as ``org/tiny``; huggingface_hub asks here, as long as this lasts."""
    handler = type("ThisHub", (Hub,), {"folder": folder, "sent": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use(monkeypatch, f"http://127.0.0.1:{server.server_port}", cache, offline=False)
    yield handler
    server.shutdown()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path, *, offline: bool) -> None:
    """huggingface_hub reads its environment once, when it is imported."""
    from huggingface_hub import constants, file_download, hf_api

    for module in (constants, hf_api, file_download):
        for name, value in (
            ("ENDPOINT", endpoint),
            ("HF_HUB_OFFLINE", offline),
            ("HF_HUB_CACHE", str(cache)),
            ("HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"),
        ):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
