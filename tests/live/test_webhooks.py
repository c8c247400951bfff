"""Webhooks: every event is delivered at least once, signed, to nobody who may not know it, whoever is killed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_value
from sqlalchemy import text

from concurrency import eventually
from deployments import HISTORY, NEWS, SCIENCE, Deployment, Loreg, command_line, empty_folders
from live.receivers import raw_receiver, receiver
from live_server import live_server
from loreg.catalog import Catalog, webhook_deliveries
from loreg.entities import Access
from loreg.errors import (
    ConflictError,
    IntegrityError,
    NotAllowedError,
    NotFoundError,
    QuotaError,
    UnavailableError,
    UsageError,
)
from loreg.local.webhook_deliverer import Deliverer, delivering
from loreg.local.webhook_transport import SendError, Transport, new_deadline, parse_networks
from loreg.registry import Registry, connect
from loreg.webhooks import verify
from server.conftest import Guarded

LOOPBACK = "127.0.0.0/8"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What people wait for seconds for, tests do not."""
    monkeypatch.setattr("loreg.local.webhook_deliverer._IDLE", 0.02)
    monkeypatch.setattr("loreg.local.webhook_deliverer._FIRST_PAUSE", 0.05)


@contextlib.contextmanager
def background(deployment: Deployment) -> Iterator[None]:
    """A deliverer beside the catalog, as a worker has one; receivers on loopback are allowed."""
    catalog = Catalog(deployment.database_url)
    with contextlib.closing(catalog), delivering(catalog, parse_networks(LOOPBACK)):
        yield


@pytest.fixture(params=["sqlite+folder", "postgres+s3", "server"])
def delivered(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment where somebody delivers."""
    if request.param == "server":
        behind: Deployment = request.getfixturevalue("postgres_and_s3")
        with live_server(behind, webhook_networks=LOOPBACK) as endpoint:
            yield replace(behind, endpoint=endpoint)
        return
    deployment = (
        empty_folders(tmp_path) if request.param == "sqlite+folder" else request.getfixturevalue("postgres_and_s3")
    )
    with background(deployment):
        yield deployment


@pytest.fixture
def telling(delivered: Deployment) -> Iterator[Registry]:
    with connect(**delivered.settings) as registry:
        yield registry


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Deployment]:
    yield empty_folders(tmp_path)


def test_what_is_done_is_delivered_in_its_order(telling: Registry):
    with receiver() as hook:
        telling.push(SCIENCE, "team/science")
        telling.webhooks.add(hook.url, patterns=["team/*"], actions=["push", "tag", "yank"])
        version = telling.push(NEWS, "team/news", aliases=["prod"], tasks=["qa"]).version
        telling.push(HISTORY, "other/history")
        telling.yank("team/news:v1", reason="old")
        eventually(lambda: len(hook.distinct_events) == 3)
        assert hook.distinct_events == ["push team/news:v1", "tag team/news:v1", "yank team/news:v1"]
        request = next(request for request in hook.requests if request.document["event"] == "tag")
        tag = request.document
        assert tag.pop("at") and tag.pop("id") and tag.pop("registry")
        assert tag == {
            "schema": "loreg.event/1",
            "delivery": request.id,
            "event": "tag",
            "author": "ada",
            "ref": "team/news:v1",
            "digest": version.digest,
            "alias": "prod",
            "detail": {"alias": "prod"},
        }


def test_a_receiver_can_verify_who_sent_it_with_the_library_and_without(telling: Registry):
    with receiver() as hook:
        webhook, secret = telling.webhooks.add(hook.url)
        assert telling.webhooks.test(webhook.id).state == "delivered"
        request = hook.requests[0]
    assert request.document["event"] == "ping"
    assert verify(request.body, request.headers, secret) == request.id
    # as the specification says it: standardwebhooks.com
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{request.id}.{request.headers['webhook-timestamp']}.".encode() + request.body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{signature}"
    for body, headers in (
        (request.body + b" ", request.headers),
        (request.body, {**request.headers, "webhook-id": "msg_other"}),
        (request.body, {**request.headers, "webhook-signature": "v1,AAAA v2,x"}),
        (request.body, {**request.headers, "webhook-signature": f"v1a,{signature}"}),  # of another algorithm
        (request.body, {}),
    ):
        with pytest.raises(IntegrityError):
            verify(body, headers, secret)
    for seconds in (301, -301):
        with pytest.raises(IntegrityError, match="300 seconds"):
            verify(request.body, request.headers, secret, now=int(request.headers["webhook-timestamp"]) + seconds)
    assert verify(request.body, request.headers, secret, now=int(request.headers["webhook-timestamp"]) - 299)


def test_both_secrets_sign_until_the_older_one_is_dropped(telling: Registry):
    with receiver() as hook:
        webhook, old = telling.webhooks.add(hook.url)
        new = telling.webhooks.rotate(webhook.id)
        with pytest.raises(ConflictError, match="two secrets"):
            telling.webhooks.rotate(webhook.id)
        telling.webhooks.test(webhook.id)
        telling.webhooks.rotate(webhook.id, drop_old=True)
        telling.webhooks.test(webhook.id)
        first, second = hook.requests
    assert verify(first.body, first.headers, old) == verify(first.body, first.headers, new)
    assert verify(second.body, second.headers, new)
    with pytest.raises(IntegrityError):
        verify(second.body, second.headers, old)


def test_what_is_refused_comes_again_under_its_id_and_before_what_came_later(telling: Registry):
    with receiver(500, 302, 204) as hook:
        webhook, _ = telling.webhooks.add(hook.url, actions=["push"])
        telling.push(SCIENCE, "team/science")
        telling.push(NEWS, "team/news")
        eventually(lambda: len(hook.requests) == 4)
        ids = [request.id for request in hook.requests]
        assert ids[0] == ids[1] == ids[2] != ids[3]
        assert hook.events == ["push team/science:v1"] * 3 + ["push team/news:v1"]
        eventually(lambda: telling.webhooks.deliveries(webhook.id)[0].state == "delivered")
    newest, oldest = telling.webhooks.deliveries(webhook.id)
    assert [(item.event, item.ref, item.state, item.attempts, item.status) for item in (oldest, newest)] == [
        ("push", "team/science:v1", "delivered", 3, 204),
        ("push", "team/news:v1", "delivered", 1, 204),
    ]


def test_what_was_delivered_is_delivered_again_when_it_is_asked_for(telling: Registry):
    with receiver() as hook:
        webhook, _ = telling.webhooks.add(hook.url)
        delivery = telling.webhooks.test(webhook.id)
        telling.webhooks.redeliver(webhook.id, delivery.id)
        eventually(lambda: len(hook.requests) == 2)
        assert {request.id for request in hook.requests} == {delivery.message_id}
        eventually(lambda: telling.webhooks.deliveries(webhook.id)[0].state == "delivered")
        assert telling.webhooks.deliveries(webhook.id)[0].attempts == 1  # as of a new one
        other, _ = telling.webhooks.add(hook.url, actions=["yank"])
        for id_, delivery_id in ((webhook.id, delivery.id + 100), (other.id, delivery.id)):
            with pytest.raises(NotFoundError):
                telling.webhooks.redeliver(id_, delivery_id)


def test_a_redirect_is_not_followed(telling: Registry):
    with receiver() as inner, receiver(307, headers={"Location": inner.url}) as hook:
        webhook, _ = telling.webhooks.add(hook.url)
        delivery = telling.webhooks.test(webhook.id)
        assert (delivery.state, delivery.error) == ("pending", "HTTP 307")
        assert inner.requests == []


def test_a_removed_webhook_hears_nothing_more(telling: Registry):
    with receiver() as hook, receiver() as other:
        webhook, _ = telling.webhooks.add(hook.url, actions=["push"])
        kept, _ = telling.webhooks.add(other.url, actions=["push"])
        telling.webhooks.remove(webhook.id)
        telling.push(SCIENCE, "team/science")
        eventually(lambda: other.events == ["push team/science:v1"])
        assert hook.requests == []
        assert [item.id for item in telling.webhooks.list()] == [kept.id]


def test_a_webhook_hears_nothing_of_itself(telling: Registry):
    with receiver() as hook:
        webhook, _ = telling.webhooks.add(hook.url)
        telling.webhooks.rotate(webhook.id)
        telling.webhooks.test(webhook.id)
        telling.push(SCIENCE, "team/science")
        eventually(lambda: hook.events == ["ping", "push team/science:v1"])


@pytest.mark.parametrize("answer", ["never", "slowly", "garbage", "endless header", "closes"])
def test_a_receiver_that_misbehaves_holds_nobody_up(folders: Deployment, answer: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.local.webhook_transport._SECONDS", 0.5)
    is_over = threading.Event()

    def misbehave(connection) -> None:
        connection.recv(65536)
        match answer:
            case "never":
                is_over.wait(60)
            case "slowly":
                while not is_over.wait(0.05):
                    connection.sendall(b"H")
            case "garbage":
                connection.sendall(b"\x00\xff" * 50_000)
            case "endless header":
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000)
            case "closes":
                pass
        connection.close()

    with raw_receiver(misbehave) as bad, receiver() as good, connect(**folders.settings) as registry:
        webhook, _ = registry.webhooks.add(bad, actions=["push"])
        registry.webhooks.add(good.url, actions=["push"])
        with background(folders):
            for number in range(3):
                registry.push(SCIENCE, f"team/copy{number}")
            eventually(lambda: len(good.requests) == 3)
            eventually(lambda: registry.webhooks.deliveries(webhook.id)[-1].attempts > 0)
            oldest = registry.webhooks.deliveries(webhook.id)[-1]
        is_over.set()
        errors = {"never": "timed out", "slowly": "timed out", "garbage": "no HTTP"}
        assert errors.get(answer, "") in oldest.error
        if answer == "closes":  # as it is told by a closed connection, or by one that is reset
            assert "without an answer" in oldest.error or "reset by peer" in oldest.error
        assert (oldest.state, oldest.status) == ("pending", None)


def test_two_who_deliver_share_and_send_nothing_twice(postgres_and_s3: Deployment):
    with connect(**postgres_and_s3.settings) as registry, receiver() as hook, contextlib.ExitStack() as stack:
        registry.webhooks.add(hook.url, actions=["tag"])
        registry.push(SCIENCE, "team/science")
        for _ in range(3):
            stack.enter_context(background(postgres_and_s3))
        for number in range(30):
            registry.tag("team/science:v1", f"alias{number}")
        eventually(lambda: len({request.id for request in hook.requests}) == 30)
        assert [request.document["alias"] for request in hook.requests] == [f"alias{number}" for number in range(30)]


_KILLED = """
import os, signal, sys
from loreg.catalog import Catalog, webhook_deliveries
from loreg.local import webhook_deliverer, webhook_transport
post = webhook_transport.Transport.post
def post_and_die(self, url, headers, body, deadline):
    post(self, url, headers, body, deadline)
    os.kill(os.getpid(), signal.SIGKILL)
webhook_transport.Transport.post = post_and_die
transport = webhook_transport.Transport(webhook_transport.parse_networks("127.0.0.0/8"))
webhook_deliverer.Deliverer(Catalog(sys.argv[1]), transport).run()
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_who_is_killed_after_sending_loses_nothing_and_the_id_is_the_same(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
):
    deployment = empty_folders(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres_and_s3")
    with connect(**deployment.settings) as registry, receiver() as hook:
        registry.webhooks.add(hook.url, actions=["push"])
        registry.push(SCIENCE, "team/science")
        registry.push(NEWS, "team/news")
        killed = subprocess.run([sys.executable, "-c", _KILLED, deployment.database_url], timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert hook.events == ["push team/science:v1"]
        let_claims_run_out(deployment)
        with background(deployment):
            eventually(lambda: len(hook.requests) == 3)
        assert hook.requests[0].id == hook.requests[1].id
        assert hook.events[1:] == ["push team/science:v1", "push team/news:v1"]


def let_claims_run_out(deployment: Deployment) -> None:
    catalog = Catalog(deployment.database_url)
    with contextlib.closing(catalog), catalog.write(Access.superuser("ada")) as tx:
        tx.connection.execute(text("UPDATE webhooks SET claimed_until = created_at"))


def test_a_webhook_ends_with_the_token_of_who_made_it(postgres_and_s3: Deployment):
    with connect(**postgres_and_s3.settings) as behind, receiver() as hook, receiver() as other:
        behind.tokens.create("root", ["admin:*"])
        token, secret = behind.tokens.create("owner", ["admin:team"])
        behind.webhooks.add(other.url, actions=["push"])
        with live_server(postgres_and_s3, is_open=False, webhook_networks=LOOPBACK) as endpoint:
            with connect(endpoint=endpoint, token=secret) as owner:
                owner.webhooks.add(hook.url, patterns=["team/*"])
            behind.push(SCIENCE, "team/science")
            eventually(lambda: "push team/science:v1" in hook.events)
            behind.tokens.revoke(token.id)
            behind.push(NEWS, "team/news")
            eventually(lambda: "push team/news:v1" in other.events)
        assert "push team/news:v1" not in hook.events
        webhooks = {webhook.id: webhook for webhook in behind.webhooks.list()}
        assert [webhook.disabled_at is not None for webhook in webhooks.values()] == [True, False]
        event = next(event for event in behind.events() if event.action == "webhook disable")
        assert "owner" in str(event.detail["reason"])


def test_who_administers_a_namespace_has_webhooks_of_it_and_sees_no_others(guarded: Guarded):
    guarded.behind.webhooks.add("https://example.com/all")
    owner, stranger = guarded.registry("owner"), guarded.registry("writer")
    for patterns in ([], ["*"], ["t*/x"], ["other/*"], ["team/*", "other/x"]):
        with pytest.raises(NotAllowedError):
            owner.webhooks.add("https://example.com/", patterns=patterns)
    webhook, _ = owner.webhooks.add("https://example.com/", patterns=["team/*"])
    assert [item.id for item in owner.webhooks.list()] == [webhook.id]
    (of_all,) = (item for item in guarded.behind.webhooks.list() if item.id != webhook.id)
    for call in (owner.webhooks.remove, owner.webhooks.rotate, owner.webhooks.deliveries, owner.webhooks.enable):
        with pytest.raises(NotFoundError):
            call(of_all.id)
    for role in ("reader", "writer", "anonymous"):
        with pytest.raises(NotAllowedError):
            guarded.registry(role).webhooks.list()
        with pytest.raises(NotAllowedError):
            guarded.registry(role).webhooks.remove(webhook.id)
    assert stranger.whoami().author == "writer"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "example.com", "https://", "https://user:pw@example.com/", "https://example.com/#x",
        "https://exämple.com/", "https://example.com/ x", "https://example.com:99999/", "http://[::1", "file:///etc/x",
        "https://example.com\\@127.0.0.1/", "https://example.com/" + "x" * 2048,
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused_and_not_repeated(folders: Deployment, url: str):
    with connect(**folders.settings) as registry, pytest.raises(UsageError) as refused:
        registry.webhooks.add(url)
    assert "pw" not in str(refused.value)


def test_there_are_so_many_webhooks_and_no_more(folders: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.local.webhooks._MAX_WEBHOOKS", 2)
    with connect(**folders.settings) as registry:
        for _ in range(2):
            registry.webhooks.add("https://example.com/hook")
        with pytest.raises(QuotaError, match="there are 2 webhooks"):
            registry.webhooks.add("https://example.com/hook")
        registry.webhooks.remove(1)
        registry.webhooks.add("https://example.com/hook")


def test_each_pause_is_three_times_the_one_before_up_to_four_hours_and_no_two_are_the_same(
    folders: Deployment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("loreg.local.webhook_deliverer._FIRST_PAUSE", 5.0)  # as the page for receivers says
    with closing(Catalog(folders.database_url)) as catalog, receiver(500) as hook:
        deliverer = Deliverer(catalog, Transport(parse_networks(LOOPBACK)))
        attempt = webhook_deliveries.Attempt(
            1, 1, "msg_1", hook.url, ("whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0",), "{}", 0
        )
        for attempts, seconds in ((0, 5), (1, 15), (2, 45), (3, 135), (7, 10_935), (8, 14_400), (40, 14_400)):
            pauses = {
                deliverer._send(replace_value(attempt, attempts=attempts), new_deadline()).pause for _ in range(4)
            }
            assert len(pauses) == 4
            assert all(0.75 * seconds <= pause <= 1.25 * seconds for pause in pauses)


def test_what_failed_is_tried_when_it_is_due_and_not_before(folders: Deployment):
    with connect(**folders.settings) as registry, closing(Catalog(folders.database_url)) as catalog:
        registry.webhooks.add("https://example.com/hook")
        with contextlib.suppress(UnavailableError):
            registry.webhooks.test(1, seconds=0)
        with catalog.write(Access.superuser("loreg")) as tx:
            attempt = webhook_deliveries.claim_next(tx, 1, "one")
            assert attempt is not None
            assert webhook_deliveries.claim_next(tx, 1, "other") is None
            webhook_deliveries.record(tx, attempt, "other", webhook_deliveries.Outcome(204, "", 1))  # has no claim
            webhook_deliveries.record(tx, attempt, "one", webhook_deliveries.Outcome(500, "HTTP 500", 3600))
            assert webhook_deliveries.claim_next(tx, 1, "one") is None
            due, pause = webhook_deliveries.list_due(tx, "one")
            assert due == []
            assert 3590 < (pause or 0) <= 3600
            webhook_deliveries.hasten(tx, 1)
            assert webhook_deliveries.list_due(tx, "other")[0] == [1]
            again = webhook_deliveries.claim_next(tx, 1, "one")
            assert again is not None
            assert (again.message_id, again.attempts) == (attempt.message_id, 1)


def test_an_action_that_is_none_is_refused(folders: Deployment):
    with connect(**folders.settings) as registry, pytest.raises(UsageError, match="'tagg'"):
        registry.webhooks.add("https://example.com/", actions=["tagg"])


def test_what_fails_for_a_day_is_given_up_and_a_webhook_that_fails_for_three_is_disabled(folders: Deployment):
    with connect(**folders.settings) as registry, receiver(500) as hook:
        webhook, _ = registry.webhooks.add(hook.url, actions=["push"])
        registry.push(SCIENCE, "team/science")
        with background(folders):
            eventually(lambda: len(hook.requests) > 1)
        age(folders, "webhook_deliveries", "queued_at", "2 days")
        registry.push(NEWS, "team/news")
        with background(folders):
            eventually(lambda: registry.webhooks.deliveries(webhook.id)[-1].state == "failed")
            eventually(lambda: "push team/news:v1" in hook.events)
        age(folders, "webhooks", "failing_since", "4 days")
        with background(folders):
            eventually(lambda: registry.webhooks.list()[0].disabled_at is not None)
        events = {event.action: event.detail for event in registry.events()}
        assert events["webhook give up"] == {"webhook": webhook.id, "deliveries": 1}
        assert events["webhook disable"]["reason"] == "nothing was delivered for 3 days: HTTP 500"
        hook.statuses[:] = [204]
        registry.webhooks.enable(webhook.id)
        with background(folders):
            eventually(lambda: registry.webhooks.deliveries(webhook.id)[0].state == "delivered")
        assert registry.webhooks.list()[0].failing_since is None


def age(deployment: Deployment, table: str, column: str, span: str) -> None:
    """Let a time in SQLite be that much earlier."""
    catalog = Catalog(deployment.database_url)
    with contextlib.closing(catalog), catalog.write(Access.superuser("ada")) as tx:
        tx.connection.execute(
            text(f"UPDATE {table} SET {column} = strftime('%Y-%m-%d %H:%M:%f000', {column}, '-{span}')")
        )


def test_a_receiver_that_wants_no_more_gets_no_more(folders: Deployment):
    with connect(**folders.settings) as registry, receiver(410) as hook, background(folders):
        registry.webhooks.add(hook.url, actions=["push"])
        registry.push(SCIENCE, "team/science")
        eventually(lambda: registry.webhooks.list()[0].disabled_at is not None)
        assert len(hook.requests) == 1


def test_no_secret_is_in_an_event_a_log_or_a_list(delivered: Deployment, caplog: pytest.LogCaptureFixture):
    loreg = command_line(delivered.environment)
    added = loreg("webhook", "add", "http://127.0.0.1:9/hook?key=hunter2", "--pattern", "team/*")
    assert added.exit_code == 0
    secret, identifier = added.stdout.strip(), "1"
    rotated = loreg("webhook", "rotate", identifier).stdout.strip()
    failed = loreg("webhook", "test", identifier)
    assert failed.exit_code == 1
    assert "Connection refused" in failed.stderr
    outputs = [failed.stderr, caplog.text]
    for command in (["webhook", "ls"], ["webhook", "deliveries", identifier], ["events"]):
        outputs += [loreg(*command, "--format", format_).stdout for format_ in ("table", "json")]
    for hidden in (secret, rotated, secret[6:], "hunter2"):
        assert hidden not in "".join(outputs)


def test_the_command_line_makes_lists_and_removes_webhooks(loreg: Loreg):
    added = loreg("webhook", "add", "https://ci.example.com/hook", "--pattern", "team/*", "--action", "tag, yank")
    assert added.stdout.startswith("whsec_")
    assert "webhook 1; its secret cannot be shown again" in added.stderr
    listed = json.loads(loreg("webhook", "ls", "--format", "json").stdout)
    assert [(item["patterns"], item["actions"], item["url"]) for item in listed] == [
        (["team/*"], ["tag", "yank"], "https://ci.example.com/hook")
    ]
    assert loreg("webhook", "deliveries", "1").exit_code == 0
    assert loreg("webhook", "remove", "1").stdout == "webhook 1 is removed\n"
    assert loreg("webhook", "remove", "1").exit_code == 3


def test_nobody_who_delivers_is_told(folders: Deployment):
    with connect(**folders.settings) as registry:
        webhook, _ = registry.webhooks.add("https://example.com/")
        with pytest.raises(Exception, match="nobody sent the ping"):
            registry.webhooks.test(webhook.id, seconds=0)


def test_a_test_has_what_waits_tried_at_once(folders: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.local.webhook_deliverer._FIRST_PAUSE", 3600.0)
    with connect(**folders.settings) as registry, receiver(500, 204) as hook, background(folders):
        webhook, _ = registry.webhooks.add(hook.url, actions=["push"])
        registry.push(SCIENCE, "team/science")
        eventually(lambda: registry.webhooks.list()[0].failing_since is not None)
        assert registry.webhooks.test(webhook.id).status == 204
        assert hook.events == ["push team/science:v1", "push team/science:v1", "ping"]
        assert registry.webhooks.list()[0].failing_since is None


def test_a_process_that_was_stopped_after_its_claim_sends_nothing(folders: Deployment):
    with receiver() as hook, pytest.raises(SendError, match="timed out"):
        Transport(parse_networks(LOOPBACK)).post(hook.url, {}, b"{}", time.monotonic() - 1)
    assert hook.requests == []


def test_a_catalog_that_refuses_once_holds_a_webhook_up_for_a_moment(
    folders: Deployment, monkeypatch: pytest.MonkeyPatch
):
    """A claim holds for a minute: who has it himself need not wait for its end. What was sent is sent again."""
    record, refused = webhook_deliveries.record, []

    def refuse_once(*arguments: object) -> None:
        if not refused:
            refused.append(1)
            raise UnavailableError("locked", hint="try again")
        record(*arguments)

    monkeypatch.setattr(webhook_deliveries, "record", refuse_once)
    monkeypatch.setattr(webhook_deliveries, "LEASE", timedelta(hours=1))
    with connect(**folders.settings) as registry, receiver() as hook, background(folders):
        registry.webhooks.add(hook.url, actions=["push"])
        registry.push(SCIENCE, "team/science")
        registry.push(NEWS, "team/news")
        eventually(lambda: "push team/news:v1" in hook.events)
    assert hook.events == ["push team/science:v1"] * 2 + ["push team/news:v1"]
    assert hook.requests[0].id == hook.requests[1].id


def test_deliveries_are_kept_for_a_while_and_not_for_ever(folders: Deployment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhook_deliveries, "MAX_ENDED", 3)
    monkeypatch.setattr("loreg.local.webhook_deliverer._CLEANUP_INTERVAL", 0.0)
    with connect(**folders.settings) as registry, receiver() as hook:
        webhook, _ = registry.webhooks.add(hook.url, actions=["tag"])
        registry.push(SCIENCE, "team/science")
        with background(folders):
            for number in range(6):
                registry.tag("team/science:v1", f"alias{number}")
            eventually(lambda: len(hook.requests) == 6)
            registry.webhooks.test(webhook.id)
            eventually(lambda: len(registry.webhooks.deliveries(webhook.id)) == 3)
        monkeypatch.setattr(webhook_deliveries, "MAX_PENDING", 2)
        hook.statuses[:] = [500]
        for number in range(5):
            registry.tag("team/science:v1", f"late{number}")
        with background(folders):
            eventually(lambda: any(event.action == "webhook give up" for event in registry.events()))
        states = [item.state for item in registry.webhooks.deliveries(webhook.id)]
        assert states.count("pending") == 2
        age(folders, "webhook_deliveries", "finished_at", "31 days")
        catalog = Catalog(folders.database_url)
        with contextlib.closing(catalog), catalog.write(Access.superuser("ada")) as tx:
            webhook_deliveries.clean_up(tx)
        assert [item.state for item in registry.webhooks.deliveries(webhook.id)] == ["pending"] * 2


def test_events_of_while_nobody_delivered_come_later(folders: Deployment):
    with connect(**folders.settings) as registry, receiver() as hook:
        registry.webhooks.add(hook.url, actions=["push"])
        for number in range(3):
            registry.push(SCIENCE, f"team/copy{number}")
        with background(folders):
            eventually(lambda: len(hook.requests) == 3)
