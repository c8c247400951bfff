"""hf:NAME with the real huggingface_hub, against a server that answers as the Hub does.

No Hub can be reached from a test: what it answers to these three requests is written down here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loreg.errors import AdapterFormatError, MissingExtraError, NotAllowedError, NotFoundError, UnavailableError
from loreg.registry import Registry, connect
from making import train, write_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """``org/tiny`` with the files of ``folder``; every other name is refused in its own way."""

    folder: Path
    sent: int

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
            files = ["config.json", *(["model.safetensors"] if "tiny" in self.path else ["pytorch_model.bin"])]
            siblings = [{"rfilename": name, **(self._large() if "safetensors" in name else {})} for name in files]
            info = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(info).encode(), body)
        elif self.path.startswith(f"/org/tiny/resolve/{COMMIT}/") and (file := self._file()).is_file():
            self._send_part(file.read_bytes(), body)
        else:
            code = "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound"
            self._send(404, b"{}", body, {"X-Error-Code": code})

    def _file(self) -> Path:
        return self.folder / self.path.split("?")[0].rpartition("/")[2]

    def _large(self) -> dict[str, object]:
        size = (self.folder / "model.safetensors").stat().st_size
        return {"size": size, "lfs": {"size": size, "sha256": "ab" * 32, "pointerSize": 130}}

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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    folder = write_base(tmp_path / "on-the-hub")
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    handler = type("ThisHub", (Hub,), {"folder": folder, "sent": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache", offline=False)
    yield handler
    server.shutdown()
    server.server_close()


def _use(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path, *, offline: bool) -> None:
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


@pytest.fixture
def here(tmp_path: Path) -> Registry:
    return connect(home=str(tmp_path / "home"))


def test_names_shapes_and_digests_come_without_the_weights(hub: type[Hub], here: Registry, tmp_path: Path):
    added = here.add_base("hf:org/tiny", ["tiny"])
    assert added.base.names == ("org/tiny", "tiny")
    assert not added.base.complete
    assert hub.sent < hub.folder.joinpath("model.safetensors").stat().st_size + 200_000
    assert here.show_base("org/tiny").files == {"model.safetensors": "ab" * 32}
    local = here.add_base(hub.folder, ["local"]).base
    assert local.struct == added.base.struct
    (match,) = [m for m in here.match_bases(str(train(tmp_path / "a", 1))) if m.base == added.base]
    assert match.verdict.kind == "struct-only"


def test_what_the_hub_refuses_is_one_clear_line(hub: type[Hub], here: Registry):
    with pytest.raises(NotFoundError, match="hf:org/nobody: there is no such model on the Hub"):
        here.add_base("hf:org/nobody")
    with pytest.raises(NotFoundError, match="org/tiny has no such revision"):
        here.add_base("hf:org/tiny@nowhere")
    with pytest.raises(NotAllowedError, match="hf:org/gated is gated"):
        here.add_base("hf:org/gated")
    with pytest.raises(AdapterFormatError, match="hf:org/pickled has no safetensors"):
        here.add_base("hf:org/pickled")
    with pytest.raises(NotFoundError, match="there is no such model"):
        here.add_base("hf:not a name")
    assert here.bases().items == ()


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_hint_is_the_local_folder(
    here: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
):
    _use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=offline)
    with pytest.raises(UnavailableError, match="hf:org/tiny cannot be looked up, the Hub does not answer") as error:
        here.add_base("hf:org/tiny")
    assert "loreg base add ./the/downloaded/folder works offline" in error.value.hint


def test_without_the_extra_it_is_named(here: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError) as error:
        here.add_base("hf:org/tiny")
    assert error.value.hint == "pip install 'loreg[hub]'"
