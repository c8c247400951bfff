"""A server that asks for no token: it serves programs on its own machine, and neither pages nor proxies."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from attackers import attacked, open_socket, read_until_closed
from deployments import Deployment, Loreg
from loreg.registry import connect
from loreg.server import state
from server.test_start import free_port, running

COMMIT = "/api/models/team/science/commit/prod"
LINES = b"\n".join(
    json.dumps(line).encode()
    for line in (
        {"key": "header", "value": {"summary": "evil"}},
        {"key": "file", "value": {"path": "README.md", "content": "ZXZpbA==", "encoding": "base64"}},
    )
)
OWN = ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost.", "127.0.0.1:9999", "localhost:8470"]
FOREIGN = [
    "rebind.evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "10.0.0.7",
    "evil",
    "[::2]",
    "",
    "@",
    "127.0.0.1:8470@evil",
    "localhost:8470/evil",
    "localhost:evil",
    "[::1",
    "[::1]evil",
    "[::1]:8470@evil",
]
FORWARDED = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via"]


@pytest.mark.parametrize("host", OWN)
def test_it_answers_to_its_own_names(tmp_path: Path, host: str):
    with attacked(tmp_path, is_open=True) as server:
        assert server.http().get("/api/v1/whoami", headers={"Host": host}).json()["grants"] == {"*": "admin"}


def test_under_another_name_nobody_reads_and_nobody_makes_a_token(tmp_path: Path):
    with attacked(tmp_path, is_open=True) as server:
        for host in FOREIGN:
            asking = {"Host": host}
            for path in ("/api/v1/adapters", "/healthz", "/metrics", "/openapi.json", "/api/models/team/science"):
                assert server.http().get(path, headers=asking).status_code == 403, (host, path)
            made = server.http().post("/api/v1/tokens", json={"name": "x", "scopes": ["admin:*"]}, headers=asking)
            assert made.status_code == 403
        assert server.behind.tokens.list() == ()


def test_a_request_with_two_names_or_none_is_refused(tmp_path: Path):
    with attacked(tmp_path, is_open=True) as server:
        for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n", "Host: evil.example\r\nHost: localhost\r\n"):
            with open_socket(server.endpoint) as connection:
                connection.sendall(f"GET /api/v1/adapters HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
                assert b" 403 " in read_until_closed(connection).splitlines()[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        *({name: "203.0.113.9"} for name in FORWARDED),
    ],
    ids=str,
)
def test_pages_of_others_and_proxies_change_nothing_and_read_nothing(tmp_path: Path, headers: dict[str, str]):
    with attacked(tmp_path, is_open=True) as server:
        before = server.behind.events().items
        http = server.http()
        assert http.get("/api/v1/adapters", headers=headers).status_code == 403
        for type_ in ("text/plain", "application/x-ndjson", "application/json"):
            assert http.post(COMMIT, content=LINES, headers={**headers, "Content-Type": type_}).status_code == 403
        assert http.put("/api/v1/namespaces/team", json={"public": True}, headers=headers).status_code == 403
        assert http.delete("/api/v1/adapters/team/science/aliases/prod", headers=headers).status_code == 403
        assert server.behind.events().items == before


def test_a_proxy_that_names_the_server_as_its_host_and_says_nothing_else_is_refused(tmp_path: Path):
    """What nginx before 1.29.7 sends for a bare ``proxy_pass http://127.0.0.1:8470;``."""
    with attacked(tmp_path, is_open=True) as server:
        host = urlsplit(server.endpoint).netloc
        for version, status in (("1.0", 403), ("1.1", 200)):
            with open_socket(server.endpoint) as connection:
                line = f"GET /api/v1/whoami HTTP/{version}\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                connection.sendall(line.encode())
                assert int(read_until_closed(connection).split()[1]) == status
    with attacked(tmp_path / "tokens") as server, open_socket(server.endpoint) as connection:  # there a proxy may ask
        connection.sendall(b"GET /healthz HTTP/1.0\r\nHost: loreg.company.com\r\n\r\n")
        assert int(read_until_closed(connection).split()[1]) == 200


def test_a_page_of_its_own_is_answered(tmp_path: Path):
    with attacked(tmp_path, is_open=True) as server:
        own = {"Origin": server.endpoint, "Sec-Fetch-Site": "same-origin"}
        assert server.http().get("/api/v1/adapters", headers=own).status_code == 200
        assert server.http().get("/api/v1/adapters", headers={"Sec-Fetch-Site": "none"}).status_code == 200


@pytest.mark.parametrize("role", ["", "writer"])
@pytest.mark.parametrize(
    "type_", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_forms_change_nothing_with_a_token_or_without(tmp_path: Path, role: str, type_: str):
    with attacked(tmp_path, is_open=not role) as server:
        before = server.behind.events().items
        http, headers = server.http(role), {"Content-Type": type_}
        for path in (COMMIT, "/api/models/team/science/branch/b", "/api/models/team/science/tag/b"):
            assert http.post(path, content=LINES, headers=headers).status_code == 400
        for path, body in (
            ("/api/repos/create", {"name": "new", "organization": "team"}),
            ("/api/models/team/science/preupload/main", {"files": []}),
            ("/api/v1/uploads", []),
            ("/api/v1/adapters/team/science/versions/v1/metrics", [{"name": "accuracy", "value": 1}]),
            ("/api/v1/jobs", {"kind": "merge", "request": {"sources": ["team/science"], "name": "team/m"}}),
        ):
            assert http.post(path, content=json.dumps(body), headers=headers).status_code == 400, path
        assert server.behind.events().items == before
        assert server.behind.jobs.list().items == ()


def test_a_body_of_no_type_is_refused_where_a_browser_sent_it(tmp_path: Path):
    """fetch() with a Blob sends no Content-Type, and asks nobody before."""
    with attacked(tmp_path, is_open=True) as server:
        own = {"Origin": server.endpoint}
        assert server.http().post(COMMIT, content=LINES, headers=own).status_code == 400


def test_it_is_open_no_more_once_there_is_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(state, "_TOKEN_CACHE_SECONDS", 3600.0)  # what was made here need not be looked for
    with attacked(tmp_path, is_open=True) as server:
        http = server.http()
        assert http.get("/api/v1/whoami").json()["grants"] == {"*": "admin"}
        secret = http.post("/api/v1/tokens", json={"name": "ada", "scopes": ["admin:*"]}).json()["secret"]
        assert http.get("/api/v1/adapters/team/science/versions/v1").status_code == 404
        assert http.post("/api/v1/tokens", json={"name": "x", "scopes": ["admin:*"]}).status_code == 401
        with connect(endpoint=server.endpoint, token=secret) as registry:
            assert registry.show("team/science").version.number == 1
            registry.tokens.revoke(registry.tokens.create("old", ["read:*"])[0].id)
        # With tokens it may lie behind a proxy, under any name.
        proxied = {"Host": "loreg.company.com", "X-Forwarded-For": "203.0.113.9"}
        assert http.get("/healthz", headers=proxied).status_code == 200


def test_a_token_that_another_program_made_closes_it_too(tmp_path: Path):
    with attacked(tmp_path, is_open=True) as server:
        token, _ = server.behind.tokens.create("first", ["admin:*"])
        other = server.behind.tokens.create("second", ["admin:*"])[0]
        assert server.http().get("/api/v1/whoami").json()["grants"] == {}
        server.behind.tokens.revoke(token.id)
        assert server.http().get("/api/v1/whoami").json()["grants"] == {}, other


def test_serve_without_options_asks_for_tokens_where_there_are_some(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    with running(deployment, LOREG_ADMIN_TOKEN="lrg_" + "r" * 43) as server:
        proxied = {"X-Forwarded-For": "203.0.113.9", "Host": "loreg.company.com"}
        assert httpx.get(f"{server.endpoint}/api/v1/whoami", headers=proxied).json()["grants"] == {}
        assert httpx.get(f"{server.endpoint}/api/v1/whoami").json()["grants"] == {}


def test_tokens_and_allow_anonymous_contradict_each_other(local: Loreg):
    assert local("serve", "--init").exit_code == 0
    refused = local("serve", "--allow-anonymous", "--port", str(free_port()))
    assert refused.exit_code == 4
    assert "this registry has tokens. Hint: loreg serve --host 127.0.0.1 --require-tokens" in refused.stderr


def test_everywhere_it_answers_to_addresses_and_local_names_and_to_no_name_of_a_stranger(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    with running(deployment, "--host", "0.0.0.0", "--allow-anonymous") as server:
        for host, status in (("10.1.2.3:8470", 200), ("loreg:8470", 200), ("rebind.evil.example:8470", 403)):
            assert httpx.get(f"{server.endpoint}/api/v1/adapters", headers={"Host": host}).status_code == status
