"""``loreg events --follow``, and the same as an iterator: every event as it comes, through outages, until it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from deployments import HISTORY, NEWS, SCIENCE, Deployment, Loreg
from live_server import live_server
from loreg.errors import LoregError, UnavailableError
from loreg.registry import Registry, connect


@contextlib.contextmanager
def following(deployment: Deployment, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``loreg events --follow`` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loreg_cli.main", "events", "--follow", *arguments],
        env={**os.environ, **deployment.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_events_come_one_by_one_with_where_to_go_on(registry: Registry):
    registry.push(SCIENCE, "team/science")
    start = next(registry.follow_events(after="0")).position
    registry.push(HISTORY, "other/history")
    registry.push(NEWS, "team/news", aliases=["prod"])
    events = registry.follow_events(["team/*"], after=start)
    assert [f"{next(events).event.action}" for _ in range(2)] == ["push", "tag"]
    registry.tag("team/science", "prod")
    last = next(events)
    assert (last.event.action, last.event.ref) == ("tag", "team/science:v1")
    events.close()
    registry.yank("team/news:v1")
    assert next(registry.follow_events(after=last.position)).event.action == "yank"


def test_of_events_at_once_none_is_lost_by_who_goes_on_in_their_middle(registry: Registry):
    registry.push(NEWS, "team/news", aliases=["prod", "canary", "beta"])
    events = registry.follow_events(after="0")
    read = [next(events) for _ in range(2)]
    rest = registry.follow_events(after=read[-1].position)
    later = [next(rest).event.id for _ in range(1)]
    while later[-1] < read[0].event.id + 3:
        later.append(next(rest).event.id)
    assert {followed.event.id for followed in read} | set(later) == set(range(read[0].event.id, read[0].event.id + 4))


def test_it_ends_when_it_is_not_wanted(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.server.routes.events._HEARTBEAT", 0.05)
    asked: list[int] = []
    events = registry.follow_events(is_wanted=lambda: asked.append(1) or len(asked) < 3)
    assert list(events) == []


def test_an_outage_is_told_and_nothing_is_lost(postgres_and_s3: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.live.follow_events._FIRST_PAUSE", 0.01)
    behind = connect(**postgres_and_s3.settings)
    pauses: list[float] = []
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    endpoint = first.enter_context(live_server(postgres_and_s3))

    def come_back(error: LoregError, pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 2:
            second.enter_context(live_server(postgres_and_s3, port=int(endpoint.rpartition(":")[2])))

    with second:
        events = connect(endpoint=endpoint).follow_events(after="0", on_outage=come_back)
        behind.push(SCIENCE, "team/science")
        assert next(events).event.ref == "team/science:v1"
        first.close()
        behind.push(HISTORY, "team/history")
        assert next(events).event.ref == "team/history:v1"
        events.close()
    assert len(pauses) >= 2
    behind.close()


def test_a_registry_that_never_answered_is_an_error():
    with pytest.raises(UnavailableError):
        next(connect(endpoint="http://127.0.0.1:9").follow_events())


def test_each_line_comes_at_once(deployment: Deployment, registry: Registry):
    digest = registry.push(SCIENCE, "team/science").version.digest
    with following(deployment, "team/*", "--after", "0") as process:
        assert read_line(process).split()[2:] == ["ada", "push", "team/science:v1", f"digest={digest}"]
        registry.tag("team/science", "prod")
        assert read_line(process).split()[2:] == ["ada", "tag", "team/science:v1", "alias=prod"]


def test_a_line_of_json_says_where_to_go_on(deployment: Deployment, registry: Registry):
    registry.push(SCIENCE, "team/science")
    with following(deployment, "--after", "0", "--format", "json") as process:
        first = json.loads(read_line(process))
    assert (first["action"], first["ref"]) == ("push", "team/science:v1")
    registry.tag("team/science", "prod")
    with following(deployment, "--after", first["position"], "--format", "json") as process:
        assert json.loads(read_line(process))["detail"] == {"alias": "prod"}


def test_ctrl_c_ends_it_without_a_traceback(deployment: Deployment, registry: Registry):
    registry.push(SCIENCE, "team/science")
    with following(deployment, "--after", "0") as process:
        read_line(process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert "go on from here: --after " in stderr
    assert "Traceback" not in stderr


def test_a_reader_that_leaves_ends_it_though_nothing_happens(deployment: Deployment, registry: Registry):
    registry.push(SCIENCE, "team/science")
    deployment = replace(deployment)
    with following(deployment, "--after", "0") as process:
        read_line(process)
        assert process.stdout is not None
        process.stdout.close()
        registry.tag("team/science", "prod")  # through a server it looks when it hears of something
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("arguments", [["--follow", "--limit", "3"], ["team/*"], ["--after", "1"]])
def test_what_goes_not_together_is_refused(loreg: Loreg, arguments: list[str]):
    outcome = loreg("events", *arguments)
    assert outcome.exit_code == 2
    assert "--follow" in outcome.stderr
