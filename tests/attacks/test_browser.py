"""A real browser on a person's machine, whose pages reach for a server there: across sites, and by DNS rebinding.

It needs Chromium: Debian's package of that name, or ``playwright install chromium``.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from attackers import Attacked, attacked
from browsers import chromium

EVIL, REBOUND, TRUSTED = "evil.example", "rebind.evil.example", "localhost"
COMMIT = "/api/models/team/science/commit/prod"
README = {"key": "file", "value": {"path": "README.md", "content": "ZXZpbA==", "encoding": "base64"}}
LINES = json.dumps({"key": "header", "value": {"summary": "evil"}}) + "\n" + json.dumps(README)


class Anything(BaseHTTPRequestHandler):
    """The attacker's site: a page without content at every path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"<body></body>")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[int]:
    """The port of the attacker's site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Anything)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def rebinding(server: Attacked) -> Iterator[tuple[int, Callable[[], None]]]:
    """A port that is the attacker's, and the server's from the call on: as a name that means another address then."""
    rebound = threading.Event()

    class Either(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if not rebound.is_set():
                self.request.recv(65536)
                page = b"<body></body>"
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 13\r\n\r\n"
                self.request.sendall(head + page)
                return
            with server.socket() as there:
                threading.Thread(target=pump, args=(there, self.request), daemon=True).start()
                pump(self.request, there)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Either) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1], rebound.set
        listening.shutdown()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which the attacker's names mean this machine."""
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in (EVIL, REBOUND))
    with chromium(f"--host-resolver-rules={rules}") as browser:
        yield browser


Open = Callable[[str], Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """A page of the attacker's that a person looks at."""
    context = browser.new_context()

    def go(url: str) -> Page:
        page = context.new_page()
        page.goto(url)
        return page

    yield go
    context.close()


@pytest.fixture(params=[True, False], ids=["without tokens", "with tokens"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attacked]:
    with attacked(tmp_path, is_open=request.param) as attacked_server:
        yield attacked_server


def port_of(server: Attacked) -> str:
    return server.endpoint.rpartition(":")[2]


def state(server: Attacked) -> tuple[object, ...]:
    behind = server.behind
    return (
        behind.events().items,
        behind.show("team/science:prod").version.number,
        behind.tokens.list(),
        behind.jobs.list().items,
    )


SEND = """async ([url, options]) => {
    try { const answer = await fetch(url, options); return [answer.type, answer.status, await answer.text()] }
    catch (error) { return ["refused", 0, String(error)] }
}"""


def send(page: Page, url: str, **options: Any) -> list[Any]:
    return page.evaluate(SEND, [url, options])


@pytest.mark.parametrize("name", [EVIL, TRUSTED])
def test_a_page_of_another_site_moves_no_alias_and_reads_nothing(server: Attacked, site: int, opened: Open, name: str):
    """The second is a page on this machine, from another port."""
    page, before = opened(f"http://{name}:{site}/"), state(server)
    for host in ("127.0.0.1", "localhost"):
        at = f"http://{host}:{port_of(server)}"
        for type_ in ("text/plain", "application/x-www-form-urlencoded", "application/x-ndjson", "application/json"):
            for mode in ("no-cors", "cors"):
                if mode == "no-cors" and type_.startswith("application/x-nd"):
                    continue  # the browser itself sends text/plain then
                answer = send(page, at + COMMIT, method="POST", body=LINES, mode=mode, headers={"Content-Type": type_})
                assert answer[0] in ("refused", "opaque")
        assert send(page, f"{at}/api/v1/adapters", mode="cors")[0] == "refused"
        assert send(page, f"{at}/api/v1/adapters/team/science/aliases/prod", method="DELETE")[0] == "refused"
    assert state(server) == before


def test_a_form_and_a_beacon_of_another_site_change_nothing(server: Attacked, site: int, opened: Open):
    before = state(server)
    for path in (COMMIT, "/api/v1/tokens"):
        url = f"http://127.0.0.1:{port_of(server)}{path}"
        for type_ in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            page = opened(f"http://{EVIL}:{site}/")
            with page.expect_navigation():
                page.evaluate(
                    """([url, type, name]) => {
                        const form = Object.assign(document.createElement("form"), {method: "post", action: url})
                        form.enctype = type
                        form.append(Object.assign(document.createElement("input"), {name: name, value: ""}))
                        document.body.append(form)
                        form.submit()
                    }""",
                    [url, type_, LINES],
                )
            assert page.evaluate("document.contentType") in ("application/problem+json", "application/json")
        page = opened(f"http://{EVIL}:{site}/")
        page.evaluate("([url, lines]) => navigator.sendBeacon(url, new Blob([lines]))", [url, LINES])
        answer = page.evaluate(
            """async ([url, lines]) =>
                (await fetch(url, {method: "POST", mode: "no-cors", body: new Blob([lines])})).type""",
            [url, LINES],
        )
        assert answer == "opaque"
    assert state(server) == before


def test_a_page_whose_name_means_this_machine_by_now_reads_nothing_and_gets_no_token(
    server: Attacked, browser: Browser
):
    """DNS rebinding: the page was loaded from the attacker, and its own name leads to the server since then."""
    before, page = state(server), browser.new_page()
    with rebinding(server) as (port, rebind):
        page.goto(f"http://{REBOUND}:{port}/")
        rebind()
        _try_all(server, page)
    assert state(server) == before


def _try_all(server: Attacked, page: Page) -> None:
    for path in (
        "/healthz",
        "/api/v1/adapters",
        "/api/v1/whoami",
        "/api/models/team/science",
        "/team/science/resolve/main/README.md",
    ):
        kind, status, text = send(page, path)
        assert kind == "basic"  # of its own origin, for the browser
        assert "science" not in text or status in (403, 404)
        if not server.tokens:
            assert status == 403
    made = send(
        page,
        "/api/v1/tokens",
        method="POST",
        body=json.dumps({"name": "evil", "scopes": ["admin:*"]}),
        headers={"Content-Type": "application/json"},
    )
    assert made[1] in (401, 403)
    sent = send(page, COMMIT, method="POST", body=LINES, headers={"Content-Type": "application/x-ndjson"})
    assert sent[1] in (401, 403, 404)


def test_a_person_may_look_at_the_answers_of_a_server_without_tokens(tmp_path: Path, opened: Open):
    with attacked(tmp_path, is_open=True) as server:
        assert '"science"' in opened(f"{server.endpoint}/api/v1/adapters").content()
