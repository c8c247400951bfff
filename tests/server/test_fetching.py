"""What is fetched from the store goes the way that the environment names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from loreg.remote.downloads import Downloader, DownloadError


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    paths: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
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
    downloader = Downloader()
    assert downloader.get("http://store.invalid/blob", {}, 100).data == b"by the proxy"
    assert paths == ["http://store.invalid/blob"]
    monkeypatch.setenv("no_proxy", "store.invalid")
    with pytest.raises(DownloadError):
        downloader.get("http://store.invalid/blob", {}, 100)
    assert len(paths) == 1
    downloader.close()
