"""What mends a broken registry beside repair: the next command, and the owner's mark that another registry left."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import boto3
import pytest

from broken_registries import ADAPTERS, FOLDER, NAMES, install, verdict_on
from deployments import HISTORY, Deployment, Outcome, command_line
from loreg.registry import connect
from loreg.storage import BlobStore, put_bytes

WITH_NEXT = [name for name in NAMES if verdict_on(name).get("next")]
WITH_OWNER = [name for name in NAMES if verdict_on(name).get("owner")]


def owner_check(outcome: Outcome) -> dict[str, str]:
    """What doctor says of the store's owner."""
    return next(check for check in json.loads(outcome.stdout) if check["name"] == "store owner")


def test_some_registries_are_of_each_kind():
    assert {"older-catalog", "wal-lost"} <= set(WITH_NEXT)
    assert WITH_OWNER == ["wrong-owner"]
    assert "stale-draft" in NAMES


@pytest.mark.parametrize("name", WITH_NEXT)
def test_after_the_next_commands_everything_is_as_it_was(
    name: str, local_deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(name, local_deployment, tmp_path)
    loreg = command_line(local_deployment.environment)
    monkeypatch.chdir(FOLDER)
    for command in verdict_on(name)["next"]:
        assert loreg(*command).exit_code == 0
    report = json.loads(loreg("verify", "--read-data", "--format", "json").stdout)
    assert (report["ok"], report["orphan_count"]) == (True, 0)
    pulled = tmp_path / "pulled"
    assert loreg("pull", "team/news:v2", pulled).exit_code == 0
    weights = "adapter_model.safetensors"
    assert (pulled / weights).read_bytes() == (ADAPTERS / "second" / weights).read_bytes()


@pytest.mark.parametrize("name", WITH_OWNER)
def test_a_store_that_is_anothers_is_named_by_doctor_with_what_makes_it_ones_own(
    name: str, local_deployment: Deployment, tmp_path: Path
):
    install(name, local_deployment, tmp_path)
    loreg = command_line(local_deployment.environment)
    assert loreg("verify").exit_code == 0  # nothing is lost
    assert loreg("push", HISTORY, "team/history").exit_code == 7
    outcome = loreg("doctor", "--format", "json")
    check = owner_check(outcome)
    assert (outcome.exit_code, check["ok"]) == (1, False)
    assert verdict_on(name)["owner"][:8] in check["value"]
    remedy = shlex.split(check["hint"].partition("gone for good: ")[2])
    if local_deployment.storage_endpoint:  # aws s3 rm s3://bucket/key --endpoint-url URL
        assert remedy[:3] == ["aws", "s3", "rm"]
        assert remedy[4:] == ["--endpoint-url", local_deployment.storage_endpoint]
        bucket, _, key = remedy[3].removeprefix("s3://").partition("/")
        client = boto3.client("s3", endpoint_url=remedy[5], region_name="us-east-1")
        assert client.head_object(Bucket=bucket, Key=key)
        client.delete_object(Bucket=bucket, Key=key)
    else:
        subprocess.run(remedy, check=True)
    assert "not marked yet" in owner_check(loreg("doctor", "--format", "json"))["value"]
    assert loreg("push", HISTORY, "team/history").exit_code == 0
    assert owner_check(loreg("doctor", "--format", "json"))["value"] == "this registry"
    assert loreg("verify", "--read-data").exit_code == 0


def test_doctor_names_the_registry_and_the_garbage_that_waits(local_deployment: Deployment):
    loreg = command_line(local_deployment.environment)
    with connect(**local_deployment.settings, author="ada") as registry:
        registry.push(HISTORY, "team/history")
        store = registry.context.store
        assert isinstance(store, BlobStore)
        before = {check.name: check.value for check in registry.doctor()}
        assert before["garbage"] == "none is marked"
        assert before["registry"] == store.owner()
        put_bytes(store, b"x" * 2000)
        registry.gc(grace="24h")
    after = {check["name"]: check["value"] for check in json.loads(loreg("doctor", "--format", "json").stdout)}
    assert after["garbage"] == "1 blobs of 2,000 bytes wait for loreg gc to remove them"
