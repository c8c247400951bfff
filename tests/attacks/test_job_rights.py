"""Jobs and drafts are asked for by strangers: none does more than its token may, none keeps others from theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import text, update

import loreg.verbs.merge
import loreg.worker
from attackers import Attacked, attacked
from deployments import HISTORY, empty_sqlite
from factories import train, write_base
from loreg.catalog import Catalog, jobs, pending_uploads, tokens
from loreg.catalog.pending_uploads import PendingUpload
from loreg.catalog.schema import token_table
from loreg.entities import Access
from loreg.errors import NotAllowedError, NotFoundError, QuotaError, UnauthenticatedError, UsageError
from loreg.manifest import File
from loreg.refs import AdapterName
from loreg.server import pagination
from loreg.worker import Worker
from server import conftest
from server.conftest import Guarded

guarded, guarded_folder = conftest.guarded, conftest.guarded_folder
TWO = {"sources": ["team/science", "team/history"], "name": "team/blend", "aliases": ["prod"]}


@pytest.fixture(params=["guarded", "guarded_folder"])
def served(request: pytest.FixtureRequest) -> Guarded:
    served: Guarded = request.getfixturevalue(request.param)
    served.behind.push(HISTORY, "team/history")
    return served


def work(served: Guarded, bases: Path | None = None, models: Path | None = None) -> int:
    return Worker(served.behind.settings, bases, models, "cpu").work(until_idle=True)


def token_of(served: Guarded, role: str) -> int:
    return next(token.id for token in served.behind.tokens.list() if token.name == role)


def change(served: Guarded, statement: str, **values: Any) -> None:
    catalog = Catalog(served.behind.settings.database_url)
    with catalog.write(Access.superuser("test")) as tx:
        tx.connection.execute(text(statement), values)
    catalog.close()


REVOKED = {"revoked_at": datetime(2020, 1, 1, tzinfo=UTC)}
EXPIRED = {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}
LESS = {"grants": {"team": "read"}}


def lose_rights(served: Guarded, values: dict[str, Any]) -> None:
    """Take the writer's rights as another process does, which knows of no job."""
    catalog = Catalog(served.behind.settings.database_url)
    with catalog.write(Access.superuser("test")) as tx:
        tx.connection.execute(update(token_table).where(token_table.c.name == "writer").values(**values))
    catalog.close()


# ── the rights of a job ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_token_ends_its_queued_jobs(served: Guarded):
    job = served.registry("writer").jobs.submit("merge", **TWO)
    other = served.registry("owner").jobs.submit("merge", **{**TWO, "name": "team/other", "aliases": []})
    served.behind.tokens.revoke(token_of(served, "writer"))
    ended = served.behind.jobs.show(job.id)
    assert (ended.state, ended.error["code"]) == ("failed", "unauthenticated")
    assert work(served) == 1
    assert served.behind.jobs.show(other.id).state == "done"
    with pytest.raises(NotFoundError):
        served.behind.show("team/blend")


@pytest.mark.parametrize("how", [REVOKED, EXPIRED, LESS], ids=["revoked", "expired", "less"])
def test_a_job_may_do_when_it_begins_what_its_token_may_then(served: Guarded, how: Any):
    job = served.registry("writer").jobs.submit("merge", **TWO)
    lose_rights(served, how)
    work(served)
    ended = served.behind.jobs.show(job.id)
    assert ended.state == "failed"
    assert ended.error["code"] in ("unauthenticated", "not-allowed")
    with pytest.raises(NotFoundError):
        served.behind.show("team/blend")


@pytest.mark.parametrize("how", ["revoke", REVOKED, EXPIRED, LESS], ids=["revoke", "revoked", "expired", "less"])
def test_a_job_may_do_when_it_commits_what_its_token_may_then(
    served: Guarded, monkeypatch: pytest.MonkeyPatch, how: Any
):
    job = served.registry("writer").jobs.submit("merge", **TWO)
    push = loreg.verbs.merge.push

    def late(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(jobs, "heartbeat", lambda *beat: True)  # the commit itself must see it
        if how == "revoke":
            served.behind.tokens.revoke(token_of(served, "writer"))
        else:
            lose_rights(served, how)
        return push(*arguments, **more)

    monkeypatch.setattr(loreg.verbs.merge, "push", late)
    work(served)
    assert served.behind.jobs.show(job.id).state == "failed"
    with pytest.raises(NotFoundError):
        served.behind.show("team/blend")
    with pytest.raises(NotFoundError):
        served.behind.show("team/blend:prod")


def test_a_bake_that_lost_its_token_makes_no_model(served: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_base(tmp_path / "bases" / "small")
    served.behind.push(train(tmp_path / "a", 1), "team/small")
    served.registry("writer").jobs.submit("bake", sources=["team/small"], base="small", name="team/baked")
    progress = loreg.worker.Heartbeat.progress

    def late(heart: Any, what: str, done: int, total: int) -> None:
        if what == "placing":
            lose_rights(served, REVOKED)
        progress(heart, what, done, total)

    monkeypatch.setattr(loreg.worker.Heartbeat, "progress", late)
    work(served, tmp_path / "bases", tmp_path / "models")
    assert not (tmp_path / "models" / "team" / "baked").exists()


def test_a_request_that_outlives_its_token_changes_nothing(served: Guarded):
    """The same for everything that a token changes: it is asked again in the transaction of the change."""
    catalog = Catalog(served.behind.settings.database_url)
    with catalog.read() as tx:
        token = next(token for token in tokens.list_all(tx) if token.name == "writer")
    access = Access(token.name, token.grants, token.id)
    with catalog.write(access):
        pass
    lose_rights(served, REVOKED)
    with pytest.raises(UnauthenticatedError), catalog.write(access):
        pass
    catalog.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Attacked]:
    """A server that asks for no token, with two adapters."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with attacked(tmp_path, is_open=True, database_url=url) as server:
        server.behind.push(HISTORY, "team/history")
        yield server


def test_what_was_asked_of_an_open_server_is_not_done_once_there_is_a_token(opened: Attacked):
    done, queued = (
        opened.http().post("/api/v1/jobs", json={"kind": "merge", "request": {**TWO, "aliases": [], "name": name}})
        for name in ("team/done", "team/blend")
    )
    worker = Worker(opened.behind.settings, None, None, "cpu")
    assert worker._claim() is not None  # while there is none it is done, as it was
    owners = opened.behind.jobs.submit("merge", **{**TWO, "name": "team/owners"})
    assert opened.http().post("/api/v1/tokens", json={"name": "root", "scopes": ["admin:*"]}).status_code == 201
    assert Worker(opened.behind.settings, None, None, "cpu").work(until_idle=True) == 1
    ended = opened.behind.jobs.show(queued.json()["id"])
    assert (ended.state, ended.error["code"]) == ("failed", "unauthenticated")
    assert opened.behind.jobs.show(owners.id).state == "done"  # who has the database needs no token
    with closing(Catalog(opened.behind.settings.database_url)) as catalog, catalog.write(Access.superuser("w")) as tx:
        assert not jobs.heartbeat(tx, opened.behind.jobs.show(done.json()["id"]), "", 0, 0)


def test_what_was_asked_of_an_open_server_commits_nothing_once_there_is_a_token(
    opened: Attacked, monkeypatch: pytest.MonkeyPatch
):
    job = opened.http().post("/api/v1/jobs", json={"kind": "merge", "request": TWO}).json()
    push = loreg.verbs.merge.push

    def late(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(jobs, "heartbeat", lambda *beat: True)  # the commit itself must see it
        opened.behind.tokens.create("root", ["admin:*"])
        return push(*arguments, **more)

    monkeypatch.setattr(loreg.verbs.merge, "push", late)
    Worker(opened.behind.settings, None, None, "cpu").work(until_idle=True)
    assert opened.behind.jobs.show(job["id"]).error["code"] == "unauthenticated"
    with pytest.raises(NotFoundError):
        opened.behind.show("team/blend")


def test_a_request_to_an_open_server_that_outlives_the_first_token_changes_nothing(opened: Attacked):
    access = replace(Access.superuser("anonymous"), while_open=True)
    catalog = Catalog(opened.behind.settings.database_url)
    with catalog.write(access):
        pass
    opened.behind.tokens.create("root", ["admin:*"])
    with pytest.raises(UnauthenticatedError), catalog.write(access):
        pass
    catalog.close()


@pytest.mark.parametrize("name", ["other/model", "model", "Team/model", "-/model", "team", "team/", "team/../other/x"])
def test_a_bake_goes_below_a_namespace_that_may_be_written(served: Guarded, name: str):
    with pytest.raises((NotAllowedError, UsageError)):
        served.registry("writer").jobs.submit("bake", sources=["team/science"], base="small", name=name)
    assert served.behind.jobs.list().items == ()


def test_a_bake_of_before_that_goes_elsewhere_is_not_done(served: Guarded, tmp_path: Path):
    write_base(tmp_path / "bases" / "small")
    served.behind.push(train(tmp_path / "a", 1), "team/small")
    job = served.registry("writer").jobs.submit("bake", sources=["team/small"], base="small", name="team/baked")
    kind = "text" if "sqlite" in served.behind.settings.database_url else "json"
    change(served, f"UPDATE jobs SET request = CAST(replace(CAST(request AS text), 'team/b', 'other/b') AS {kind})")
    work(served, tmp_path / "bases", tmp_path / "models")
    assert served.behind.jobs.show(job.id).error["code"] == "not-allowed"
    assert not (tmp_path / "models" / "other").exists()


# ── quotas ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_namespace_has_so_many_open_jobs_and_no_more(served: Guarded):
    writer, http = served.registry("writer"), served.http("writer")
    accepted = [writer.jobs.submit("merge", **{**TWO, "name": f"team/b{number}"}) for number in range(jobs.MAX_OPEN)]
    with pytest.raises(QuotaError, match=f"no more than {jobs.MAX_OPEN} may"):
        writer.jobs.submit("merge", **TWO)
    refused = http.post("/api/v1/jobs", json={"kind": "merge", "request": TWO})
    assert (refused.status_code, refused.json()["code"]) == (429, "quota")
    other = served.registry("stranger").jobs.submit("merge", sources=["other/a"], name="other/b")
    assert other.state == "queued"
    writer.jobs.cancel(accepted[0].id)
    writer.jobs.submit("merge", **TWO)


def test_a_token_has_so_many_open_jobs_in_all_its_namespaces(served: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "MAX_OPEN", 3)
    root = served.registry("root")
    for number in range(3):
        root.jobs.submit("merge", sources=["team/science"], name=f"n{number}/x")
    with pytest.raises(QuotaError, match="of this token"):
        root.jobs.submit("merge", sources=["team/science"], name="n4/x")
    served.registry("writer").jobs.submit("merge", **TWO)


def test_a_job_has_so_many_bytes_and_no_more(served: Guarded):
    for request in ({**TWO, "message": "x" * 8_000_000}, {**TWO, "tasks": ["x" * 100] * 1000}):
        body = {"kind": "merge", "request": request}
        assert served.http("writer").post("/api/v1/jobs", json=body).status_code in (400, 413)
    assert served.behind.jobs.list().items == ()


def test_a_page_of_jobs_has_so_many_bytes_and_goes_on(served: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pagination, "_MAX_BYTES", 100_000)
    for number in range(20):
        served.registry("writer").jobs.submit("merge", **{**TWO, "name": f"team/b{number}", "message": "x" * 20_000})
    reader, seen, cursor = served.http("reader"), [], ""
    while True:
        answer = reader.get("/api/v1/jobs", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
        assert len(answer.content) < 200_000
        seen += [job["id"] for job in answer.json()["items"]]
        if not (cursor := answer.json()["cursor"]):
            break
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 20


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    return Catalog(
        empty_sqlite(tmp_path / "c.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )


def test_a_draft_that_nobody_goes_on_with_is_forgotten(catalog: Catalog):
    with catalog.write(Access.superuser("ada")) as tx:
        for name in ("old", "new"):
            pending_uploads.save(tx, AdapterName("team", name), "", PendingUpload((File("x", "0" * 64, 1),), ""))
        long_ago = {"at": tx.at - timedelta(days=31)}
        tx.connection.execute(text("UPDATE drafts SET updated_at = :at WHERE name = 'old'"), long_ago)
        pending_uploads.discard_expired(tx)
        assert pending_uploads.find(tx, AdapterName("team", "old"), "") is None
        assert pending_uploads.find(tx, AdapterName("team", "new"), "") is not None


# ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_becomes_of_a_job_is_written_down_with_who_did_it(served: Guarded):
    writer = served.registry("writer")
    done = writer.jobs.submit("merge", **{**TWO, "aliases": []})
    work(served)
    cancelled = writer.jobs.submit("merge", **TWO)
    writer.jobs.cancel(cancelled.id)
    writer.jobs.cancel(cancelled.id)  # nothing is changed
    ended = writer.jobs.submit("merge", **TWO)
    served.behind.tokens.revoke(token_of(served, "writer"))
    recorded: dict[int, list[tuple[str, str]]] = {}
    for event in reversed(served.behind.events().items):
        if event.action.startswith("job "):
            recorded.setdefault(event.detail["job"], []).append((event.action, event.detail.get("state", "")))
    assert recorded == {
        done.id: [("job submit", ""), ("job end", "done")],
        cancelled.id: [("job submit", ""), ("job cancel", "cancelled")],
        ended.id: [("job submit", ""), ("job end", "failed")],
    }
