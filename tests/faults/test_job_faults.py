"""Jobs through what goes wrong around them: workers that stall or die, a database that is away, a long history."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text

import loreg.catalog.catalog
import loreg.worker
from concurrency import eventually
from factories import train, write_base
from loreg.baking.bake import PLAN_NAME, staging_path
from loreg.catalog import Catalog, jobs
from loreg.entities import Access
from loreg.errors import NotFoundError, UnavailableError
from loreg.registry import Registry, connect
from loreg.worker import Worker

MERGE = {"sources": ["team/a"], "name": "team/b"}
BAKE = {"sources": ["team/a"], "base": "small", "name": "team/baked"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/c.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    catalog = Catalog(url)
    catalog.upgrade()
    yield catalog
    catalog.close()


@pytest.fixture
def local_registry(url: str, tmp_path: Path) -> Iterator[Registry]:
    """A registry with one adapter, a base that workers have, and a folder where they bake to."""
    write_base(tmp_path / "bases" / "small")
    Catalog(url).upgrade()
    with connect(database_url=url, storage_url=str(tmp_path / "store"), home=str(tmp_path / "home")) as registry:
        registry.push(train(tmp_path / "a", 1), "team/a")
        yield registry


def worker(local_registry: Registry, tmp_path: Path) -> Worker:
    return Worker(local_registry.settings, tmp_path / "bases", tmp_path / "models", "cpu")


def change(local_registry: Registry, statement: str, **values: Any) -> None:
    catalog = Catalog(local_registry.settings.database_url)
    with catalog.write(Access.superuser("test")) as tx:
        tx.connection.execute(text(statement), values)
    catalog.close()


def stalled(local_registry: Registry) -> None:
    """Let every worker have been heard of for the last time too long ago."""
    change(local_registry, "UPDATE jobs SET beat_at = :at", at=datetime.now(UTC) - jobs.LEASE - timedelta(seconds=5))


# ── a long history ─────────────────────────────────────────────────────────────────────────────────────────────────

ENDED = """
INSERT INTO jobs (kind, request, namespace, author, grants, state, attempts, worker, what, done, total, result, error,
  created_at, beat_at, finished_at)
SELECT 'merge', '{}', 'team' || i % 20, 'ada', '{}', 'done', 1, 'w', '', 0, 0, '{}', '{}', :now, :now, :now
"""
NUMBERS = {
    "sqlite": "FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT :count) SELECT i FROM n) n",
    "postgresql": "FROM generate_series(1, :count) i",
}


def fill(catalog: Catalog, count: int) -> None:
    with catalog.write(Access.superuser("test")) as tx:
        numbers = NUMBERS[tx.connection.dialect.name]
        tx.connection.execute(text(f"{ENDED} {numbers}"), {"count": count, "now": datetime.now(UTC)})
        tx.connection.execute(text("ANALYZE jobs"))


def test_asking_for_a_job_and_taking_it_reads_no_job_that_has_ended(catalog: Catalog):
    fill(catalog, 20_000)
    statements: list[tuple[str, Any]] = []
    with catalog.write(Access.superuser("ada")) as tx:

        @event.listens_for(tx.connection.engine, "before_cursor_execute")
        def record_statement(
            connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
        ) -> None:
            statements.append((statement, parameters))

        jobs.submit(tx, "merge", MERGE, "team1")
        claimed = jobs.claim(tx, "w")
        assert claimed is not None
        jobs.heartbeat(tx, claimed[0], "merging", 1, 2)
        jobs.finish(tx, claimed[0], {})
        event.remove(tx.connection.engine, "before_cursor_execute", record_statement)
        asked = [(s, p) for s, p in statements if "jobs" in s and not s.startswith("INSERT")]
        assert len(asked) > 5
        explain = "EXPLAIN QUERY PLAN" if tx.connection.dialect.name == "sqlite" else "EXPLAIN"
        for statement, parameters in asked:
            plan = tx.connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            for line in map(str, plan):
                assert "Seq Scan on jobs" not in line, statement
                assert "SCAN jobs" not in line or "ix_jobs_" in line, statement


def test_jobs_that_ended_long_ago_or_before_many_others_are_removed(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "MAX_ENDED", 10)
    fill(catalog, 400)
    with catalog.write(Access.superuser("ada")) as tx:
        old = jobs.submit(tx, "merge", MERGE, "team")
        jobs.cancel(tx, old.id)
        long_ago = {"at": datetime.now(UTC) - jobs.RETENTION - timedelta(hours=1), "id": old.id}
        tx.connection.execute(text("UPDATE jobs SET finished_at = :at WHERE id = :id"), long_ago)
        waiting = jobs.submit(tx, "merge", MERGE, "team")
        jobs.clean_up(tx)
        assert jobs.list_page(tx, 1000, None).items[0].id == waiting.id
        counts = dict(tx.connection.execute(text("SELECT namespace, count(*) FROM jobs GROUP BY namespace")).all())
        assert counts.pop("team") == 1
        assert set(counts.values()) == {10}


# ── turns and needs ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_namespace_with_many_jobs_does_not_keep_another_waiting(catalog: Catalog):
    with catalog.write(Access.superuser("ada")) as tx:
        for _ in range(20):
            jobs.submit(tx, "merge", MERGE, "many")
    taken = []
    for turn in range(24):
        with catalog.write(Access.superuser("ada")) as tx:
            if turn == 5:
                for _ in range(3):
                    jobs.submit(tx, "merge", MERGE, "few")
            job, _ = jobs.claim(tx, "w") or (None, None)
            if job is None:
                break
            taken.append(job.namespace)
            jobs.finish(tx, job, {})
    assert taken.count("many") == 20
    assert [deployment for deployment, name in enumerate(taken) if name == "few"][-1] <= 11


def test_a_worker_leaves_to_others_what_it_has_no_folder_for(local_registry: Registry, tmp_path: Path):
    baked = local_registry.jobs.submit("bake", **BAKE)
    merged = local_registry.jobs.submit("merge", **MERGE)
    assert Worker(local_registry.settings, None, None, "cpu").work(until_idle=True) == 1
    assert Worker(local_registry.settings, tmp_path / "bases", None, "cpu").work(until_idle=True) == 0
    assert (local_registry.jobs.show(baked.id).state, local_registry.jobs.show(merged.id).state) == ("queued", "done")
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    assert local_registry.jobs.show(baked.id).state == "done"


def test_a_job_that_no_worker_can_do_ends_with_what_it_needs(local_registry: Registry, tmp_path: Path):
    job = local_registry.jobs.submit("bake", **{**BAKE, "base": "llama"})
    assert worker(local_registry, tmp_path).work(until_idle=True) == 0
    assert local_registry.jobs.show(job.id).state == "queued"
    change(
        local_registry,
        "UPDATE jobs SET able_at = :at",
        at=datetime.now(UTC) - jobs.QUEUE_TIMEOUT - timedelta(minutes=1),
    )
    assert worker(local_registry, tmp_path).work(until_idle=True) == 0
    with pytest.raises(NotFoundError, match=r"no worker that has 'llama' among its bases .* for 24 hours"):
        local_registry.jobs.wait(job.id)


def test_a_job_that_only_waits_its_turn_does_not_end(catalog: Catalog):
    with catalog.write(Access.superuser("ada")) as tx:
        first, second = (jobs.submit(tx, "merge", MERGE, "team") for _ in range(2))
        tx.connection.execute(text("UPDATE jobs SET able_at = :at"), {"at": datetime.now(UTC) - jobs.QUEUE_TIMEOUT / 2})
        claimed = jobs.claim(tx, "w")
        assert claimed is not None
        assert claimed[0].id == first.id
        tx.connection.execute(
            text("UPDATE jobs SET created_at = :at"), {"at": datetime.now(UTC) - 2 * jobs.QUEUE_TIMEOUT}
        )
        jobs.clean_up(tx)
        assert jobs.find(tx, second.id).state == "queued"


# ── workers that stall and die ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_worker_whose_clock_is_wrong_takes_no_job_of_another(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, hours: int
):
    with catalog.write(Access.superuser("w")) as tx:
        job = jobs.submit(tx, "merge", MERGE, "team")
        assert jobs.claim(tx, "w") is not None

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr(loreg.catalog.catalog, "datetime", Wrong)
    with catalog.write(Access.superuser("other")) as tx:
        assert jobs.claim(tx, "other") is None
        assert jobs.heartbeat(tx, jobs.find(tx, job.id), "merging", 1, 2)
    monkeypatch.undo()
    with catalog.write(Access.superuser("other")) as tx:
        assert jobs.claim(tx, "other") is None


def test_a_model_that_was_whole_when_its_worker_died_is_the_result(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = local_registry.jobs.submit("bake", **BAKE)

    class KilledError(BaseException):
        pass

    def die(*arguments: object, **more: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(jobs, "finish", die)
        patched.setattr(jobs, "requeue", die)
        worker(local_registry, tmp_path).work(until_idle=True)
    assert (tmp_path / "models" / "team" / "baked" / "model.safetensors").exists()
    stalled(local_registry)
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    done = local_registry.jobs.wait(job.id)
    assert (done.state, done.attempts) == ("done", 2)


def test_a_model_that_a_stalled_worker_holds_is_left_to_it_or_done_later(local_registry: Registry, tmp_path: Path):
    """The first worker is taken for dead, and has the folder locked still."""
    job = local_registry.jobs.submit("bake", **BAKE)
    staging = staging_path(tmp_path / "models" / "team" / "baked")
    staging.mkdir(parents=True)
    change(local_registry, "UPDATE jobs SET created_at = :at", at=datetime.now(UTC) - timedelta(days=3))
    with (staging / PLAN_NAME).open("a+") as plan:
        fcntl.flock(plan, fcntl.LOCK_EX)
        for _ in range(jobs.MAX_LOSSES + 1):
            assert worker(local_registry, tmp_path).work(until_idle=True) == 1
            assert local_registry.jobs.show(job.id).state == "queued"
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    assert local_registry.jobs.wait(job.id).state == "done"


@pytest.mark.parametrize("kind", ["bake", "merge", "rerank"])
def test_a_job_that_is_tried_again_is_about_the_versions_that_it_was_about(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    local_registry.push(train(tmp_path / "b", 2), "team/two")
    meant, other = local_registry.show("team/a").version, local_registry.show("team/two").version
    asked: dict[str, Any] = {
        "bake": {**BAKE, "sources": ["team/a", "team/two"], "extras": "team/two"},
        "merge": {**MERGE, "sources": ["team/a", "team/two"], "extras": "team/two"},
        "rerank": {"source": "team/a", "rank": 1, "name": "team/b"},
    }[kind]
    job = local_registry.jobs.submit(kind, **asked)

    class KilledError(BaseException):
        pass

    def die(*arguments: object, **more: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(loreg.worker, "bake" if kind == "bake" else "merge", die)
        worker(local_registry, tmp_path).work(until_idle=True)
    local_registry.push(train(tmp_path / "c", 3), "team/a")
    local_registry.push(train(tmp_path / "d", 4), "team/two")
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    done = local_registry.jobs.wait(job.id)
    assert (done.state, done.error) == ("done", {})
    wanted = [meant.digest] if kind == "rerank" else [meant.digest, other.digest]
    if kind == "bake":
        record = json.loads((tmp_path / "models" / "team" / "baked" / "loreg_bake.json").read_text())
        digests = [source["digest"] for source in record["sources"]]
    else:
        made_by = local_registry.show("team/b").provenance
        assert made_by is not None
        digests = [source.digest for source in made_by.sources]
    assert digests == wanted


def test_workers_that_end_in_order_use_up_no_try_of_a_job(catalog: Catalog):
    with catalog.write(Access.superuser("w")) as tx:
        job = jobs.submit(tx, "merge", MERGE, "team")
        for _ in range(jobs.MAX_LOSSES + 1):
            claimed = jobs.claim(tx, "w")
            assert claimed is not None
            jobs.requeue(tx, claimed[0])
        for state in ["queued"] * (jobs.MAX_LOSSES - 1) + ["failed"]:
            claimed = jobs.claim(tx, "w")
            assert claimed is not None
            jobs.lose(tx, claimed[0], {"code": "unavailable", "message": "away", "hint": ""})
            assert jobs.find(tx, job.id).state == state
        assert jobs.find(tx, job.id).error["message"] == "away"


def test_a_worker_without_torch_leaves_to_others_what_needs_it(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = {
        "merge": local_registry.jobs.submit("merge", **MERGE),
        "rerank": local_registry.jobs.submit("rerank", source="team/a", rank=1, name="team/c"),
        "ties": local_registry.jobs.submit("bake", **{**BAKE, "name": "team/ties", "method": "ties"}),
        "small": local_registry.jobs.submit("bake", **{**BAKE, "name": "team/small", "rank": 1}),
        "bake": local_registry.jobs.submit("bake", **BAKE),
    }
    with monkeypatch.context() as patched:
        patched.setattr(loreg.worker, "has_torch", lambda: False)
        assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    assert {name: local_registry.jobs.show(job.id).state for name, job in asked.items()} == {
        **dict.fromkeys(asked, "queued"), "bake": "done",
    }  # fmt: skip
    assert worker(local_registry, tmp_path).work(until_idle=True) == 4
    assert {local_registry.jobs.show(job.id).state for job in asked.values()} == {"done"}


def test_a_worker_that_was_taken_for_dead_writes_nothing_down(catalog: Catalog):
    with catalog.write(Access.superuser("w")) as tx:
        jobs.submit(tx, "merge", MERGE, "team")
        first, _ = jobs.claim(tx, "first") or (None, None)
        late = {"at": datetime.now(UTC) - jobs.LEASE - timedelta(seconds=5)}
        tx.connection.execute(text("UPDATE jobs SET beat_at = :at"), late)
        second, _ = jobs.claim(tx, "second") or (None, None)
        assert first is not None
        assert second is not None
        assert not jobs.heartbeat(tx, first, "merging", 1, 2)
        jobs.fail(tx, first, {"message": "x"})
        jobs.requeue(tx, first)
        assert jobs.find(tx, second.id).state == "running"
        jobs.finish(tx, second, {"version": "x"})
        assert jobs.find(tx, second.id).state == "done"


def test_a_cancelled_bake_leaves_nothing_behind(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = local_registry.jobs.submit("bake", **BAKE)
    move = loreg.worker.Heartbeat.progress

    def cancelled(heart: Any, what: str, done: int, total: int) -> None:
        if what == "placing":
            local_registry.jobs.cancel(job.id)
        move(heart, what, done, total)

    monkeypatch.setattr(loreg.worker.Heartbeat, "progress", cancelled)
    worker(local_registry, tmp_path).work(until_idle=True)
    assert local_registry.jobs.show(job.id).state == "cancelled"
    assert list((tmp_path / "models" / "team").iterdir()) == []


def test_a_worker_that_is_told_to_end_puts_its_job_back(local_registry: Registry, tmp_path: Path):
    job = local_registry.jobs.submit("merge", **MERGE)
    busy = (
        "import loreg.worker as w, signal\n"
        "w.merge = lambda *a, **k: (print('busy', flush=True), signal.pause())\n"
        "from loreg_cli.main import cli\ncli()"
    )
    settings = local_registry.settings
    more = {"LOREG_DATABASE_URL": settings.database_url, "LOREG_STORAGE_URL": settings.storage_url}
    command = [sys.executable, "-c", busy, "worker"]
    with subprocess.Popen(command, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    assert local_registry.jobs.show(job.id).state == "queued"
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    assert local_registry.jobs.show(job.id).state == "done"


# ── a database that is away ────────────────────────────────────────────────────────────────────────────────────────


class Away:
    """Lets a function of ``jobs`` fail as if the database were away, some times; ``after`` it was done or before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
        self.times, self._real = times, getattr(jobs, name)
        monkeypatch.setattr(jobs, name, self)
        monkeypatch.setattr(loreg.worker, "_IDLE", 0.01)
        monkeypatch.setattr("loreg.local.heartbeat._INTERVAL", 0.01)

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        if self.times:
            self.times -= 1
            raise UnavailableError("the catalog does not answer")
        return self._real(*arguments, **more)


def test_a_lost_answer_does_not_end_an_idle_worker(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = local_registry.jobs.submit("merge", **MERGE)
    Away(monkeypatch, "claim", 3)
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    assert local_registry.jobs.show(job.id).state == "done"


def test_a_database_that_never_answers_is_told(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Away(monkeypatch, "claim", 1000)
    with pytest.raises(UnavailableError):
        worker(local_registry, tmp_path).work()


@pytest.mark.parametrize("name", ["finish", "fail"])
def test_a_result_waits_for_the_database(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    sources = MERGE["sources"] if name == "finish" else ["team/nothing"]
    job = local_registry.jobs.submit("merge", **{**MERGE, "sources": sources})
    away = Away(monkeypatch, name, 6)
    assert worker(local_registry, tmp_path).work(until_idle=True) == 1
    shown = local_registry.jobs.show(job.id)
    assert (shown.state, shown.attempts, away.times) == ("done" if name == "finish" else "failed", 1, 0)


def test_a_result_whose_answer_was_lost_is_written_down_once(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = local_registry.jobs.submit("merge", **MERGE)
    write, lost = Catalog.write, []

    def lose(catalog: Catalog, access: Any) -> Any:
        transaction = write(catalog, access)
        leave = transaction.__exit__

        def left(*exception: Any) -> Any:
            result = leave(*exception)
            if local_registry.jobs.show(job.id).state == "done" and not lost:
                lost.append(1)
                raise UnavailableError("the answer was lost")
            return result

        transaction.__class__ = type("Lossy", (transaction.__class__,), {"__exit__": lambda self, *e: left(*e)})
        return transaction

    monkeypatch.setattr(Catalog, "write", lose)
    monkeypatch.setattr(loreg.worker, "_IDLE", 0.01)
    monkeypatch.setattr("loreg.local.heartbeat._INTERVAL", 0.01)
    worker(local_registry, tmp_path).work(until_idle=True)
    monkeypatch.undo()
    assert lost
    assert local_registry.jobs.show(job.id).state == "done"
    assert [event.action for event in local_registry.events().items].count("job end") == 1


def test_a_job_that_lost_the_database_in_its_midst_is_done_again(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job = local_registry.jobs.submit("merge", **MERGE)
    merge, times = loreg.worker.merge, []

    def once(*arguments: Any, **more: Any) -> Any:
        times.append(1)
        if len(times) == 1:
            raise UnavailableError("the catalog does not answer")
        return merge(*arguments, **more)

    monkeypatch.setattr(loreg.worker, "merge", once)
    worker(local_registry, tmp_path).work(until_idle=True)
    assert local_registry.jobs.show(job.id).state == "queued"
    worker(local_registry, tmp_path).work(until_idle=True)
    assert local_registry.jobs.show(job.id).state == "done"


def test_a_worker_hears_of_a_job_and_listens_again_when_its_connection_was_cut(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loreg.worker, "_POLL", 3600.0)  # nothing is found by looking
    monkeypatch.setattr(loreg.worker, "_IDLE", 0.01)
    monkeypatch.setattr("loreg.local.heartbeat._INTERVAL", 0.01)
    local_registry = connect(
        database_url=postgres_url, storage_url=str(tmp_path / "store"), home=str(tmp_path / "home")
    )
    local_registry.push(train(tmp_path / "a", 1), "team/a")
    idle = worker(local_registry, tmp_path)
    claim, ending = jobs.claim, threading.Event()

    def asked(*arguments: Any) -> Any:
        if ending.is_set():
            raise SystemExit
        return claim(*arguments)

    monkeypatch.setattr(jobs, "claim", asked)

    def work() -> None:
        with contextlib.suppress(SystemExit):
            idle.work()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with psycopg.connect(postgres_url, autocommit=True) as connection:

        def listens() -> bool:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            ).fetchone()
            return row is not None and row[0] == 1

        for number in range(2):
            eventually(listens)
            job = local_registry.jobs.submit("merge", **{**MERGE, "name": f"team/b{number}"})
            eventually(lambda job=job: local_registry.jobs.show(job.id).state == "done")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        eventually(listens)
        ending.set()
        connection.execute("NOTIFY loreg_jobs")
        thread.join(60)
        assert not thread.is_alive()
    local_registry.close()
