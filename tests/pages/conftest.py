"""A server with pages, tokens and adapters of two namespaces, one of them public, and a person with a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from browsers import chromium
from deployments import HISTORY, MOVIES, NEWS, SCIENCE, Deployment, empty_folders
from factories import write_base
from live_server import live_server
from loreg.entities import MergeOptions, Metric, VersionMetadata
from loreg.registry import Registry, connect

SCOPES = {"reader": ["read:team"], "stranger": ["write:other"], "root": ["admin:*"]}
FORM_TOKEN = 'name="form_token" value="'


@dataclass(frozen=True)
class Site:
    """The server, a token for each role, and the registry behind it."""

    endpoint: str
    behind: Registry
    tokens: dict[str, str]

    @contextlib.contextmanager
    def visit(self, role: str = "") -> Iterator[httpx.Client]:
        """A browser without JavaScript, signed in."""
        with httpx.Client(base_url=self.endpoint, headers={"Accept": "text/html"}, timeout=30) as client:
            if role:
                assert sign_in(client, self.tokens[role]).status_code == 303
            yield client


def sign_in(client: httpx.Client, token: str, next_path: str = "/") -> httpx.Response:
    """Send the form of the sign-in page as a browser does."""
    form = client.get("/sign-in").text
    fields = {"form_token": form_token(form), "token": token, "next": next_path}
    return client.post("/sign-in", data=fields, headers={"Origin": str(client.base_url).rstrip("/")})


def form_token(html: str) -> str:
    return html.partition(FORM_TOKEN)[2].partition('"')[0]


@contextlib.contextmanager
def open_site(deployment: Deployment, *, is_open: bool = False) -> Iterator[Site]:
    """A server on the deployment, filled: the private team/news, team/science and team/both, the public lab/history."""
    where = {name: getattr(deployment, name) for name in ("database_url", "storage_url", "storage_endpoint")}
    with connect(**where) as behind, live_server(deployment, is_open=is_open) as endpoint:
        fill(behind)
        tokens = {} if is_open else {role: behind.tokens.create(role, scopes)[1] for role, scopes in SCOPES.items()}
        yield Site(endpoint, behind, tokens)


def fill(registry: Registry) -> None:
    metrics = [Metric("accuracy", 0.93, "ag_news", "test")]
    registry.push(NEWS, "team/news", tasks=["news-topics"], metrics=metrics, aliases=["prod"], message="the first")
    better = [Metric("accuracy", 0.95, "ag_news", "test")]
    registry.push(MOVIES, "team/news", tasks=["news-topics"], metrics=better, aliases=["staging"])
    registry.push(SCIENCE, "team/science", tasks=["qa"], labels={"owner": "ada"})
    registry.push(HISTORY, "lab/history", tasks=["qa"])
    registry.push(HISTORY, "plain")
    registry.merge(
        ["team/science", "lab/history"],
        MergeOptions(weights=[0.7, 0.3], rank=8),
        name="team/both",
        metadata=VersionMetadata(tasks=["qa"]),
    )
    registry.namespaces.set_public("lab", True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server on SQLite and a folder, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("site")
    with open_site(empty_folders(folder)) as site:
        site.behind.bases.add(write_base(folder / "base"), ["org/tiny"])
        site.behind.jobs.submit("merge", sources=["team/science", "lab/history"], name="team/blend")
        yield site


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Site]:
    """A server on SQLite and a folder, for one test."""
    with open_site(empty_folders(tmp_path)) as site:
        yield site


@pytest.fixture
def on_either(local_deployment: Deployment) -> Iterator[Site]:
    """A server on SQLite and a folder, and one on PostgreSQL and S3, for one test."""
    with open_site(local_deployment) as site:
        yield site


@dataclass
class Person:
    """Someone at a browser: what their browser complained of, and what it asked other hosts for."""

    page: Page
    endpoint: str
    has_scripts: bool = True
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open the page at the path; with all that it loads of itself."""
        self.page.goto(self.endpoint + path)
        if self.has_scripts:
            self.page.locator("[hx-trigger=load]").wait_for(state="detached")
        return self.page

    def sign_in(self, token: str) -> None:
        self.go("/sign-in")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("main").get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)


Someone = Callable[..., Person]


@pytest.fixture
def someone(browser: Browser) -> Iterator[Someone]:
    """Seat a person at a fresh browser. At the end no browser may have complained, or asked anybody but the server."""
    contexts: list[BrowserContext] = []
    persons: list[Person] = []

    def seat(endpoint: str, own: tuple[str, ...] = (), expected: tuple[str, ...] = (), **options: object) -> Person:
        """``own`` are other servers of the test; a complaint with one of the ``expected`` texts is none."""
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        person = Person(context.new_page(), endpoint, bool(options.get("java_script_enabled", True)))
        persons.append(person)

        def complain(text: str, *, is_complaint: bool = True) -> None:
            if text.startswith("error: htmx:sendAbort"):  # a request that a newer one took the place of, as it is to
                assert person.complaints.pop().startswith("error: htmx:afterRequest")
            elif is_complaint and not any(part in text for part in expected):
                person.complaints.append(text)

        person.page.on("console", lambda line: complain(f"{line.type}: {line.text}"))
        person.page.on("pageerror", lambda error: complain(f"script: {error}"))
        person.page.on("dialog", lambda dialog: complain(f"dialog: {dialog.message}"))
        servers = (endpoint, *own)
        context.on("request", lambda asked: complain(asked.url, is_complaint=not _is_own(asked.url, servers)))
        return person

    yield seat
    for context in contexts:
        context.close()
    assert [complaint for person in persons for complaint in person.complaints] == []


def _is_own(url: str, servers: tuple[str, ...]) -> bool:
    return url.startswith((*(f"{server}/" for server in servers), "data:", "file:", "chrome-error:"))
