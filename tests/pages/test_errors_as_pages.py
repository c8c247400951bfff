"""Whoever looks gets an error as a page, wherever it is made; a program gets problem details, wherever it asks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import html5lib
import httpx
import pytest

from deployments import empty_folders
from pages.conftest import Site, open_site

BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server without tokens."""
    with open_site(empty_folders(tmp_path_factory.mktemp("open")), is_open=True) as site:
        yield site


def is_page(answer: httpx.Response) -> bool:
    html5lib.HTMLParser(strict=True).parse(answer.text)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return answer.headers["Content-Type"].startswith("text/html")


REFUSED = {
    "another host": ("/bases", {"Host": "evil.example"}, 403),
    "a form of another site": ("/bases", {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
    "a NUL": ("/?text=%00", {}, 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_any_page_is_a_page(open_server: Site, case: str):
    path, headers, status = REFUSED[case]
    with httpx.Client(base_url=open_server.endpoint) as client:
        shown = client.get(path, headers={**BROWSER, **headers})
        assert shown.status_code == status
        assert is_page(shown)
        assert "team" not in shown.text
        problem = client.get(path, headers=headers)
        asked = client.get(
            "/api/v1/search" + path.partition("?")[1] + path.partition("?")[2], headers={**BROWSER, **headers}
        )
    for answer in (problem, asked):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem.json()["detail"] in shown.text.replace("&#39;", "'")


def test_a_mistake_of_the_server_is_a_page_with_the_id_of_the_request(
    open_server: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("loreg.server.pages.audit._describe", fail)
    monkeypatch.setattr("loreg.server.routes.administration.Whoami", fail)
    with httpx.Client(base_url=open_server.endpoint) as client, caplog.at_level(logging.CRITICAL):
        for _ in range(20):  # the answer after it is not lost with the connection that the mistake closed
            shown = client.get("/audit", headers=BROWSER)
            problem = client.get("/audit")
            asked = client.get("/api/v1/whoami", headers=BROWSER)
    for answer in (shown, problem, asked):
        assert (answer.status_code, answer.headers["Connection"]) == (500, "close")
    assert is_page(shown)
    assert shown.headers["X-Request-Id"] in shown.text
    assert "secret" not in shown.text + problem.text + asked.text
    for answer in (problem, asked):
        assert answer.json()["code"] == "internal"
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])


def test_a_form_that_is_too_large_is_answered_by_a_page(site: Site):
    with site.visit("root") as client:
        answer = client.post("/_/namespace-set", content=b"x" * 20_000, headers={"Origin": site.endpoint})
    assert answer.status_code == 413
    assert is_page(answer)


def test_parameters_that_are_no_such_thing_are_answered_by_a_page(site: Site):
    with site.visit("root") as client:
        for path in (
            "/?rank=x",
            "/?cursor=x",
            "/jobs?cursor=x",
            "/_/invitation?key=a&key=b",
            "/checks?cursor=x&code=LR001",
        ):
            answer = client.get(path)
            assert 400 <= answer.status_code < 500, path
            assert is_page(answer)
