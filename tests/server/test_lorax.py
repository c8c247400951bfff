"""LoRAX is told where a version lies, and finds it there under its files' names."""

from __future__ import annotations

import boto3

from deployments import SCIENCE
from server.conftest import Guarded


def test_a_version_is_a_folder_in_s3(guarded: Guarded):
    http = guarded.http("reader")
    by_number = http.get("/v2/repos/team/science/version/1").json()
    assert by_number == http.get("/v2/repos/team/science/version/prod").json()
    assert by_number["status"] == "completed"
    bucket, _, folder = by_number["adapterPath"].removeprefix("s3://").partition("/")
    endpoint = guarded.behind.settings.storage_endpoint
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    files = {
        entry["Key"].removeprefix(f"{folder}/"): client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in client.list_objects_v2(Bucket=bucket, Prefix=folder)["Contents"]
    }
    assert files == {path.name: path.read_bytes() for path in SCIENCE.iterdir()}


def test_what_may_not_be_read_is_not_there(guarded: Guarded):
    assert guarded.http("stranger").get("/v2/repos/team/science/version/1").status_code == 404


def test_a_folder_is_no_place_for_lorax(guarded_folder: Guarded):
    response = guarded_folder.http("reader").get("/v2/repos/team/science/version/1")
    assert (response.status_code, response.json()["code"]) == (403, "not-allowed")
