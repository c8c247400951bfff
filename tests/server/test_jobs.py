"""Jobs: done once by a free worker, again if it dies, never with more rights than the submitter has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from concurrency import all_at_once
from deployments import HISTORY, Deployment, command_line
from factories import train, write_base
from loreg.catalog import Catalog, jobs
from loreg.entities import Access, MergeOptions
from loreg.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from loreg.registry import Registry
from loreg.worker import Worker
from server.conftest import Guarded

TWO = {"sources": ["team/science", "team/history"], "weights": [0.7, 0.3], "name": "team/blend"}


@pytest.fixture
def two(guarded: Guarded) -> Guarded:
    guarded.behind.push(HISTORY, "team/history")
    return guarded


def worker(guarded: Guarded, bases: Path | None = None, models: Path | None = None) -> Worker:
    return Worker(guarded.behind.settings, bases, models, "cpu")


def set_last_heartbeat(registry: Registry, ago: timedelta) -> None:
    """Set the last heartbeat of every worker to that long ago."""
    catalog = Catalog(registry.settings.database_url)
    with catalog.write(Access.superuser("test")) as tx:
        tx.connection.execute(text("UPDATE jobs SET beat_at = :at"), {"at": datetime.now(UTC) - ago})
    catalog.close()


def test_a_remote_merge_is_the_version_that_a_merge_here_makes(two: Guarded):
    writer = two.registry("writer")
    job = writer.jobs.submit("merge", **TWO)
    assert (job.state, job.author) == ("queued", "writer")
    assert worker(two).work(until_idle=True) == 1
    done = writer.jobs.wait(job.id)
    pushed = two.behind.merge(TWO["sources"], MergeOptions(weights=TWO["weights"]), name="here/blend").pushed
    assert pushed is not None
    assert done.result["digest"] == pushed.version.digest
    assert done.result["version"] == "team/blend:v1"
    assert two.behind.show("team/blend").version.author == "writer"


def test_rerank_and_bake(two: Guarded, tmp_path: Path):
    bases, models = tmp_path / "bases", tmp_path / "models"
    write_base(bases / "small")
    two.behind.push(train(tmp_path / "a", 1), "team/small")
    writer = two.registry("writer")
    small = writer.jobs.submit("rerank", source="team/science", rank=2, name="team/two")
    baked = writer.jobs.submit("bake", sources=["team/small"], base="small", name="team/baked")
    assert worker(two, bases, models).work(until_idle=True) == 2
    assert two.behind.show(writer.jobs.wait(small.id).result["version"]).version.facts.rank_max == 2
    assert writer.jobs.wait(baked.id).result["model"] == "team/baked"
    two.behind.bake(["team/small"], bases / "small", tmp_path / "here")
    weights = "model.safetensors"
    assert (models / "team" / "baked" / weights).read_bytes() == (tmp_path / "here" / weights).read_bytes()


def test_what_fails_says_why_to_who_asked(two: Guarded):
    writer = two.registry("writer")
    missing = writer.jobs.submit("merge", sources=["team/nothing"], name="team/x")
    worker(two).work(until_idle=True)
    with pytest.raises(NotFoundError, match="there is no adapter 'team/nothing'"):
        writer.jobs.wait(missing.id)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("push", {}),
        ("merge", {"sources": ["./run"], "name": "team/x"}),
        ("merge", {"sources": ["/etc"], "name": "team/x"}),
        ("merge", {"sources": [], "name": "team/x"}),
        ("merge", {"sources": ["team/science"], "name": "team/x", "folder": "/tmp/x"}),
        ("merge", {"sources": ["team/science"], "name": "team/x", "calibration": "/etc/passwd"}),
        ("merge", {"sources": ["team/science"], "name": "team/x", "base": "../../secret"}),
        ("merge", {"sources": ["team/science"], "name": "team/x", "initial": ["../x"]}),
        ("merge", {"sources": ["team/science"]}),
        ("bake", {"sources": ["team/science"], "base": "small", "name": "/tmp/x"}),
        ("bake", {"sources": ["team/science"], "base": "small", "name": "x"}),
        ("bake", {"sources": ["team/science"], "base": "small"}),
    ],
)
def test_what_no_worker_may_carry_out_is_refused_when_it_is_asked(two: Guarded, kind: str, request_: dict):
    with pytest.raises(UsageError):
        two.registry("writer").jobs.submit(kind, **request_)
    assert two.behind.jobs.list().items == ()


def test_a_job_may_do_what_who_asked_may(two: Guarded):
    stranger = two.registry("stranger")
    with pytest.raises(NotAllowedError):
        stranger.jobs.submit("merge", **TWO)
    job = stranger.jobs.submit("merge", **{**TWO, "name": "other/blend"})
    worker(two).work(until_idle=True)
    with pytest.raises(NotFoundError, match="there is no adapter 'team/science'"):
        stranger.jobs.wait(job.id)


def test_no_two_workers_take_the_same_job(two: Guarded):
    for number in range(12):
        two.behind.jobs.submit("rerank", source="team/science", rank=1 + number % 3, name=f"team/r{number}")
    catalog = Catalog(two.behind.settings.database_url)

    def take(name: str) -> list[int]:
        taken = []
        for _ in range(4):
            with catalog.write(Access.superuser(name)) as tx:
                claimed = jobs.claim(tx, name)
            taken += [claimed[0].id] if claimed else []
        return taken

    taken_by_worker = all_at_once([partial(take, f"w{number}") for number in range(4)])
    catalog.close()
    taken = [job_id for job_ids in taken_by_worker for job_id in job_ids]
    assert sorted(taken) == sorted({job.id for job in two.behind.jobs.list().items})


def test_one_that_waits_is_cancelled(two: Guarded):
    writer = two.registry("writer")
    job = writer.jobs.submit("merge", **TWO)
    assert writer.jobs.cancel(job.id).state == "cancelled"
    assert worker(two).work(until_idle=True) == 0
    with pytest.raises(ConflictError, match="was cancelled"):
        writer.jobs.wait(job.id)


def test_one_that_runs_is_given_up_when_it_is_cancelled(two: Guarded, monkeypatch: pytest.MonkeyPatch):
    """The merge stands still until it was cancelled and a heartbeat was refused; then it says how far it is."""
    writer = two.registry("writer")
    job = writer.jobs.submit("merge", **TWO)
    refused = threading.Event()
    heartbeat = jobs.heartbeat

    def watched(*arguments: object) -> bool:
        is_active = heartbeat(*arguments)
        if not is_active:
            refused.set()
        return is_active

    def merge(*arguments, progress, **more):
        writer.jobs.cancel(job.id)
        assert refused.wait(30)
        while True:
            progress("merging", 1, 2)

    monkeypatch.setattr(jobs, "heartbeat", watched)
    monkeypatch.setattr("loreg.worker.merge", merge)
    assert worker(two).work(until_idle=True) == 1
    assert writer.jobs.show(job.id).state == "cancelled"
    with pytest.raises(NotFoundError):
        two.behind.show("team/blend")


def test_a_killed_worker_s_job_is_done_by_another(two: Guarded, postgres_and_s3: Deployment):
    """The first is stopped dead in the middle of it; after its lease is over the second takes the job."""
    writer = two.registry("writer")
    job = writer.jobs.submit("merge", **TWO)
    stuck = "import loreg.worker as w, time; w.merge = lambda *a, **k: (print('busy', flush=True), time.sleep(600))\n"
    run = "import os; from loreg.settings import load\nw.Worker(load({}, os.environ), None, None, 'cpu').work()"
    environment = {**os.environ, **postgres_and_s3.environment}
    first = subprocess.Popen([sys.executable, "-c", stuck + run], env=environment, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "busy\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert worker(two).work(until_idle=True) == 0  # it may be alive still
    set_last_heartbeat(two.behind, jobs.LEASE + timedelta(seconds=1))
    assert worker(two).work(until_idle=True) == 1
    done = writer.jobs.wait(job.id)
    assert (done.state, done.attempts, done.result["version"]) == ("done", 2, "team/blend:v1")


def test_one_that_kills_every_worker_is_given_up(two: Guarded):
    job = two.behind.jobs.submit("merge", **TWO)
    catalog = Catalog(two.behind.settings.database_url)
    for _ in range(jobs.MAX_LOSSES):
        with catalog.write(Access.superuser("w")) as tx:
            assert jobs.claim(tx, "w") is not None
        set_last_heartbeat(two.behind, jobs.LEASE + timedelta(seconds=1))
    with catalog.write(Access.superuser("w")) as tx:
        assert jobs.claim(tx, "w") is None
    catalog.close()
    failed = two.behind.jobs.show(job.id)
    assert (failed.state, failed.error["message"]) == ("failed", "3 workers died of it")


def test_the_command_line(two: Guarded, postgres_and_s3: Deployment):
    client = command_line({"LOREG_ENDPOINT": two.endpoint, "LOREG_TOKEN": two.tokens["writer"]})
    behind = command_line(postgres_and_s3.environment)
    assert client("merge", "team/science", "--remote", "--dry-run").exit_code == 2
    loreg = Path(sys.executable).with_name("loreg")
    process = subprocess.Popen([loreg, "worker"], env={**os.environ, **postgres_and_s3.environment})
    made = client("merge", "team/science", "team/history", "--weights", "0.7,0.3", "--push", "team/blend", "--remote")
    assert made.stdout.startswith("team/blend:v1@sha256:")
    small = client("rerank", "team/science", "--rank", "2", "--push", "team/small", "--remote", "--format", "quiet")
    assert small.stdout == "team/small:v1\n"
    assert "team/blend:v1" in client("job", "ls").stdout
    assert "done" in client("job", "show", "1").stdout
    assert client("job", "cancel", "1").stdout == "job 1 is done\n"
    assert client("job", "show", "99").exit_code == 3
    process.kill()
    process.wait()
    assert behind("worker", "--until-idle").stdout == "0 jobs done\n"
