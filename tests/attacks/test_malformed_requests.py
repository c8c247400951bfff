"""Whatever a request says, the answer is one of those that are described: no mistake of the server, and never none."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from attackers import Attacked, attacked, status_of, without_convertors
from deployments import SCIENCE
from loreg.catalog import jobs
from loreg.entities import Access
from loreg.errors import NotAllowedError, UsageError
from loreg.registry import Registry, connect
from loreg.server import pagination
from loreg.server.routes import administration, bases, blobs, hub_read, hub_write, lorax, versions
from loreg.server.routes import jobs as jobs_routes

ROOMS = (versions, bases, blobs, administration, jobs_routes, lorax, hub_write, hub_read)
ROUTES = [
    (method, without_convertors(route.path))
    for room in ROOMS
    for route in room.routes.routes
    if isinstance(route, Route) and route.methods
    for method in sorted(route.methods)
]
RIGHT = {
    "namespace": "team", "name": "science", "selector": "v1", "alias": "prod", "request": "0" * 64, "sha256": "0" * 64,
    "digest": "0" * 64, "upload_id": "x", "token_id": "99", "job_id": "1", "webhook_id": "1", "delivery_id": "1",
    "repository": "team/science", "revision": "main", "branch": "b", "path": "README.md", "folder": "x", "version": "1",
}  # fmt: skip
WRONG = [
    "%00", "%0d%0aX:%20y", "%ed%a0%80", "%F0%9F%98%80", "%2e%2e", "%2F", "x" * 5000, "v" + "9" * 5000, "%", "-",
    "%D9%A3", "0", "-1", "9" * 400, "sha256:aaaaaaaa", "a:b@c", "{}",
]  # fmt: skip
DEEP = "[" * 300 + "]" * 300
VALUES: list[Any] = [
    None, True, -1, 1.5, 10**12, 2**63, 10**30, "", "a\0b", "\ud800", "\u202e\x1b[31m", "x" * 5000, [1], [[]], [None],
    {}, {"a": 1}, {"\ud800": 1}, {"": {}}, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", ["team/science"],
    {"namespace": "team", "name": "science"}, [{"path": "x", "sha256": "0" * 64, "size": -1}], [{"path": 1}],
    [{"sha256": "0" * 64, "size": 2**70}],
]  # fmt: skip
BODIES: dict[str, Any] = {
    "/versions": {
        "commit": {
            "adapter": {"namespace": "team", "name": "science"}, "manifest": {"files": []}, "base": None,
            "base_hint": "", "message": "", "tasks": [], "labels": {}, "metrics": [], "aliases": [],
        },
        "uploads": [],
    },
    "/metrics": [{"name": "accuracy", "value": 1.0, "dataset": "", "split": "", "higher_is_better": True}],
    "/yanked": {"yanked": False, "reason": ""},
    "/exports/{request}": {"manifest": {"files": []}, "uploads": []},
    "/aliases/{alias}": {"ref": "team/science:v1"},
    "/bases": {
        "base": {
            "digest": "0" * 64, "names": [], "tensors": 1, "parameters": 1, "struct": "", "complete": False,
            "license": "", "config": {},
        },
        "uploads": [],
    },
    "/base-edges": {"child": "x", "parent": "y", "kind": "cast_of", "detail": {}},
    "/uploads": [{"sha256": "0" * 64, "size": 1}],
    "/jobs": {"kind": "merge", "request": {"sources": ["team/science"], "name": "team/m", "rank": 1}},
    "/namespaces/{namespace}": {"public": False},
    "/tokens": {"name": "x", "scopes": ["read:team"], "expires_at": None},
    "/repos/create": {"name": "new", "organization": "team", "type": "model"},
    "/preupload/{revision}": {"files": [{"path": "a", "size": 1, "sample": ""}]},
    "/paths-info/{revision}": {"paths": ["README.md"]},
    "/commit/{revision}": {"key": "file", "value": {"path": "a", "content": "eA==", "encoding": "base64"}},
}  # fmt: skip
ALLOWED = {200, 201, 202, 204, 302, 307, 400, 401, 403, 404, 405, 409, 412, 413, 416, 422}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Attacked]:
    with attacked(tmp_path) as server:
        yield server


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> Iterator[Attacked]:
    """PostgreSQL refuses more than SQLite does."""
    with attacked(tmp_path, database_url=postgres_url) as server:
        yield server


def answer(http: httpx.Client, method: str, url: str, **more: Any) -> int:
    """The status; a request that is not answered at all fails the test, and so does a mistake."""
    with http.stream(method, url, **more) as response:
        text = "" if response.headers.get("content-type", "").startswith("text/event-stream") else response.read()
    assert response.status_code in ALLOWED, (method, url[:300], str(more)[:500], response.status_code, text)
    return response.status_code


def test_no_path_makes_the_server_fail(guarded: Attacked):
    http = guarded.http("root")
    for method, path in ROUTES:
        for name in [part.partition("}")[0] for part in path.split("{")[1:]]:
            for wrong in WRONG:
                answer(http, method, path.format(**{**RIGHT, name: wrong}))


def test_no_query_makes_the_server_fail(on_postgres: Attacked):
    http = on_postgres.http("root")
    paths = http.get("/openapi.json").json()["paths"]
    asked = 0
    for path, operations in paths.items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if parameter["in"] == "query":
                for wrong in WRONG:
                    answer(http, "GET", f"{path.format(**RIGHT)}?{parameter['name']}={wrong}")
                    asked += 1
    assert asked > 300
    for wrong in WRONG:
        answer(http, "GET", f"/api/models/team/science/tree/main?cursor={wrong}")


@pytest.mark.parametrize(
    "header", ["If-Match", "If-None-Match", "Range", "X-Request-Id", "X-Loreg-Author", "Authorization", "Content-Type"]
)
def test_no_header_makes_the_server_fail(guarded: Attacked, header: str):
    http = guarded.http("root")
    for wrong in (
        b"",
        b"\xff\xfe",
        b"x" * 9000,
        b'"v99999999999999999999"',
        b"bytes=9-1",
        b"bytes=" + b"9" * 400 + b"-",
        b"Bearer \xc3\xa9",
        b"a,b;c",
    ):
        for method, path in ROUTES:
            answer(http, method, path.format(**RIGHT), headers=[(header.encode(), wrong)])


def test_no_body_makes_the_server_fail(on_postgres: Attacked):
    """Each value of each right body by turns another; and the body another as a whole."""
    http = on_postgres.http("root")
    for method, path in ROUTES:
        right = next((body for end, body in BODIES.items() if path.endswith(end)), None)
        if right is None or method not in ("POST", "PUT"):
            continue
        for body in (*mutations(right), *VALUES):
            type_ = "application/x-ndjson" if "commit/" in path else "application/json"
            answer(http, method, path.format(**RIGHT), content=json.dumps(body), headers={"Content-Type": type_})
    # What was accepted can be listed.
    for path in (
        "/api/v1/jobs",
        "/api/v1/events",
        "/api/v1/tokens",
        "/api/v1/bases",
        "/api/v1/adapters",
        "/api/v1/search",
    ):
        assert http.get(path).status_code == 200


def mutations(document: Any) -> Iterator[Any]:
    """The document with each value in it replaced by each of the wrong ones, and with each key left out."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield {name: other for name, other in document.items() if name != key}
            for wrong in (*VALUES, *mutations(value)):
                yield {**document, key: wrong}
    elif isinstance(document, list):
        for index, value in enumerate(document):
            for wrong in (*VALUES, *mutations(value)):
                yield [*document[:index], wrong, *document[index + 1 :]]


WRONG_JOBS: list[dict[str, Any]] = [
    {"initial": 5}, {"initial": [5]}, {"aliases": 5}, {"aliases": "prod"}, {"aliases": [1]}, {"tasks": [{}]},
    {"rank": {"a": 1}}, {"rank": [1]}, {"rank": "8"}, {"weights": 1}, {"weights_for": []}, {"labels": ["a=b"]},
    {"message": 1}, {"scale": "1"}, {"allow_derived": "no"}, {"method": ["linear"]}, {"sources": [5]},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_JOBS, ids=json.dumps)
def test_a_job_that_no_worker_could_do_is_refused_when_it_is_asked_for(guarded: Attacked, wrong: dict[str, Any]):
    request = {"sources": ["team/science"], "name": "team/m", **wrong}
    answer_ = guarded.http("writer").post("/api/v1/jobs", json={"kind": "merge", "request": request})
    assert (answer_.status_code, next(iter(wrong)) in answer_.json()["detail"]) == (400, True)


@pytest.mark.parametrize("rank", [None, 8, {"fixed": 8}, {"fit": "vllm:16"}, {"energy": 0.9, "budget": None}])
def test_a_job_that_a_worker_could_do_is_accepted(guarded: Attacked, rank: Any):
    metadata = {
        "aliases": ["next"],
        "tasks": ["science"],
        "labels": {"a": "b"},
        "metrics": ["accuracy=0.9"],
        "message": "",
    }
    request = {
        "sources": ["team/science"],
        "weights": [1.0],
        "name": "team/m",
        "rank": rank,
        "initial": None,
        **metadata,
    }
    answer_ = guarded.http("writer").post("/api/v1/jobs", json={"kind": "merge", "request": request})
    assert answer_.status_code == 202, answer_.text


@pytest.mark.parametrize("expires_at", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_token_until_a_time_that_no_clock_shows_is_refused(guarded: Attacked, expires_at: str):
    asked = {"name": "x", "scopes": ["read:team"], "expires_at": expires_at}
    assert guarded.http("root").post("/api/v1/tokens", json=asked).status_code == 400


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://[x]", "null", ""])
def test_an_origin_that_is_no_url_is_foreign(tmp_path: Path, origin: str):
    with attacked(tmp_path, is_open=True) as server, server.http() as http:
        assert http.get("/api/v1/adapters", headers={"Origin": origin}).status_code == 403
        assert http.get("/api/v1/adapters").status_code == 200


RAW = [
    b"", b"null", b"{", b"\xff\xfe", b'"\xed\xa0\x80"', DEEP.encode(), b"NaN", b'{"name": NaN}', b'{"name": 1e999}',
    b'{"a":' * 60 + b"1" + b"}" * 60, b"1" * 5000, b'{"name":"x","name":"y"}',
    json.dumps({"name": "x"}).encode("utf-16"), b"\0", b'{"' + b"x" * 5000 + b'":1}', b'{"\\ud800": 1}',
    b"[" + b"1," * 5000 + b"1]",
]  # fmt: skip


def test_no_bytes_make_the_server_fail(guarded: Attacked):
    http = guarded.http("root")
    for method, path in ROUTES:
        if method in ("POST", "PUT"):
            for body in RAW:
                for type_ in (
                    "application/json",
                    "application/x-ndjson",
                    "application/octet-stream",
                    "application/json; charset=\xff",
                ):
                    answer(
                        http,
                        method,
                        path.format(**RIGHT),
                        content=body,
                        headers=[(b"Content-Type", type_.encode("latin-1"))],
                    )


LISTS = {
    "jobs": "jobs", "events": "events", "adapters": "adapters", "bases": "bases",
    "adapters/team/science/versions": "versions", "search": "created", "search?sort=name": "name",
    "search?sort=size": "size", "search?sort=metric:accuracy": "metric:accuracy",
}  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_no_cursor_makes_the_server_fail(guarded: Attacked, path: str):
    documents: list[Any] = [*VALUES]
    documents += [[LISTS[path], *key] for value in VALUES for key in ([value], [value, 1], ["x", value, 1])]
    contents = [json.dumps(document).encode() for document in documents]
    contents += [b"[" * 3000, b"[" * 900 + b"]" * 900, b'["jobs",1e999]', b'["size",NaN,1]', b"1" * 3000]
    url, _, sort = path.partition("?sort=")
    http, more = guarded.http("root"), {"sort": sort} if sort else {}
    for cursor in map(encoded, contents):
        if len(cursor) <= 4096:
            answer(http, "GET", f"/api/v1/{url}", params={"cursor": cursor, **more})


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_a_path_with_control_characters_is_answered_and_splits_no_header(guarded: Attacked):
    for path in ("x%0dy", "x%0d%0aSet-Cookie:%20a=b", "x%0a", "x%7f", "x%1b[31m", "x%C2%85", "x%00"):
        with guarded.socket() as connection:
            token = guarded.tokens["root"]
            asked = (
                f"GET /team/science/resolve/main/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            connection.sendall(asked.encode())
            assert status_of(connection) in (400, 404)
            assert b"Set-Cookie" not in connection.recv(65536).partition(b"\r\n\r\n")[0].replace(
                b"X-Error-Message", b""
            ).split(b"\r\n")


def test_malformed_requests_are_no_mistakes_in_the_log(guarded: Attacked, caplog: pytest.LogCaptureFixture):
    http = guarded.http("root")
    with caplog.at_level(logging.WARNING):
        http.post("/api/models/team/science/paths-info/main", json=["x"])
        http.post("/api/models/team/science/preupload/main", json={"files": [{}]})
        http.post("/api/repos/create", content=b"", headers={"Content-Type": "application/json"})
        http.get("/api/v1/jobs", params={"cursor": encoded(b"[" * 3000)})
        with guarded.socket() as connection:  # who goes away in the middle of his body
            head = "POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
            connection.sendall(f"{head}Authorization: Bearer {guarded.tokens['root']}\r\n\r\n[".encode())
        http.get("/healthz")
    assert not [record for record in caplog.records if record.exc_info]


def test_text_that_a_database_cannot_hold_is_refused_at_once_and_not_to_be_tried_again(registry: Registry):
    with pytest.raises(UsageError):
        registry.tokens.create("a\0b", ["read:*"])
    assert registry.push(SCIENCE, "team/a", message="a\0b").version.message == "ab"


def test_a_commit_of_the_hub_has_so_many_lines_and_stores_nothing_before_all_are_read(guarded: Attacked):
    store = guarded.behind.context.store
    before = {path.name for path in store.folder.rglob("*") if path.is_file()}
    line = json.dumps({"key": "file", "value": {"path": "f{}", "content": "ZXZpbA==", "encoding": "base64"}})
    for body in (
        "\n".join(line.replace("{}", str(n)) for n in range(3000)),
        "\n" * 1_000_000,
        line + "\n" + json.dumps({"key": "file", "value": {"path": "a\0b", "content": "eA=="}}),
        line + "\n" + json.dumps({"key": "deletedFile", "value": {"path": "\ud800"}}),
        line + "\n{",
        line + "\n" + "[" * 100_000,
        line + "\n" + json.dumps({"key": "header", "value": {"summary": "x" * 100_000}}),
        '{"key":"file","value":{"path":"x","content":"',
    ):
        answer_ = guarded.http("root").post(
            "/api/models/team/science/commit/main", content=body, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer_.status_code == 400, body[:80]
    assert {path.name for path in store.folder.rglob("*") if path.is_file()} == before


# A page has a size in bytes.


@pytest.fixture
def many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs without end, as a release before this one took them."""
    monkeypatch.setattr(jobs, "MAX_OPEN", 1000)


@pytest.mark.usefixtures("many_jobs")
def test_a_page_of_large_items_is_a_short_one_and_the_next_goes_on(guarded: Attacked):
    with guarded.behind.context.backend.catalog.write(Access.superuser("ada")) as tx:
        for number in range(120):
            jobs.submit(tx, "merge", {"message": "x" * 200_000, "number": number}, "team")
    http, seen, cursor, sizes = guarded.http("reader"), [], None, []
    while True:
        response = http.get("/api/v1/jobs", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
        sizes.append(len(response.content))
        page = response.json()
        seen += [job["request"]["number"] for job in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert seen == list(range(119, -1, -1))
    assert max(sizes) < 5 * 1024 * 1024
    assert len(sizes) >= 5


def test_an_item_that_is_larger_than_a_page_is_a_page(guarded: Attacked):
    with guarded.behind.context.backend.catalog.write(Access.superuser("ada")) as tx:
        for number in range(3):
            jobs.submit(tx, "merge", {"message": "x" * 5_000_000, "number": number}, "team")
    page = guarded.http("reader").get("/api/v1/jobs", params={"limit": 2}).json()
    assert [job["request"]["number"] for job in page["items"]] == [2]
    page = guarded.http("reader").get("/api/v1/jobs", params={"limit": 2, "cursor": page["cursor"]}).json()
    assert [job["request"]["number"] for job in page["items"]] == [1]


@pytest.mark.usefixtures("many_jobs")
@pytest.mark.parametrize("limit", [1, 7, 49, 50, 51, 100, 130, 1000])
def test_small_items_make_whole_pages(guarded: Attacked, limit: int):
    with guarded.behind.context.backend.catalog.write(Access.superuser("ada")) as tx:
        made = [jobs.submit(tx, "merge", {}, "team").id for _ in range(130)]
    page = guarded.http("reader").get("/api/v1/jobs", params={"limit": limit}).json()
    assert [job["id"] for job in page["items"]] == sorted(made, reverse=True)[:limit]
    assert (page["cursor"] is None) == (limit >= 130)


@pytest.mark.parametrize("path", ["jobs", "events", "search", "adapters", "adapters/team/a/versions", "bases"])
def test_every_list_is_cut_by_its_size(guarded: Attacked, monkeypatch: pytest.MonkeyPatch, path: str):
    for number in range(4):
        guarded.behind.push(SCIENCE, "team/a", message=f"m{number}")
        guarded.behind.push(SCIENCE, f"team/b{number}")
    with guarded.behind.context.backend.catalog.write(Access.superuser("ada")) as tx:
        for _ in range(4):
            jobs.submit(tx, "merge", {}, "team")
    http = guarded.http("root")
    whole = http.get(f"/api/v1/{path}").json()["items"]
    monkeypatch.setattr(pagination, "_MAX_BYTES", 1)
    seen, cursor = [], None
    for _ in range(len(whole) or 1):
        page = http.get(f"/api/v1/{path}", params={"cursor": cursor} if cursor else {}).json()
        assert len(page["items"]) == min(1, len(whole))
        seen, cursor = [*seen, *page["items"]], page["cursor"]
    assert (seen, cursor) == (whole, None)


def test_a_tree_of_the_hub_has_pages_that_its_clients_follow(
    guarded: Attacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import HfApi

    monkeypatch.setattr(hub_read, "_MAX_FILES", 1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    tree = HfApi(endpoint=guarded.endpoint, token=guarded.tokens["reader"]).list_repo_tree(
        "team/science", recursive=True
    )
    assert [entry.path for entry in tree] == [file.path for file in guarded.behind.show("team/science").files]
    first = guarded.http("reader").get("/api/models/team/science/tree/main")
    assert len(first.json()) == 1
    assert 'rel="next"' in first.headers["Link"]


# Tokens that nobody could use, and the last that can make others.


def test_a_token_that_has_expired_already_is_not_made(guarded: Attacked):
    for at in (datetime.now(UTC) - timedelta(seconds=1), datetime(2001, 1, 1, tzinfo=UTC)):
        with pytest.raises(UsageError, match="would never hold"):
            guarded.behind.tokens.create("x", ["read:*"], expires=at)
        body = {"name": "x", "scopes": ["read:*"], "expires_at": at.isoformat()}
        assert guarded.http("root").post("/api/v1/tokens", json=body).status_code == 400
    naive = {"name": "x", "scopes": ["read:*"], "expires_at": "2001-01-01T00:00:00"}
    assert guarded.http("root").post("/api/v1/tokens", json=naive).status_code == 400


@pytest.fixture(params=["sqlite", "postgres"])
def administered(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    url = f"sqlite:///{tmp_path}/catalog.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    with connect(database_url=url, storage_url=str(tmp_path / "store")) as registry:
        yield registry


def test_the_last_administrator_cannot_be_revoked_by_accident(administered: Registry):
    first, _ = administered.tokens.create("first", ["admin:*"])
    administered.tokens.create("owner", ["admin:team"])
    gone, _ = administered.tokens.create("gone", ["admin:*"])
    administered.tokens.revoke(gone.id)
    with pytest.raises(NotAllowedError, match="the last administrator") as error:
        administered.tokens.revoke(first.id)
    assert error.value.hint == "loreg token create --help"
    second, _ = administered.tokens.create("second", ["admin:*"])
    administered.tokens.revoke(first.id)
    with pytest.raises(NotAllowedError):
        administered.tokens.revoke(second.id)
    administered.tokens.revoke(first.id)  # again, which changes nothing


def test_an_administrator_cannot_lock_everybody_out_over_http(guarded: Attacked):
    http = guarded.http("root")
    ids = {token["name"]: token["id"] for token in http.get("/api/v1/tokens").json()}
    assert http.delete(f"/api/v1/tokens/{ids['root']}").status_code == 403
    assert http.delete(f"/api/v1/tokens/{ids['reader']}").status_code == 200
    assert http.get("/api/v1/tokens").status_code == 200
