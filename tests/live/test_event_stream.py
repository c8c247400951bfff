"""Events reach whoever listens as they are committed: each once, and nobody an event that he may not read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import psycopg
import pytest

from concurrency import eventually
from deployments import HISTORY, NEWS, SCIENCE, Deployment
from live_server import live_server
from loreg.backend import EventStream
from loreg.entities import Event
from loreg.errors import LoregError, UnavailableError, UsageError
from loreg.refs import parse_adapter_pattern
from loreg.registry import Registry, connect
from loreg.server.event_hub import EventHub
from loreg.server.routes import events as routes
from server.conftest import Guarded


def stream(registry: Registry, *patterns: str, position: str = "") -> EventStream:
    return registry.context.backend.stream_events(tuple(map(parse_adapter_pattern, patterns)), position)


def read_until(events: EventStream, action: str, ref: str) -> list[Event]:
    """Read up to that event; a minute is too long."""
    seen: list[Event] = []
    eventually(lambda: seen.extend(events.read(0.5)) or any((e.action, e.ref) == (action, ref) for e in seen))
    return seen


def lines_of(events: list[Event]) -> list[str]:
    return [f"{event.action} {event.ref}" for event in events]


def test_what_is_done_after_the_first_reading_is_told(registry: Registry):
    registry.push(SCIENCE, "team/science")
    events = stream(registry)
    assert events.read(0) == ()
    registry.push(HISTORY, "team/history", aliases=["prod"])
    registry.tag("team/science", "prod")
    assert lines_of(read_until(events, "tag", "team/science:v1")) == [
        "push team/history:v1",
        "tag team/history:v1",
        "tag team/science:v1",
    ]
    events.close()


def test_a_stream_goes_on_from_a_position(registry: Registry):
    registry.push(SCIENCE, "team/science")
    first = stream(registry)
    first.read(0)
    first.close()
    registry.push(HISTORY, "team/history")
    registry.push(NEWS, "team/news")
    second = stream(registry, position=first.position)
    assert lines_of(read_until(second, "push", "team/news:v1")) == ["push team/history:v1", "push team/news:v1"]
    third = stream(registry, position=second.position)
    registry.yank("team/news:v1")
    assert lines_of(read_until(third, "yank", "team/news:v1")) == ["yank team/news:v1"]
    second.close()
    third.close()


def test_patterns_say_which_adapters(registry: Registry):
    events = stream(registry, "team/*", "other/science")
    events.read(0)
    for name in ("other/news", "team/news", "other/science", "team/last"):
        registry.push(NEWS, name)
    assert lines_of(read_until(events, "push", "team/last:v1")) == [
        "push team/news:v1",
        "push other/science:v1",
        "push team/last:v1",
    ]
    events.close()


def test_who_names_many_adapters_is_told_of_theirs_at_least(registry: Registry):
    events = stream(registry, *(f"team/a{number}" for number in range(30)))
    events.read(0)
    registry.push(NEWS, "team/a29")
    read_until(events, "push", "team/a29:v1")
    events.close()


def test_a_wrong_position_is_refused(registry: Registry):
    with pytest.raises(UsageError, match="no position"):
        stream(registry, position="yesterday").read(0)


@pytest.fixture
def server(postgres_and_s3: Deployment) -> Iterator[Registry]:
    with live_server(postgres_and_s3) as endpoint, connect(endpoint=endpoint) as registry:
        yield registry


def test_each_listener_is_told_what_he_may_read(guarded: Guarded):
    streams = {role: stream(guarded.registry(role)) for role in ("reader", "stranger", "root", "anonymous")}
    for events in streams.values():
        events.read(0)
    guarded.behind.push(NEWS, "other/news")
    guarded.behind.tag("team/science", "live")
    guarded.behind.namespaces.set_public("team", True)
    guarded.behind.push(HISTORY, "team/history")
    guarded.behind.push(NEWS, "other/last")
    last = "push other/last:v1"
    assert lines_of(read_until(streams["reader"], "push", "team/history:v1")) == [
        "tag team/science:v1",
        "push team/history:v1",
    ]
    # What became public is told to all from then on; what came before in the same reading may be told, too.
    for role in ("stranger", "anonymous"):
        seen = lines_of(read_until(streams[role], "push", "team/history:v1"))
        assert not {event for event in seen if "other/" in event and role == "anonymous"}
    assert {"namespace ", last} <= set(lines_of(read_until(streams["root"], "push", "other/last:v1")))


def test_a_token_that_is_revoked_hears_nothing_more(guarded: Guarded):
    token, secret = guarded.behind.tokens.create("passing", ["read:team"])
    with connect(endpoint=guarded.endpoint, token=secret) as registry:
        events = stream(registry)
        events.read(0)
        guarded.behind.tag("team/science", "live")
        read_until(events, "tag", "team/science:v1")
        guarded.behind.tokens.revoke(token.id)
        guarded.behind.push(HISTORY, "team/history")
        with pytest.raises(LoregError, match=r"closed|revoked"):
            while True:
                assert events.read(5) == ()


def test_a_server_that_ends_ends_its_streams_and_the_next_one_goes_on(postgres_and_s3: Deployment):
    behind = connect(**postgres_and_s3.settings)
    with live_server(postgres_and_s3) as endpoint:
        registry = connect(endpoint=endpoint)
        events = stream(registry)
        events.read(0)
        behind.push(SCIENCE, "team/science")
        read_until(events, "push", "team/science:v1")
    with pytest.raises(UnavailableError):
        events.read(5)
    behind.push(HISTORY, "team/history")
    position = events.position
    with live_server(postgres_and_s3) as endpoint:
        again = stream(connect(endpoint=endpoint), position=position)
        assert lines_of(read_until(again, "push", "team/history:v1")) == ["push team/history:v1"]
        again.close()
    behind.close()


def test_a_listener_that_reads_nothing_is_ended_and_loses_nothing(server: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.server.event_hub._MAX_WAITING", 0)
    monkeypatch.setattr("loreg.server.event_hub._BATCH", 1)
    events = stream(server)
    events.read(0)
    for number in range(5):
        server.push(SCIENCE, f"team/copy{number}")
    seen: list[str] = []

    def read() -> bool:
        with contextlib.suppress(UnavailableError):
            seen.extend(lines_of(list(events.read(0.1))))
        return "push team/copy4:v1" in seen

    eventually(read)
    assert seen == [f"push team/copy{number}:v1" for number in range(5)]
    events.close()


def test_too_many_listeners_of_one_caller_end_the_oldest(guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.server.event_hub.LIMITS.connections", 8)
    reader = guarded.registry("reader")
    kept = stream(reader)
    kept.read(0)
    anonymous = [stream(guarded.registry("anonymous")) for _ in range(4)]
    for events in anonymous:
        events.read(0)
    with pytest.raises(UnavailableError):
        while True:
            anonymous[0].read(0)
    guarded.behind.tag("team/science", "live")
    assert lines_of(read_until(kept, "tag", "team/science:v1")) == ["tag team/science:v1"]


def test_what_goes_over_the_wire_is_server_sent_events(server: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(routes, "_HEARTBEAT", 0.05)
    endpoint = server.settings.endpoint
    with httpx.stream("GET", f"{endpoint}/api/v1/events/stream", params={"pattern": "team/*"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        lines = response.iter_lines()
        start = next(lines)
        assert start.startswith("id: ")
        assert [next(lines) for _ in range(4)] == ["data:", "", ": ", ""]
        pushing = threading.Thread(target=server.push, args=(SCIENCE, "team/science"))
        pushing.start()
        eventually(lambda: next(lines) == "event: push")
        block = [next(lines) for _ in range(2)]
        pushing.join()
    assert '"ref":"team/science:v1"' in block[0]
    assert block[1].startswith("id: ")
    after = {"Last-Event-ID": start.removeprefix("id: ")}
    with httpx.stream("GET", f"{endpoint}/api/v1/events/stream", headers=after) as response:
        assert next(line for line in response.iter_lines() if line.startswith("event")) == "event: push"


def test_a_catalog_that_nobody_listens_to_is_not_read(postgres_and_s3: Deployment, monkeypatch: pytest.MonkeyPatch):
    readings = []
    read = EventHub.read_after
    monkeypatch.setattr(EventHub, "read_after", lambda self, position: readings.append(1) or read(self, position))
    with live_server(postgres_and_s3) as endpoint, connect(endpoint=endpoint) as registry:
        registry.push(SCIENCE, "team/science")
        assert readings == []
        events = stream(registry)
        events.read(0)
        registry.tag("team/science", "prod")
        read_until(events, "tag", "team/science:v1")
        with psycopg.connect(postgres_and_s3.database_url, autocommit=True) as observer:
            assert count_listeners(observer) == 1
            events.close()
            eventually(lambda: count_listeners(observer) == 0)  # what nobody reads, PostgreSQL would keep
    assert readings


def count_listeners(observer: psycopg.Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"
    (count,) = observer.execute(query).fetchone() or (0,)
    return int(count)


def test_the_servers_processes_tell_of_each_others_events(postgres_and_s3: Deployment):
    with live_server(postgres_and_s3) as one, live_server(replace(postgres_and_s3)) as other:
        events = stream(connect(endpoint=one))
        events.read(0)
        connect(endpoint=other).push(SCIENCE, "team/science")
        assert lines_of(read_until(events, "push", "team/science:v1")) == ["push team/science:v1"]
        events.close()
