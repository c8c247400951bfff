"""A version is made of what its pusher sent or may read, and of exactly that."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import msgspec
import pytest
from botocore import auth
from msgspec.structs import replace
from sqlalchemy import text

from concurrency import all_at_once, eventually
from deployments import MOVIES, NEWS, SCIENCE, Deployment
from factories import change_config, copy
from live_server import live_server
from loreg.catalog import Catalog
from loreg.entities import Access, Commit
from loreg.errors import IntegrityError, NotAllowedError, NotFoundError, StaleError
from loreg.manifest import Manifest
from loreg.refs import parse_adapter_name
from loreg.registry import Registry, connect
from loreg.remote.http import Server
from loreg.remote.store import RemoteStore
from loreg.schemas import CommitRequest
from loreg.storage import Blob, PresignedUpload, digest_of
from loreg.storage.blobs import SMALL
from loreg.storage.s3 import S3Store
from server.conftest import Guarded
from services import S3Server


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def commit_of(registry: Registry, source: str, name: str) -> Commit:
    return Commit(parse_adapter_name(name), Manifest(registry.show(source).files))


def send(http: httpx.Client, ticket: dict, data: bytes) -> httpx.Response:
    plain = ticket["url"].startswith("http")
    return (httpx if plain else http).put(ticket["url"], content=data, headers=ticket["headers"])


@pytest.fixture(params=["guarded", "guarded_folder"])
def either(request: pytest.FixtureRequest) -> Guarded:
    return request.getfixturevalue(request.param)


def test_somebody_elses_private_blobs_are_not_committed_by_their_digests(either: Guarded):
    stranger = either.registry("stranger")
    with pytest.raises(NotAllowedError, match="was not sent"):
        stranger.context.backend.commit(commit_of(either.behind, "team/science", "other/mine"))
    with pytest.raises(NotFoundError):
        stranger.show("other/mine")


def test_nobody_learns_whether_a_private_blob_is_stored(either: Guarded):
    file = either.behind.show("team/science").files[0]
    specs = [{"sha256": file.sha256, "size": file.size}]
    assert len(either.http("stranger").post("/api/v1/uploads", json=specs).json()) == 1
    assert either.http("writer").post("/api/v1/uploads", json=specs).json() == []
    assert either.http("stranger").get(f"/api/v1/blobs/{file.sha256}").status_code == 404


def test_who_has_the_same_bytes_may_commit_them(either: Guarded):
    mine = either.registry("stranger").push(SCIENCE, "other/mine")
    assert mine.created
    assert mine.version.digest == either.behind.show("team/science").version.digest


def test_an_upload_proves_nothing_for_somebody_else(either: Guarded):
    sender, thief = either.registry("writer"), either.registry("stranger")
    weights = SCIENCE / "adapter_model.safetensors"
    either.http("root").post("/api/v1/tokens", json={"name": "x", "scopes": ["write:team"]})
    sender.push(MOVIES, "team/movies")
    store = sender.context.store
    assert isinstance(store, RemoteStore)
    commit = commit_of(either.behind, "team/movies", "other/mine")
    body = {"commit": commit, "uploads": store.upload_ids([file.sha256 for file in commit.manifest.files])}
    with pytest.raises(NotAllowedError, match="was not sent"):
        thief.context.backend._server.post("/api/v1/adapters/other/mine/versions", dict, body)
    assert weights.exists()


def test_a_url_for_one_blob_takes_no_other(either: Guarded):
    http = either.http("writer")
    right, wrong = b"what was announced", b"something else, ha"
    (ticket,) = http.post("/api/v1/uploads", json=[{"sha256": blob_of(right).sha256, "size": len(right)}]).json()
    assert send(http, ticket, wrong).status_code in (400, 422)
    headers = {**ticket["headers"], "x-amz-checksum-sha256": "AAAA"}
    assert send(http, {**ticket, "headers": headers}, wrong).status_code in (400, 403, 422)
    assert either.behind.context.store.size(blob_of(right).sha256) is None
    assert send(http, ticket, right).status_code in (200, 204)


@pytest.mark.parametrize("sent", [b"longer than what was announced", b"short"])
def test_a_body_of_another_size_is_refused_and_nothing_is_stored(either: Guarded, sent: bytes):
    http = either.http("writer")
    right = blob_of(b"announced bytes")
    (ticket,) = http.post("/api/v1/uploads", json=[{"sha256": right.sha256, "size": right.size}]).json()
    assert send(http, ticket, sent).status_code in (400, 422)
    assert either.behind.context.store.size(right.sha256) is None


def test_sizes_and_digests_are_those_of_the_store_not_of_the_manifest(either: Guarded):
    writer = either.registry("writer")
    files = either.behind.show("team/science").files
    for wrong, error in (
        (replace(files[0], size=files[0].size + 1), IntegrityError),
        (replace(files[0], sha256="../../../../etc/passwd"), IntegrityError),
        (replace(files[0], sha256="0" * 64), NotAllowedError),
    ):
        commit = Commit(parse_adapter_name("team/y"), Manifest((wrong, *files[1:])))
        with pytest.raises(error):
            writer.context.backend.commit(commit)
    with pytest.raises(NotFoundError):
        writer.show("team/y")


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a\\b", ".ssh/key", "model.bin", "run.py", "a//b", ""])
def test_file_names_that_leave_the_folder_or_run_are_refused(either: Guarded, path: str):
    writer = either.registry("writer")
    files = either.behind.show("team/science").files
    extra = replace(files[0], path=path)
    with pytest.raises(Exception, match=r"portable|hidden|pickle|executable|its name") as error:
        writer.context.backend.commit(Commit(parse_adapter_name("team/y"), Manifest((*files, extra))))
    assert error.value.code == "adapter-format"


def test_32_pushes_of_the_same_adapter_make_one_version(guarded: Guarded):
    def push() -> bool:
        with guarded.registry("writer") as registry:
            return registry.push(NEWS, "team/news").created

    assert all_at_once([push] * 32).count(True) == 1
    assert len(guarded.behind.versions("team/news").items) == 1


def test_of_two_who_move_an_alias_one_wins_and_the_other_is_told(guarded: Guarded):
    guarded.behind.push(MOVIES, "team/science")
    guarded.behind.push(NEWS, "team/science")

    def move(number: int) -> str:
        with guarded.registry("writer") as registry:
            try:
                return registry.tag(f"team/science:v{number}", "prod", expected=1).ref
            except StaleError as error:
                return error.message

    won, lost = sorted(all_at_once([partial(move, 2), partial(move, 3)]), key=len)
    assert won in ("team/science:v2", "team/science:v3")
    assert f"means {won[-2:]} by now, not v1" in lost
    assert guarded.behind.show("team/science:prod").version.ref == won


def test_an_upload_that_nobody_committed_is_forgotten_after_a_week(
    guarded: Guarded, postgres_and_s3: Deployment, s3: S3Server
):
    http, data = guarded.http("writer"), b"never committed"
    specs = [{"sha256": blob_of(data).sha256, "size": len(data)}]
    (ticket,) = http.post("/api/v1/uploads", json=specs).json()
    assert send(http, ticket, data).is_success
    key = urlsplit(ticket["url"]).path.removeprefix(f"/{s3.bucket}/")
    client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1")
    assert client.head_object(Bucket=s3.bucket, Key=key)["ContentLength"] == len(data)
    catalog = Catalog(guarded.behind.settings.database_url)
    with catalog.write(Access.superuser("ada")) as tx:
        tx.connection.execute(text("UPDATE uploads SET created_at = created_at - interval '8 days'"))
    catalog.close()
    with live_server(postgres_and_s3):  # sweeps when it starts, and every hour
        eventually(lambda: not client.list_objects_v2(Bucket=s3.bucket, Prefix=key)["KeyCount"])
    assert len(http.post("/api/v1/uploads", json=specs).json()) == 1


def test_a_push_asks_once_and_names_only_its_own_uploads(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    writer = guarded.registry("writer")
    sent: list[tuple[str, object]] = []
    ask = Server.send

    def send_and_tell(self: Server, method: str, path: str, **more: object) -> httpx.Response:
        if self.endpoint == writer.settings.endpoint:  # and not what another test has left running
            sent.append((path, more.get("body")))
        return ask(self, method, path, **more)

    monkeypatch.setattr(Server, "send", send_and_tell)
    for source, name in ((NEWS, "team/news"), (MOVIES, "team/movies")):
        writer.push(source, name)
    assert [path.rpartition("/")[2] for path, _ in sent] == ["uploads", "versions"] * 2
    commits = [body for _, body in sent if isinstance(body, CommitRequest)]
    assert [(len(commit.uploads), len(commit.contents)) for commit in commits] == [(1, 1)] * 2


def test_small_files_go_along_with_the_commit_as_far_as_they_fit(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = copy(NEWS, tmp_path / "many")
    for number in range(12):
        (folder / f"notes{number}.txt").write_text(f"{number:02} " * 20_000)
    sent: list[object] = []
    ask = Server.send

    def send_and_tell(self: Server, method: str, path: str, **more: object) -> httpx.Response:
        sent.append(more.get("body"))
        return ask(self, method, path, **more)

    monkeypatch.setattr(Server, "send", send_and_tell)
    writer = guarded.registry("writer")
    writer.push(folder, "team/many")
    announced, body = sent
    assert isinstance(body, CommitRequest)
    assert len(announced) == len(body.uploads)
    assert len(body.uploads) + len(body.contents) == len(writer.show("team/many").files)
    assert 300_000 < sum(len(base64.b64decode(content)) for content in body.contents) <= 512 * 1024
    guarded.registry("reader").pull("team/many", tmp_path / "back")
    assert (tmp_path / "back" / "notes11.txt").read_text() == "11 " * 20_000


def test_a_small_file_that_changed_since_its_digest_was_taken_is_not_sent(either: Guarded, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("after")
    store = either.registry("writer").context.store
    assert isinstance(store, RemoteStore)
    before = blob_of(b"befor")
    with pytest.raises(IntegrityError, match="changed"):
        store.put(before, tmp_path / "notes.txt")
    assert store.inline_contents([before.sha256]) == ()


def test_two_who_push_the_same_small_file_through_one_registry(either: Guarded):
    writer = either.registry("writer")
    results = all_at_once([partial(writer.push, NEWS, f"team/copy{number}") for number in range(4)])
    assert all(result.created for result in results)


def test_a_file_that_another_thread_announces_meanwhile_is_sent(
    either: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "weights").write_bytes(os.urandom(SMALL + 1))
    blob = digest_of(tmp_path / "weights")
    store = either.registry("writer").context.store
    assert isinstance(store, RemoteStore)
    store.reserve_uploads([blob])
    ask, was_sent = Server.post, []

    def put_meanwhile(self: Server, *request: Any) -> object:
        monkeypatch.setattr(Server, "post", ask)
        was_sent.append(store.put(blob, tmp_path / "weights"))
        return self.post(*request)

    monkeypatch.setattr(Server, "post", put_meanwhile)
    store.reserve_uploads([blob])  # as the other thread does
    assert was_sent == [True]
    assert store.upload_ids([blob.sha256])


@pytest.mark.parametrize(
    ("contents", "status", "detail"),
    [
        (["no base64 ä"], 400, "contents are not base64"),
        ([base64.b64encode(bytes(64 * 1024 + 1)).decode()], 400, "65,537 bytes"),
        ([base64.b64encode(b"something else").decode()], 403, "was not sent"),
    ],
)
def test_contents_that_are_not_the_versions_are_refused(either: Guarded, contents: list[str], status: int, detail: str):
    stranger = either.http("stranger")
    commit = commit_of(either.behind, "team/science", "other/mine")
    body = {"commit": msgspec.to_builtins(commit), "contents": contents}
    answer = stranger.post("/api/v1/adapters/other/mine/versions", json=body)
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text
    other = blob_of(b"something else")
    assert not either.behind.context.store.has(other)  # what is of no version that is asked for is not stored


def test_a_url_that_is_too_old_by_now_is_asked_for_again(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    sign, given_out = S3Store.upload_url, []

    def two_hours_ago_at_first(self: S3Store, *blob: Any) -> PresignedUpload | None:
        given_out.append(blob)
        with monkeypatch.context() as then:
            if len(given_out) == 1:
                then.setattr(auth, "get_current_datetime", lambda: datetime.now(UTC) - timedelta(hours=2))
            return sign(self, *blob)

    monkeypatch.setattr(S3Store, "upload_url", two_hours_ago_at_first)
    assert guarded.registry("writer").push(NEWS, "team/news").created
    assert len(given_out) == 2


def test_an_alias_has_an_etag(guarded: Guarded):
    http, path = guarded.http("writer"), "/api/v1/adapters/team/science/aliases/prod"
    assert http.get(path).headers["ETag"] == '"v1"'
    body = {"ref": "team/science:v1"}
    assert http.put(path, json=body, headers={"If-Match": '"v2"'}).status_code == 412
    assert http.put(path, json=body, headers={"If-None-Match": "*"}).status_code == 412
    assert http.put(path, json=body, headers={"If-Match": "v1"}).status_code == 400
    assert http.put(path, json=body, headers={"If-Match": '"v1"'}).headers["ETag"] == '"v1"'


def test_ranges_of_a_streamed_blob(guarded_folder: Guarded):
    http = guarded_folder.http("reader")
    file = guarded_folder.behind.show("team/science").files[-1]
    whole = (SCIENCE / file.path).read_bytes()
    path = f"/api/v1/blobs/{file.sha256}"
    assert http.get(path).content == whole
    for range_, status, content in (
        ("bytes=0-9", 206, whole[:10]),
        (f"bytes={len(whole) - 3}-", 206, whole[-3:]),
        (f"bytes=10-{len(whole) + 99}", 206, whole[10:]),
        (f"bytes={len(whole)}-", 416, b""),
        ("bytes=5-2", 416, b""),
        ("lines=1-2", 200, whole),
    ):
        response = http.get(path, headers={"Range": range_})
        assert (response.status_code, response.content) == (status, content)
        if status == 206:
            assert response.headers["Content-Range"].endswith(f"/{len(whole)}")


def test_clients_that_send_slowly_keep_nobody_waiting(guarded_folder: Guarded):
    where = urlsplit(guarded_folder.endpoint)
    slow = [socket.create_connection((where.hostname, where.port)) for _ in range(60)]
    for connection in slow:
        connection.sendall(b"PUT /api/v1/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    try:
        assert guarded_folder.http("reader").get("/api/v1/adapters").status_code == 200
        assert guarded_folder.registry("reader").pull("team/science", "pulled").downloaded > 0
    finally:
        for connection in slow:
            connection.close()
    assert Path("pulled/adapter_config.json").exists()


def test_the_same_place_with_and_without_the_server(postgres_and_s3: Deployment):
    deployment = postgres_and_s3
    local_registry = connect(
        database_url=deployment.database_url,
        storage_url=deployment.storage_url,
        storage_endpoint=deployment.storage_endpoint,
    )
    with local_registry, live_server(deployment) as endpoint, connect(endpoint=endpoint, author="grace") as there:
        pushed = there.push(SCIENCE, "science").version
        assert pushed.author == "grace"
        assert local_registry.show("science") == there.show("science")
        assert not local_registry.push(SCIENCE, "science").created


def test_who_may_only_read_pulls_for_a_server_all_the_same(guarded: Guarded, tmp_path: Path):
    change_config(copy(SCIENCE, tmp_path / "rs"), use_rslora=True)
    guarded.behind.push(tmp_path / "rs", "team/rs")
    pulled = guarded.registry("reader").pull("team/rs", tmp_path / "mine", profile="sglang")
    assert pulled.fitted is not None
    assert pulled.downloaded > 0
    first = guarded.registry("writer").pull("team/rs", tmp_path / "theirs", profile="sglang")
    again = guarded.registry("reader").pull("team/rs", tmp_path / "again", profile="sglang")
    assert first.fitted == again.fitted == pulled.fitted
    names = ("mine", "theirs", "again")
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in names]
    assert weights[0] == weights[1] == weights[2]
