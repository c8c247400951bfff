"""A server deletes for administrators of everything alone; what is gone is refused to everybody."""

from __future__ import annotations

import base64
import json

import boto3
import httpx
import pytest

from deployments import SCIENCE
from loreg.errors import NotAllowedError
from loreg.registry import Registry
from loreg.storage import BlobStore
from server.conftest import Guarded

REASON = "asked for by its author"


def stored(registry: Registry) -> set[str]:
    store = registry.context.store
    assert isinstance(store, BlobStore)
    return {blob.sha256 for blob in store.list()}


def test_copies_for_servers_and_what_was_sent_go_too(guarded: Guarded):
    http, root = guarded.http("reader"), guarded.registry("root")
    folder = http.get("/v2/repos/team/science/version/1").json()["adapterPath"]
    weights = next(f for f in guarded.behind.show("team/science").files if f.path.endswith(".safetensors"))
    writer = guarded.http("stranger")
    (ticket,) = writer.post("/api/v1/uploads", json=[{"sha256": weights.sha256, "size": weights.size}]).json()
    sent = httpx.put(ticket["url"], headers=ticket["headers"], content=(SCIENCE / weights.path).read_bytes())
    assert sent.is_success
    bucket, _, prefix = folder.removeprefix("s3://").partition("/named/")[0].partition("/")
    client = boto3.client("s3", endpoint_url=guarded.behind.settings.storage_endpoint, region_name="us-east-1")

    def keys() -> set[str]:
        listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", ())
        return {entry["Key"].removeprefix(f"{prefix}/").partition("/")[0] for entry in listed}

    assert keys() == {"named", "incoming", "sha256", "owner"}
    root.delete("team/science:v1", REASON)
    assert keys() == {"owner"}


@pytest.mark.parametrize("role", ["reader", "writer", "owner", "stranger"])
def test_only_administrators_of_everything_delete(guarded: Guarded, role: str):
    registry = guarded.registry(role)
    for dry_run in (True, False):
        with pytest.raises(NotAllowedError, match=f"{role} may not admin"):
            registry.delete("team/science:v1", REASON, dry_run=dry_run)
    assert guarded.behind.verify(read_data=True).ok
    assert guarded.behind.show("team/science:prod").version.number == 1


def test_who_may_not_read_it_is_not_told_what_it_was(guarded: Guarded):
    guarded.behind.delete("team/science:v1", REASON)
    with pytest.raises(NotAllowedError) as refused:
        guarded.registry("stranger").push(SCIENCE, "other/science")
    assert "was deleted from the registry" in refused.value.message
    assert "team" not in refused.value.message
    assert REASON not in refused.value.message
    with pytest.raises(NotAllowedError, match=REASON):
        guarded.registry("writer").push(SCIENCE, "team/other")


def test_a_client_of_the_hub_is_refused_at_each_step(guarded_folder: Guarded):
    def commit(name: str, *files: str):
        lines = [{"key": "header", "value": {"summary": "x"}}]
        for file in files:
            content = base64.b64encode((SCIENCE / file).read_bytes()).decode()
            lines.append({"key": "file", "value": {"path": file, "content": content, "encoding": "base64"}})
        url = f"/api/models/{name}/commit/main"
        return guarded_folder.http("root").post(url, content="\n".join(map(json.dumps, lines)).encode())

    weights, config = "adapter_model.safetensors", "adapter_config.json"
    assert commit("team/draft", weights).is_success  # the same weights, in an unfinished upload
    deletion = guarded_folder.registry("root").delete("team/science", REASON)
    assert deletion.pending_uploads == ("team/draft",)
    assert stored(guarded_folder.behind) == set()
    for files in ((weights,), (weights, config)):
        refused = commit("team/draft", *files)
        assert refused.status_code == 403, refused.text
        assert "was deleted from the registry" in refused.text
    assert stored(guarded_folder.behind) == set()


@pytest.mark.parametrize("role", ["reader", "writer", "owner", "stranger"])
def test_only_administrators_of_everything_see_what_is_stored(guarded_folder: Guarded, role: str):
    with pytest.raises(NotAllowedError, match=f"{role} may not admin"):
        guarded_folder.registry(role).usage()
