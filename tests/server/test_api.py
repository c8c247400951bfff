"""What holds for every answer: problems, limits, headers, and an API that is what its description says."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from deployments import DORA
from server.conftest import Guarded


def test_errors_are_problem_details(guarded_folder: Guarded):
    response = guarded_folder.http("reader").get("/api/v1/adapters/team/nothing/versions/latest")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:loreg:error:not-found",
        "title": "not found",
        "status": 404,
        "detail": "there is no adapter 'team/nothing'",
        "code": "not-found",
        "hint": "loreg ls",
        "suggestion": [],
    }


def test_bodies_have_a_largest_size_and_depth(guarded_folder: Guarded):
    http = guarded_folder.http("root")
    as_json = {"Content-Type": "application/json"}
    assert http.post("/api/v1/tokens", content=b" " * (9 * 1024 * 1024), headers=as_json).status_code == 413
    deep = http.post("/api/v1/tokens", content=b"[" * 10_000, headers=as_json)
    assert (deep.status_code, deep.json()["detail"]) == (400, "JSON may be nested 64 deep")
    assert http.get("/api/v1/search", params={"limit": 1001}).status_code == 400
    assert http.get("/api/v1/search", params={"text": "x" * 513}).status_code == 400


def test_every_answer_has_an_id_and_headers_that_browsers_heed(guarded_folder: Guarded):
    http = guarded_folder.http("reader")
    response = http.get("/api/v1/adapters", headers={"X-Request-Id": "mine-1"})
    assert response.headers["X-Request-Id"] == "mine-1"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in http.get("/healthz", headers={"Origin": "http://evil"}).headers
    assert http.get("/healthz", headers={"X-Request-Id": "a\tb"}).headers["X-Request-Id"] != "a\tb"


def test_a_request_is_a_line_of_json_and_a_measurement(guarded_folder: Guarded, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="loreg.server"):
        guarded_folder.http("writer").get("/api/v1/adapters/team/science/versions/v1", headers={"X-Request-Id": "r1"})
    line = next(line for record in caplog.records if (line := json.loads(record.message))["request"] == "r1")
    assert (line["method"], line["status"], line["author"]) == ("GET", 200, "writer")
    assert line["path"] == "/api/v1/adapters/team/science/versions/v1"
    metrics = guarded_folder.http("reader").get("/metrics").text
    route = "/api/v1/adapters/{namespace}/{name}/versions/{selector}"
    assert f'loreg_requests_total{{method="GET",route="{route}",status="200"}}' in metrics


def test_a_store_that_is_down_is_503_and_not_ready(guarded_folder: Guarded):
    assert guarded_folder.http("anonymous").get("/readyz").json()["status"] == "ok"
    folder = guarded_folder.behind.context.store.folder
    folder.rename(folder.with_name("gone"))
    folder.write_text("no folder")
    response = guarded_folder.http("anonymous").get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "Retry-After" in response.headers


def test_the_description_is_sound(guarded_folder: Guarded):
    document = guarded_folder.http("anonymous").get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operations = [
        (method, operation) for methods in document["paths"].values() for method, operation in methods.items()
    ]
    changing = [operation["responses"] for method, operation in operations if method in ("post", "put", "delete")]
    assert len(changing) > 10
    assert all("409" in responses for responses in changing)  # a registry that was moved changes no more
    assert document["components"]["schemas"]["ProblemDetails"]["required"]


def test_the_description_is_true(guarded_folder: Guarded):
    """Requests made from the description, right and wrong ones, get what it says, and never a 500."""
    schema = schemathesis.openapi.from_url(f"{guarded_folder.endpoint}/openapi.json")
    for operation in schema.get_all_operations():
        if operation.ok().path.endswith("/stream"):  # it does not end: tests/live/test_event_stream.py reads it
            continue
        _try(operation.ok(), guarded_folder.tokens["root"])


def _try(operation: schemathesis.APIOperation, token: str) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def run(case: schemathesis.Case) -> None:
        # Refs, metrics and labels have grammars that no schema tells: what breaks one is a 400, as described.
        case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=[positive_data_acceptance])

    run()


def test_a_version_is_checked_by_the_server_and_no_path_of_its_own_is_read(guarded_folder: Guarded, tmp_path: Path):
    guarded_folder.behind.push(DORA, "team/dora")
    http, path = guarded_folder.http("reader"), "/api/v1/adapters/team/dora/versions/latest/check"
    report = http.get(path, params={"profile": ["vllm", "sglang"]}).json()
    assert [finding["code"] for finding in report["findings"]] == ["VL002", "SG004"]
    local_report = guarded_folder.behind.check(["team/dora"], profiles=["vllm", "sglang"], header_only=True)[0]
    assert [finding["message"] for finding in report["findings"]] == [
        finding.message for finding in local_report.findings
    ]
    for wrong in ({"profile": "./mine.toml"}, {"profile": "/etc/x.toml"}, {"base": "/etc"}, {"base": "./model"}):
        assert http.get(path, params=wrong).status_code == 400
