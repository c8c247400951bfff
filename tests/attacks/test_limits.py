"""What strangers may take of a server: how many connections, how large a header, how long, and no body at all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from attackers import TIMEOUT, Attacked, attacked, open_socket, read_until_closed, status_of
from deployments import SCIENCE, Deployment
from loreg.registry import connect
from loreg.server import bodies, connections
from loreg.server.bodies import MAX_JSON, is_deep
from server.test_start import LOREG, free_port

SOON = 0.3  # seconds: what a limit of the tests is


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Attacked]:
    with attacked(tmp_path) as server:
        yield server


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every time limit is short."""
    for name in ("header_seconds", "rest_seconds", "answer_seconds"):
        monkeypatch.setattr(connections.LIMITS, name, SOON)
    monkeypatch.setattr(bodies, "BODY_TIMEOUT", SOON)
    monkeypatch.setattr(bodies, "STREAM_TIMEOUT", SOON)


def head(method: str, path: str, **headers: object) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


HEALTH = head("GET", "/healthz")


@pytest.mark.parametrize("sent", [b"", b"G", b"\r\n", HEALTH[:-2], b"GET /healthz HTTP/1.1\r\nX: "], ids=repr)
def test_a_header_that_does_not_come_ends_the_connection(guarded: Attacked, hurried: None, sent: bytes):
    with guarded.socket() as connection:
        connection.sendall(sent)
        assert read_until_closed(connection) == b""


@pytest.mark.parametrize("sent", [b"G", b"\r\n"], ids=repr)
def test_the_next_header_of_a_connection_has_its_time_from_the_first_byte(
    guarded: Attacked, hurried: None, sent: bytes
):
    with guarded.socket() as connection:
        connection.sendall(HEALTH)
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
        connection.sendall(sent)
        assert read_until_closed(connection) == b""


def test_a_connection_that_lies_idle_between_requests_is_kept(guarded: Attacked, hurried: None):
    with httpx.Client(base_url=guarded.endpoint) as http:
        streams = set()
        for _ in range(3):
            streams.add(http.get("/healthz").extensions["network_stream"].get_extra_info("client_addr"))
            with guarded.socket() as other:  # as long as a header has
                assert read_until_closed(other) == b""
        assert len(streams) == 1


@pytest.mark.parametrize(
    "begin",
    [b"GET /healthz HTTP/1.1\r\nX: ", b"GET /", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz?"],
    ids=["a value", "a path", "many headers", "a query"],
)
def test_an_endless_header_is_refused_when_it_is_too_large(guarded: Attacked, begin: bytes):
    piece = b"X: y\r\n" * 1000 if begin.endswith(b"\n") else b"x" * 6000
    with guarded.socket() as connection:
        connection.sendall(begin)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * 1024 * 1024:
                connection.sendall(piece)
                sent += len(piece)
        answer = read_until_closed(connection)
    assert sent < 16 * 1024 * 1024  # what fits into the buffers on the way
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


def test_a_large_header_that_comes_at_once_is_refused_and_one_that_is_not_is_answered(guarded: Attacked):
    for size, status in ((30_000, 200), (200_000, 431)):
        with guarded.socket() as connection:
            connection.sendall(head("GET", "/healthz", X="x" * size))
            assert status_of(connection) == status


@pytest.mark.parametrize("tail", [b"0\r\nX: ", b"1;"], ids=["trailers", "an extension of a chunk"])
def test_what_comes_beside_a_body_is_limited_too(guarded: Attacked, tail: bytes):
    with guarded.socket() as connection:
        authorization = f"Bearer {guarded.tokens['root']}"
        asked = head("POST", "/api/v1/jobs", Transfer_Encoding="chunked", Content_Type="application/json")
        connection.sendall(asked[:-2] + f"Authorization: {authorization}\r\n\r\n".encode() + b"1\r\n[\r\n" + tail)
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                connection.sendall(b"x" * 6000)
            pytest.fail("all of it was taken")


def test_a_thousand_requests_ahead_of_their_answers_are_not_kept(guarded: Attacked):
    with guarded.socket() as connection:
        connection.sendall(head("GET", "/api/v1/adapters") * 1000)
        answers = read_until_closed(connection)
    assert b" 429 " in answers
    assert answers.count(b"HTTP/1.1 200") <= connections.LIMITS.ahead + 1


def test_where_there_are_too_many_the_connection_that_waited_longest_goes(
    guarded: Attacked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections.LIMITS, "connections", 20)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(guarded.socket()) for _ in range(300)]
        for connection in idle:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"G")
        assert httpx.get(f"{guarded.endpoint}/api/v1/adapters").status_code == 200
        assert read_until_closed(idle[0]) == b""


def test_three_hundred_slow_connections_and_few_descriptors_keep_nobody_out(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    port = free_port()
    limited = f"import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); os.execv({str(LOREG)!r}, "
    command = [sys.executable, "-c", f"{limited}['loreg', 'serve', '--port', '{port}', '--processes', '2'])"]
    process = subprocess.Popen(command, env={**os.environ, **deployment.environment}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("running on" in line for line in process.stdout)
        threading.Thread(target=process.stdout.read, daemon=True).start()
        endpoint = f"http://127.0.0.1:{port}"
        httpx.get(f"{endpoint}/readyz", timeout=5 * TIMEOUT)  # two processes start
        with contextlib.ExitStack() as stack:
            for _ in range(600):
                stack.enter_context(open_socket(endpoint)).send(b"G")
            with connect(endpoint=endpoint) as registry:
                registry.push(SCIENCE, "team/science")
                assert registry.show("team/science").version.number == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def test_there_are_fewer_connections_than_descriptors():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connections.LIMITS.connections < soft


ROUTES = [
    ("POST", "/nothing"),
    ("POST", "/api/v1/tokens"),
    ("POST", "/api/v1/uploads"),
    ("PUT", "/api/v1/uploads/x"),
    ("POST", "/api/v1/adapters/team/science/versions"),
    ("PUT", "/api/v1/adapters/team/science/aliases/prod"),
    ("POST", "/api/v1/bases"),
    ("POST", "/api/v1/jobs"),
    ("PUT", "/api/v1/namespaces/team"),
    ("POST", "/api/repos/create"),
    ("POST", "/api/models/team/science/commit/main"),
    ("POST", "/api/models/team/science/preupload/main"),
    ("POST", "/api/models/team/science/paths-info/main"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=str)
def test_who_may_not_is_told_so_before_a_byte_of_his_body_has_come(guarded: Attacked, method: str, path: str):
    for token in ("", "lrg_" + "x" * 43, guarded.tokens["reader"]):
        if token == guarded.tokens["reader"] and path.endswith("paths-info/main"):
            continue  # that one is a question
        with guarded.socket() as connection:
            asked = head(method, path, Content_Type="application/json", Content_Length=8_000_000)
            connection.sendall(asked[:-2] + (f"Authorization: Bearer {token}\r\n\r\n" if token else "\r\n").encode())
            assert status_of(connection) in (401, 403, 404)


@pytest.mark.parametrize("path", [f"/api/v1/adapters/team/science{end}" for end in ("/versions", "/aliases/prod")])
def test_who_writes_elsewhere_is_told_so_before_a_byte_of_his_body_has_come(guarded: Attacked, path: str):
    with guarded.socket() as connection:
        asked = head("PUT" if "alias" in path else "POST", path, Content_Type="application/json", Content_Length=99)
        connection.sendall(asked[:-2] + f"Authorization: Bearer {guarded.tokens['stranger']}\r\n\r\n".encode())
        assert status_of(connection) in (403, 404)


def test_the_rest_of_a_body_that_nobody_reads_has_its_time(guarded: Attacked, hurried: None):
    with guarded.socket() as connection:
        connection.sendall(head("POST", "/nothing", Content_Length=8_000_000) + b"[" * 1_000_000)
        assert read_until_closed(connection).startswith(b"HTTP/1.1 404")


def test_a_connection_goes_on_after_a_body_that_nobody_read(guarded: Attacked):
    with guarded.socket() as connection:
        connection.sendall(head("POST", "/nothing", Content_Length=1000) + b"[" * 1000 + HEALTH)
        first = connection.recv(65536)
        while b"HTTP/1.1 200" not in first:
            piece = connection.recv(65536)
            assert piece
            first += piece


def test_json_that_does_not_come_is_given_up(guarded: Attacked, hurried: None):
    for path in ("/api/v1/jobs", "/api/repos/create", "/api/models/team/science/paths-info/main"):
        with guarded.socket() as connection:
            asked = head("POST", path, Content_Type="application/json", Content_Length=1000)
            connection.sendall(asked[:-2] + f"Authorization: Bearer {guarded.tokens['writer']}\r\n\r\n[".encode())
            assert read_until_closed(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("path", ["/api/models/team/science/commit/main", "/api/v1/uploads/{id}"])
def test_a_stream_that_stands_still_is_given_up(guarded: Attacked, hurried: None, path: str):
    made = guarded.http("writer").post("/api/v1/uploads", json=[{"sha256": "ab" * 32, "size": 1000}]).json()
    method, url = ("PUT", made[0]["url"]) if "uploads" in path else ("POST", path)
    asked = head(method, url, Content_Length=1000)[:-2]
    with guarded.socket() as connection:
        connection.sendall(asked + f"Authorization: Bearer {guarded.tokens['writer']}\r\n\r\nx".encode())
        assert read_until_closed(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(("piece", "seconds", "moves"), [(1, 50, False), (64 * 1024, 50, True), (10, 0.001, True)])
def test_a_stream_may_be_slow_and_long_if_it_moves(
    monkeypatch: pytest.MonkeyPatch, piece: int, seconds: float, moves: bool
):
    """Days, by a clock of the test."""
    now = itertools.count(step=seconds)
    monkeypatch.setattr(bodies, "monotonic", lambda: next(now))
    left = iter(range(10_000))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * piece, "more_body": next(left) < 9_999}

    async def read() -> int:
        request = Request({"type": "http", "headers": []}, receive)
        return sum([len(part) async for part in bodies.read_stream(request)])

    if moves:
        assert asyncio.run(read()) == 10_000 * piece
    else:
        with pytest.raises(HTTPException, match="408"):
            asyncio.run(read())


def test_an_answer_that_nobody_takes_is_given_up(guarded: Attacked, hurried: None, tmp_path: Path):
    folder = tmp_path / "large"
    folder.mkdir()
    for source in SCIENCE.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "notes.txt").write_bytes(os.urandom(32 * 1024 * 1024))
    guarded.behind.push(folder, "team/large")
    files = {file.path: file.sha256 for file in guarded.behind.show("team/large").files}
    with guarded.socket() as connection:
        asked = head("GET", f"/api/v1/blobs/{files['notes.txt']}")
        connection.sendall(asked[:-2] + f"Authorization: Bearer {guarded.tokens['reader']}\r\n\r\n".encode())
        with guarded.socket() as other:  # as long as an answer has to be taken
            read_until_closed(other)
        with guarded.socket() as other:
            read_until_closed(other)
        assert len(read_until_closed(connection)) < 32 * 1024 * 1024


def test_bodies_are_as_large_as_their_routes_need(guarded: Attacked):
    http = guarded.http("root")
    for path in ("/api/v1/tokens", "/api/v1/jobs", "/api/v1/uploads", "/api/v1/bases", "/api/repos/create"):
        large = {"Content-Type": "application/json"}
        assert http.post(path, content=b" " * (MAX_JSON + 1), headers=large).status_code == 413, path
        assert http.post(path, content=iter([b" " * 65536] * 17), headers=large).status_code == 413, path


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        (b"[" * 64 + b"]" * 64, False),
        (b"[" * 65 + b"]" * 65, True),
        (b"[" + b"[]," * 100_000 + b"[]]", False),
        (json.dumps(["[" * 1000]).encode(), False),
        (json.dumps(["]" * 1000]).encode()[:-1] + b"," + b"[" * 65 + b"]" * 66, True),  # text closes nothing
        (json.dumps(['"\\' * 100, "[" * 1000]).encode(), False),
        (b'["\\\\",' + b"[" * 65 + b"]" * 66, True),  # an escaped backslash escapes no quote
        (b'["\\\\\\"' + b"[" * 65 + b'"]', False),
        (b'{"a":' * 65 + b"1" + b"}" * 65, True),
        (b'"' + b"x" * 300_000 + b'"' + b"[" * 65, True),
    ],
    ids=range(10),
)
def test_how_deep_json_is(body: bytes, deep: bool):
    assert is_deep(body) is deep


MANY: dict[str, bytes] = {
    "/api/v1/jobs": b'{"kind": "merge", "request": {"sources": [' + b"[]," * 300_000 + b"1]}}",
    "/api/v1/uploads": b"[" + b"1," * 90_000 + b"1]",
    "/api/v1/adapters/team/science/versions/v1/metrics": b"[" + b"{}," * 40_000 + b"1]",
    "/api/v1/adapters/team/science/versions": b'{"commit": {"manifest": {"files": [' + b"1," * 200_000 + b"1]}}}",
    "/api/repos/create": b'{"name": [' + b"[]," * 300_000 + b"1]}",
}


@pytest.mark.parametrize("path", MANY)
def test_values_without_number_are_refused_before_something_is_made_of_each(
    guarded: Attacked, monkeypatch: pytest.MonkeyPatch, path: str
):
    monkeypatch.setattr(bodies, "parse_json", lambda body: pytest.fail("it was parsed"))
    json_ = {"Content-Type": "application/json"}
    assert guarded.http("root").post(path, content=MANY[path], headers=json_).status_code == 400


def test_a_manifest_of_ten_thousand_files_is_no_such_body(guarded: Attacked):
    files = [{"path": f"f{number}", "sha256": "0" * 64, "size": 1} for number in range(10_000)]
    commit = {"adapter": {"namespace": "team", "name": "science"}, "manifest": {"files": files}}
    path = "/api/v1/adapters/team/science/versions"
    answer = guarded.http("root").post(path, json={"commit": commit, "uploads": ["x" * 32] * 10_000})
    assert "was not sent" in answer.json()["detail"]


def test_deep_json_is_refused_whatever_it_is_hidden_in(guarded: Attacked):
    deep = b'["' + b"]" * 2000 + b'",' + b"[" * 1000 + b"]" * 1001
    wide = ("[" + '"嬢",' + "[" * 70 + "]" * 70 + "]").encode("utf-16")
    for body in (deep, wide):
        answer = guarded.http("root").post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400


def test_a_connection_that_is_being_answered_is_never_the_one_that_goes(
    guarded: Attacked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections.LIMITS, "connections", 5)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(guarded.socket())
        expected = {"Content_Length": 2, "Expect": "100-continue"}
        asked = head("POST", "/api/v1/jobs", Content_Type="application/json", **expected)
        busy.sendall(asked[:-2] + f"Authorization: Bearer {guarded.tokens['writer']}\r\n\r\n".encode())
        assert status_of(busy) == 100  # it is being answered
        assert busy.recv(2) == b"\r\n"
        for _ in range(50):
            stack.enter_context(guarded.socket())
        assert httpx.get(f"{guarded.endpoint}/healthz").status_code == 200
        busy.sendall(b"[]")
        assert status_of(busy) == 400


def test_a_body_in_pieces_and_one_that_is_asked_for_first_are_answered(guarded: Attacked):
    """As slow lines and curl send them."""
    body = json.dumps([{"sha256": "ab" * 32, "size": 1}]).encode()
    with guarded.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = head(
            "POST", "/api/v1/uploads", Content_Type="application/json", Content_Length=len(body), Expect="100-continue"
        )
        asked = asked[:-2] + f"Authorization: Bearer {guarded.tokens['writer']}\r\n\r\n".encode()
        for byte in asked:
            connection.sendall(bytes([byte]))
        assert status_of(connection) == 100
        for byte in body:
            connection.sendall(bytes([byte]))
        assert connection.recv(4)
        assert b"200 OK" in connection.recv(65536)
