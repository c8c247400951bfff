"""What is said of a stored object is the server's, and nobody learns by sending or asking what others have stored."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest

from deployments import MOVIES, NEWS, SCIENCE, Deployment
from factories import copy
from loreg.entities import Commit
from loreg.errors import IntegrityError, UnavailableError
from loreg.manifest import File, Manifest
from loreg.refs import parse_adapter_name
from loreg.remote.connections import Connections
from loreg.remote.http import Server
from loreg.remote.store import RemoteStore
from loreg.storage import Blob, open_store
from loreg.storage.blobs import key_of
from server.conftest import Guarded
from services import S3Server

FOREIGN = {
    "Content-Encoding": "gzip",
    "Cache-Control": "max-age=31536000",
    "Content-Disposition": "inline",
    "Content-Language": "x-evil",
    "Expires": "Thu, 01 Dec 2099 16:00:00 GMT",
}


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def announced(http: httpx.Client, data: bytes) -> dict[str, Any]:
    (grant,) = http.post("/api/v1/uploads", json=[{"sha256": blob_of(data).sha256, "size": len(data)}]).json()
    return dict(grant)


def commit(http: httpx.Client, name: str, files: dict[str, bytes], uploads: list[str]) -> httpx.Response:
    manifest = [{"path": path, "sha256": blob_of(data).sha256, "size": len(data)} for path, data in files.items()]
    namespace, _, short = name.partition("/")
    asked = {"adapter": {"namespace": namespace, "name": short}, "manifest": {"files": manifest}}
    return http.post(f"/api/v1/adapters/{name}/versions", json={"commit": asked, "uploads": uploads})


@pytest.fixture(params=["guarded", "guarded_folder"])
def either(request: pytest.FixtureRequest) -> Guarded:
    return request.getfixturevalue(request.param)


@pytest.fixture
def objects(postgres_and_s3: Deployment, s3: S3Server) -> Objects:
    return Objects(postgres_and_s3, s3)


class Objects:
    """The objects of the store, as S3 tells of them."""

    def __init__(self, deployment: Deployment, s3: S3Server) -> None:
        self.bucket = s3.bucket
        self.prefix = deployment.storage_url.removeprefix(f"s3://{s3.bucket}/")
        self.client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1")

    def head(self, data: bytes) -> dict[str, Any]:
        return dict(self.client.head_object(Bucket=self.bucket, Key=f"{self.prefix}/{key_of(blob_of(data).sha256)}"))

    def incoming(self) -> list[str]:
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/incoming/")
        return [entry["Key"] for entry in page.get("Contents", [])]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_no_header_of_an_upload_stays_on_the_object(guarded: Guarded, objects: Objects, tmp_path: Path):
    http, files = guarded.http("writer"), files_of(NEWS)
    grants = {path: announced(http, data) for path, data in files.items()}
    for path, grant in grants.items():
        headers = {**grant["headers"], **FOREIGN}
        assert httpx.put(grant["url"], content=files[path], headers=headers).is_success
    assert commit(http, "team/news", files, [grant["id"] for grant in grants.values()]).status_code == 201
    for data in files.values():
        head = objects.head(data)
        assert head["ContentType"] == "application/octet-stream"
        assert head["Metadata"] == {}
        header_names = ("ContentEncoding", "CacheControl", "ContentDisposition", "ContentLanguage", "ExpiresString")
        assert [head.get(name) for name in header_names] == [None] * len(header_names)
    guarded.registry("reader").pull("team/news", tmp_path / "out")
    assert files_of(tmp_path / "out") == files


@pytest.mark.parametrize(
    "changed",
    [
        {"Content-Type": "text/html"},
        {"If-None-Match": None},
        {"x-amz-meta-x": "y"},
        {"x-amz-acl": "public-read"},
        {"x-amz-checksum-sha256": None},
        {"x-amz-storage-class": "GLACIER"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_the_signature_covers_cannot_be_left_out_or_changed(guarded: Guarded, changed: dict[str, str | None]):
    grant = announced(guarded.http("writer"), b"some bytes")
    headers = {name: value for name, value in {**grant["headers"], **changed}.items() if value is not None}
    assert httpx.put(grant["url"], content=b"some bytes", headers=headers).status_code in (400, 403)


def test_an_upload_is_sent_once(guarded: Guarded):
    grant = announced(guarded.http("writer"), b"some bytes")
    first, again = (httpx.put(grant["url"], content=b"some bytes", headers=grant["headers"]) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 412)


def test_a_stranger_who_sends_the_same_file_changes_nothing_for_others(
    guarded: Guarded, objects: Objects, tmp_path: Path
):
    """As the weights' name says: whoever has the same public file is given an upload, and sends it as gzip."""
    files = files_of(SCIENCE)
    before = {path: objects.head(data) for path, data in files.items()}
    stranger = guarded.http("stranger")
    grants = {path: announced(stranger, data) for path, data in files.items()}
    for path, grant in grants.items():
        answer = httpx.put(grant["url"], content=files[path], headers={**grant["headers"], **FOREIGN})
        assert answer.is_success
    assert commit(stranger, "other/mine", files, [grant["id"] for grant in grants.values()]).status_code == 201
    for path, data in files.items():
        after = objects.head(data)
        for field in ("LastModified", "ETag", "ContentType", "Metadata"):
            assert after[field] == before[path][field]
        assert "ContentEncoding" not in after
    guarded.registry("reader").pull("team/science", tmp_path / "out")
    assert files_of(tmp_path / "out") == files


def test_an_object_that_was_stored_with_other_headers_before_is_read_all_the_same(
    guarded: Guarded, objects: Objects, tmp_path: Path
):
    for data in files_of(SCIENCE).values():
        objects.client.put_object(
            Bucket=objects.bucket,
            Key=f"{objects.prefix}/{key_of(blob_of(data).sha256)}",
            Body=data,
            ContentType="text/html",
            ContentEncoding="gzip",
            ContentDisposition="inline",
        )
    guarded.registry("reader").pull("team/science", tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(SCIENCE)
    http = guarded.http("reader")
    file = guarded.behind.show("team/science").files[0]
    for path in (f"/api/v1/blobs/{file.sha256}", f"/team/science/resolve/main/{file.path}"):
        with httpx.stream("GET", http.get(path).headers["Location"]) as answer:
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["Content-Disposition"] == "attachment"
            assert answer.headers.get("Content-Encoding", "identity") == "identity"


def test_what_a_server_streams_is_shown_by_no_browser(guarded_folder: Guarded):
    file = guarded_folder.behind.show("team/science").files[0]
    for path in (f"/api/v1/blobs/{file.sha256}", f"/team/science/resolve/main/{file.path}"):
        answer = guarded_folder.http("reader").get(path)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_was_committed_lies_nowhere_else(guarded: Guarded, objects: Objects):
    assert guarded.registry("writer").push(MOVIES, "team/movies").created
    assert objects.incoming() == []


def test_a_commit_that_was_refused_can_be_asked_again(guarded: Guarded, objects: Objects):
    """What was sent is kept apart until a commit has it: one whose answer was lost is asked again and succeeds."""
    http, files = guarded.http("writer"), files_of(MOVIES)
    grants = {path: announced(http, data) for path, data in files.items()}
    for path, grant in grants.items():
        assert httpx.put(grant["url"], content=files[path], headers=grant["headers"]).is_success
    ids = [grant["id"] for grant in grants.values()]
    without = {path: data for path, data in files.items() if path != "adapter_model.safetensors"}
    assert commit(http, "team/movies", {**without, "evil.bin": files["adapter_model.safetensors"]}, ids).is_error
    assert commit(http, "team/movies", files, ids).status_code == 201
    assert objects.incoming() == []


# ---- who may not read learns nothing


def kinds_of_answers(http: httpx.Client, data: bytes) -> list[Any]:
    """All that the routes say of bytes that may not be read, without what is drawn by chance."""
    blob = blob_of(data)
    grant = announced(http, data)
    where = urlsplit(grant["url"]).path.replace(grant["id"], "ID").replace(blob.sha256, "DIGEST")
    headers = {name: "DIGEST" if name == "x-amz-checksum-sha256" else value for name, value in grant["headers"].items()}
    file = File("adapter_model.safetensors", blob.sha256, blob.size)
    answers = [
        http.get(f"/api/v1/blobs/{blob.sha256}"),
        http.head(f"/api/v1/blobs/{blob.sha256}"),
        http.get(f"/api/v1/blobs/{blob.sha256}", headers={"Range": "bytes=0-1"}),
        http.get(f"/api/v1/files/{blob.sha256}"),
        http.get(f"/api/v1/contents/{blob.sha256}"),
        commit(http, "other/mine", {"adapter_config.json": b"{}", file.path: data}, []),
        commit(http, "other/mine", {"adapter_config.json": b"{}", file.path: data}, [grant["id"]]),
        http.post(
            "/api/v1/bases",
            json={"base": {"digest": blob.sha256, "names": ["x"], "tensors": 1, "parameters": 1}, "uploads": []},
        ),
        http.post("/api/models/other/mine/preupload/main", json={"files": [{"path": "README.md", "size": blob.size}]}),
    ]
    if grant["url"].startswith("/"):
        answers.append(http.put(grant["url"], content=b"other bytes"))
    answers = [
        (answer.status_code, sorted(answer.headers.keys()), re.sub("[0-9a-f]{12}", "DIGEST", answer.text))
        for answer in answers
    ]
    return [where, sorted(headers.items()), *answers]


@pytest.mark.parametrize("role", ["stranger"])
def test_nothing_answers_differently_for_bytes_that_are_stored_and_bytes_that_are_not(either: Guarded, role: str):
    stored = (SCIENCE / "adapter_model.safetensors").read_bytes()
    absent = os.urandom(len(stored))
    http = either.http(role)
    assert kinds_of_answers(http, stored) == kinds_of_answers(http, absent)


def test_nobody_learns_that_somebody_else_is_sending_the_same(either: Guarded):
    data, other = os.urandom(1000), os.urandom(1000)
    announced(either.http("writer"), data)
    http = either.http("stranger")
    assert kinds_of_answers(http, data) == kinds_of_answers(http, other)


def test_who_sends_the_same_bytes_is_answered_the_same_whether_they_were_there(either: Guarded):
    """Whole files are sent, of which one is stored for another team; the answers tell of no difference."""
    http = either.http("stranger")

    def sent(data: bytes) -> tuple[int, int, str]:
        grant = announced(http, data)
        plain = grant["url"].startswith("http")
        put = (httpx if plain else http).put(grant["url"], content=data, headers=grant["headers"])
        done = commit(http, "other/mine", {"adapter_config.json": b"{}", "README.md": data}, [grant["id"]])
        return put.status_code, done.status_code, done.text.replace(blob_of(data).sha256[:12], "DIGEST")

    stored = (SCIENCE / "adapter_model.safetensors").read_bytes()
    assert sent(stored) == sent(os.urandom(len(stored)))


# ---- downloads


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server of an attacker, which gives this answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # who asked has had enough

        def log_message(self, *line: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


BOMB = gzip.compress(b"\0" * 20_000_000)


def test_a_download_is_not_decoded():
    with answering(200, {"Content-Encoding": "gzip"}, BOMB) as url:
        fetcher = Connections()
        assert fetcher.send("GET", url, {}, max_bytes=len(BOMB)).data == BOMB
        fetcher.close()
        store = RemoteStore(Server(url, "", "ada"))
        assert store.read_part("0" * 64, 0, len(BOMB)) == BOMB
        store.close()


def test_a_download_stops_at_the_promised_size(tmp_path: Path):
    with answering(200, {}, b"x" * 30_000_000) as url:
        fetcher = Connections()
        assert len(fetcher.send("GET", url, {}, max_bytes=100).data) == 101
        fetcher.close()
        store = RemoteStore(Server(url, "", "ada"))
        with pytest.raises(UnavailableError, match="more of blob"):
            store.read_part("0" * 64, 0, 100)
        with pytest.raises(IntegrityError):
            store.read("0" * 64, 100)
        with pytest.raises(UnavailableError, match="more of blob"):
            store.get(Blob("0" * 64, 100), tmp_path / "out")
        store.close()
    assert not (tmp_path / "out").exists()


def test_a_download_straight_from_s3_stops_at_the_promised_size(s3: S3Server, tmp_path: Path):
    store = open_store(f"s3://{s3.bucket}/promised", s3.endpoint)
    data = b"x" * 30_000_000
    key = f"promised/{key_of('0' * 64)}"
    store._client.put_object(Bucket=s3.bucket, Key=key, Body=data, ContentEncoding="gzip")
    counted: list[int] = []
    with pytest.raises(IntegrityError, match="found over 100 bytes"):
        store.get(Blob("0" * 64, 100), tmp_path / "out", counted.append)
    assert sum(counted) < 2_000_000
    with pytest.raises(IntegrityError):
        store.read("0" * 64, 100)


def test_the_error_of_a_server_is_told_though_little_was_asked_for():
    body = json.dumps({"code": "not-found", "detail": "there is no blob", "hint": "loreg ls"}).encode()
    with answering(404, {"Content-Type": "application/problem+json"}, body) as url:
        store = RemoteStore(Server(url, "", "ada"))
        with pytest.raises(Exception, match="there is no blob"):
            store.read_part("0" * 64, 0, 3)
        store.close()


def test_a_manifest_that_lies_about_a_size_reads_no_more_than_it_says(either: Guarded, tmp_path: Path):
    """A configuration is read whole: only as much of it as the manifest promised."""
    writer = either.registry("writer")
    folder = copy(SCIENCE, tmp_path / "mine")
    writer.push(folder, "team/mine")
    files = [
        File(file.path, file.sha256, 2 if file.path == "adapter_config.json" else file.size)
        for file in either.behind.show("team/mine").files
    ]
    with pytest.raises(IntegrityError, match="is to be 2 bytes"):
        writer.context.backend.commit(Commit(parse_adapter_name("team/other"), Manifest(tuple(files))))
