"""What is fetched from the store goes the way that the environment names."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from loreg.errors import IntegrityError, UnavailableError
from loreg.remote.connections import Connections, NoResponseError
from loreg.remote.http import Server
from loreg.remote.store import RemoteStore
from loreg.schemas import UploadTicket
from loreg.storage import Blob

logins: list[tuple[str | None, str | None]] = []


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    paths: list[str] = []
    logins.clear()

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            logins.append((self.headers["Proxy-Authorization"], self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"by the proxy")

        def log_message(self, *line: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_the_proxy_of_the_environment_is_used_but_for_those_that_need_none(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
):
    address, paths = proxy
    monkeypatch.setenv("http_proxy", address)
    connections = Connections()
    assert connections.send("GET", "http://store.invalid/blob", {}, max_bytes=100).data == b"by the proxy"
    assert paths == ["http://store.invalid/blob"]
    monkeypatch.setenv("no_proxy", "store.invalid")
    with pytest.raises(NoResponseError):
        connections.send("GET", "http://store.invalid/blob", {}, max_bytes=100)
    assert len(paths) == 1
    connections.close()


@pytest.mark.parametrize(
    ("token", "expected"),
    [("", "Basic YWRhOmh1bnRlcjI="), ("lrg_secret", "Bearer lrg_secret")],
    ids=["the password of the URL", "the token"],
)
def test_passwords_of_urls_go_to_the_proxy_and_the_server_they_are_for(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, token: str, expected: str
):
    address, paths = proxy
    monkeypatch.setenv("all_proxy", address.removeprefix("http://").join(["http://bob:p%40ss@", ""]))
    server = Server("http://ada:hunter2@team.invalid/loreg/", token, "ada")
    server.send("GET", "/x", parameters={"all": True, "task": ("a b", "c"), "text": "", "limit": 5})
    server.close()
    assert paths == ["http://team.invalid/loreg/x?all=true&task=a+b&task=c&limit=5"]
    assert logins == [("Basic Ym9iOnBAc3M=", expected)]  # RFC 7617: base64 of bob:p@ss and ada:hunter2


@pytest.mark.parametrize("actual", [b"short", b"longer than it was"], ids=["shorter", "longer"])
def test_a_file_that_changes_while_it_is_sent_is_named_at_once(tmp_path: Path, actual: bytes):
    path = tmp_path / "weights"
    path.write_bytes(actual)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it never answers
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", "", "ada")
        store, blob = RemoteStore(server), Blob("0" * 64, 10)
        store._tickets[blob.sha256] = UploadTicket("1", blob.sha256, "/put", {})
        with pytest.raises(IntegrityError, match="weights"):
            store.put(blob, path)
        store.close()


@pytest.mark.parametrize("token", ["lrg_secret\nX: y", "lrg_secret☃"], ids=["two lines", "a snowman"])
def test_a_token_that_is_no_header_is_not_shown(token: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", token, "ada")
        with pytest.raises(UnavailableError, match="a header holds what HTTP does not allow") as caught:
            server.send("GET", "/x", retry=False)
        server.close()
    assert "secret" not in "".join(traceback.format_exception(caught.value))
