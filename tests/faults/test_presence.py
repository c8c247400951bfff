"""Whether a blob is there is asked of the store each time, and an upload is offered for whatever it lacks."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx
import pytest

from deployments import NEWS, SCIENCE, Deployment
from loreg.errors import NotAllowedError, NotFoundError
from loreg.registry import Registry
from loreg.storage import Blob
from server.conftest import Guarded
from stored_bytes import DAMAGES, Stored


@pytest.fixture(params=["guarded", "guarded_folder"])
def either(request: pytest.FixtureRequest) -> Guarded:
    return request.getfixturevalue(request.param)


@pytest.fixture
def stored(either: Guarded) -> Stored:
    settings = either.behind.settings
    return Stored(Deployment("", settings.storage_url, settings.storage_endpoint))


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_upload_is_offered_for_what_the_store_lacks_and_for_nothing_else(
    either: Guarded, stored: Stored, damage: str
):
    http = either.http("writer")
    files = either.behind.show("team/science").files
    wanted = [{"sha256": file.sha256, "size": file.size} for file in files]
    assert http.post("/api/v1/uploads", json=wanted).json() == []
    for file in files:
        stored.change(file.sha256, DAMAGES[damage])
        assert [grant["sha256"] for grant in http.post("/api/v1/uploads", json=wanted).json()] == [file.sha256]
        either.registry("writer").push(SCIENCE, "team/science")
    assert http.post("/api/v1/uploads", json=wanted).json() == []


def test_what_was_uploaded_and_lost_before_the_commit_is_not_called_present(either: Guarded, stored: Stored):
    """A folder's server remembers that it received the bytes, S3 that it took them: the commit asks for them."""
    writer = either.registry("writer")
    store, send = writer.context.store, writer.context.store.put
    lost: list[str] = []

    def put_and_lose(blob: Blob, path: Path, *more: object) -> bool:
        sent = send(blob, path, *more)
        if path.name == "adapter_model.safetensors" and not lost:
            if stored.is_on_s3:
                stored.lose_upload(*store.upload_ids([blob.sha256]))
            else:
                stored.change(blob.sha256, DAMAGES["lost"])
            lost.append(blob.sha256)
        return sent

    store.put = put_and_lose
    if stored.is_on_s3:
        with pytest.raises(NotAllowedError, match="was not sent") as error:
            writer.push(NEWS, "team/news")
        assert error.value.hint == "push again"
        with pytest.raises(NotFoundError):
            writer.show("team/news")
    assert writer.push(NEWS, "team/news").created  # on a folder it is sent again by the same push
    assert lost
    writer.pull("team/news", "out")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_commit_of_the_hub_that_carries_damaged_files_along_is_refused_until_they_are_sent_again(
    either: Guarded, stored: Stored, damage: str
):
    http = either.http("writer")
    weights = next(file for file in either.behind.show("team/science").files if file.path.endswith(".safetensors"))

    def upload(path: str, content: bytes) -> httpx.Response:
        lines = [
            {"key": "header", "value": {"summary": "a card"}},
            {
                "key": "file",
                "value": {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"},
            },
        ]
        return http.post("/api/models/team/science/commit/main", content="\n".join(map(json.dumps, lines)))

    stored.change(weights.sha256, DAMAGES[damage])
    refused = upload("README.md", b"# new")
    assert refused.status_code == (409 if damage == "lost" else 422)
    assert "push again" in refused.json()["error"]
    assert upload(weights.path, (SCIENCE / weights.path).read_bytes()).is_success
    assert upload("README.md", b"# new").is_success
    either.registry("reader").pull("team/science", "out")
    assert Path("out/README.md").read_text() == "# new"


def test_a_lost_blob_is_named_by_who_pulls_it(either: Guarded, stored: Stored):
    file = either.behind.show("team/science").files[0]
    stored.change(file.sha256, DAMAGES["lost"])
    with pytest.raises(NotFoundError, match=f"blob {file.sha256[:12]} is not in") as error:
        either.registry("reader").pull("team/science", "out")
    assert "push the adapter again" in error.value.hint


def test_a_lost_base_is_asked_for_by_a_commit(registry: Registry, deployment: Deployment, minilm: Path):
    known = registry.bases.add(minilm).base
    registry.push(NEWS, "t/one", base=known.digest)
    Stored(deployment).change(known.digest, DAMAGES["lost"])
    with pytest.raises(NotFoundError):
        registry.push(NEWS, "t/two", base=known.digest)
    with pytest.raises(NotFoundError):
        registry.show("t/two")
    assert registry.push(NEWS, "t/two", base=str(minilm)).created
