"""A link to a page on another site is followed: also by somebody whose cookie the browser keeps back at first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import expect

from deployments import empty_folders
from pages.conftest import Site, Someone, open_site


@pytest.fixture
def chat() -> Iterator[str]:
    """Another site, where somebody has posted a link: ``/?URL``; ``/frame?URL`` has it in a frame."""

    class Links(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, url = self.path.partition("?")
            body = f'<iframe src="{url}"></iframe>' if path == "/frame" else f'<a href="{url}">look</a>'
            content = f'<!doctype html><link rel="icon" href="data:,">{body}'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Links)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"  # another site than 127.0.0.1
    server.shutdown()
    server.server_close()


def test_who_has_signed_in_sees_what_a_colleague_posted(site: Site, someone: Someone, chat: str):
    person = someone(site.endpoint, own=(chat,))
    person.sign_in(site.tokens["reader"])
    person.page.goto(f"{chat}/?{site.endpoint}/team/news/v1")
    person.page.get_by_text("look").click()
    person.page.get_by_role("heading", name="news v1").wait_for()
    expect(person.page).to_have_url(f"{site.endpoint}/team/news/v1")


def test_who_has_not_signed_in_is_asked_to(site: Site, someone: Someone, chat: str):
    person = someone(site.endpoint, own=(chat,), expected=("404",))
    person.page.goto(f"{chat}/?{site.endpoint}/team/news/v1")
    person.page.get_by_text("look").click()
    person.page.get_by_role("heading", name="Not found").wait_for()
    person.page.get_by_role("main").get_by_role("link", name="Sign in").click()
    person.page.get_by_label("Token").fill(site.tokens["reader"])
    person.page.get_by_role("main").get_by_role("button", name="Sign in").click()
    person.page.get_by_role("heading", name="news v1").wait_for()


def test_a_server_without_tokens_shows_a_page_but_in_no_frame(tmp_path: Path, someone: Someone, chat: str):
    with open_site(empty_folders(tmp_path), is_open=True) as site:
        person = someone(site.endpoint, own=(chat,), expected=("403", "frame-ancestors"))
        person.page.goto(f"{chat}/?{site.endpoint}/team/news")
        person.page.get_by_text("look").click()
        person.page.get_by_role("heading", name="news", exact=True).wait_for()
        person.page.goto(f"{chat}/frame?{site.endpoint}/team/news")
        expect(person.page.frames[1].get_by_role("heading")).to_have_count(0)
