"""``loreg ui`` shows the registry of a machine to the person who types it, and to nobody else on that machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from deployments import SCIENCE
from loreg.registry import connect
from pages.conftest import Someone

LOREG = Path(sys.executable).with_name("loreg")
HTML = {"Accept": "text/html"}


@contextlib.contextmanager
def shown(folder: Path, *words: str, **environment: str) -> Iterator[str]:
    """The address that ``loreg ui`` prints, while it runs."""
    home = folder / "home"
    with connect(home=home) as registry:
        registry.push(SCIENCE, "team/science")
        registry.namespaces.set_public("team", True)
    process = subprocess.Popen(
        [str(LOREG), "--home", str(home), "ui", *words],
        env={**os.environ, "TMPDIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def invitation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with shown(tmp_path_factory.mktemp("ui"), "--print-url") as url:
        yield url


def test_nobody_else_on_the_machine_sees_anything_not_even_what_is_public(invitation: str):
    server = invitation.partition("/_/")[0]
    for path in ("/", "/team/science", "/team/science/v1", "/audit"):
        answer = httpx.get(server + path, headers=HTML)
        assert answer.status_code == 401
        assert "smollm" not in answer.text.lower()
    for path in ("/api/v1/adapters", "/api/models/team/science", "/team/science/resolve/main/adapter_config.json"):
        assert httpx.get(server + path).status_code == 401
    for key in ("", "x", "é", "0" * 43):
        assert httpx.get(f"{server}/_/invitation", params={"key": key}, headers=HTML).status_code == 401
    forged = {f"loreg-{server.rpartition(':')[2]}": "x" * 43}
    assert httpx.get(server + "/", cookies=forged, headers=HTML).status_code == 401


def test_a_name_that_means_this_machine_by_now_is_refused(invitation: str):
    """DNS rebinding: a page of another site whose name leads here."""
    server = invitation.partition("/_/")[0]
    assert httpx.get(invitation, headers={**HTML, "Host": "rebind.evil.example"}).status_code == 403
    assert httpx.get(server + "/", headers={**HTML, "Host": "rebind.evil.example"}).status_code == 403


def test_the_invitation_leads_to_the_page_and_holds_once(tmp_path: Path, someone: Someone):
    with shown(tmp_path, "team/science") as url:
        server = url.partition("/_/")[0]
        person = someone(server)
        way = tmp_path / "open.html"  # what a browser is given in place of an address, which others could read
        way.write_text(f'<meta http-equiv="refresh" content="0;url={url.replace("&", "&amp;")}">')
        person.page.goto(way.as_uri())
        person.page.wait_for_url(f"{server}/team/science/v1")
        person.page.get_by_role("heading", name="science v1").wait_for()
        expect(person.page.get_by_text("only you see this")).to_have_count(1)
        expect(person.go("/").get_by_role("link", name="team/science")).to_have_count(1)
        again = httpx.get(url, headers=HTML)
        assert again.status_code == 401
        assert "Set-Cookie" not in again.headers or "Max-Age=0" in again.headers["Set-Cookie"]


def test_what_the_pages_say_to_type_needs_no_server(tmp_path: Path, someone: Someone):
    with shown(tmp_path, "team/science") as url:
        person = someone(url.partition("/_/")[0])
        person.page.goto(url)
        person.page.get_by_role("heading", name="science v1").wait_for()
        titles = [label.inner_text() for label in person.page.locator(".tabs > label").all()]
        texts = [code.text_content() or "" for code in person.page.locator(".tabs code").all()]
        for path in ("/start", "/admin", "/"):
            texts += [code.text_content() or "" for code in person.go(path).locator("code").all()]
    assert titles == ["PEFT", "vLLM", "loreg"]
    assert not [text for text in texts if "127.0.0.1" in text or "/api/" in text]
    environment = {**os.environ, "LOREG_HOME": str(tmp_path / "home")}
    python, _, pull = (text.partition("model = ")[0] for text in texts[:3])
    for number, command in enumerate(([sys.executable, "-c", python], [str(LOREG), *shlex.split(pull)[1:]])):
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        assert (folder / "science" / "adapter_config.json").is_file()


def test_the_file_that_the_browser_is_given_is_the_persons_alone(tmp_path: Path):
    with shown(tmp_path, "--print-url") as url:
        (file,) = tmp_path.glob("loreg-ui-*/open.html")
        assert url.partition("key=")[2].partition("&")[0] in file.read_text()
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not file.exists()
