"""verify, repair and gc through a server: a worker does them for an administrator, and the report is the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import asdict
from sqlalchemy import text

import loreg.worker
from deployments import HISTORY, SCIENCE, Loreg, command_line
from loreg.catalog import Catalog, jobs
from loreg.catalog.garbage import CLAIM
from loreg.decoding import decode
from loreg.entities import (
    Access,
    Damage,
    DamageKind,
    Job,
    Owner,
    ReferenceKind,
    Repair,
    RepairReport,
    VerifyReport,
)
from loreg.errors import ConflictError, LoregError, NotAllowedError, NotFoundError, UsageError
from loreg.storage import BlobStore, put_bytes
from loreg.verbs.upkeep_jobs import shorten
from loreg.worker import Worker
from server.conftest import Guarded

ORPHAN = b"of nobody"
PROGRAM = "from loreg_cli.main import cli; cli()"


@pytest.fixture(params=["guarded", "guarded_folder"])
def served(request: pytest.FixtureRequest) -> Guarded:
    served: Guarded = request.getfixturevalue(request.param)
    return served


def store_of(served: Guarded) -> BlobStore:
    store = served.behind.context.store
    assert isinstance(store, BlobStore)
    return store


def environment_of(served: Guarded) -> dict[str, str]:
    settings = served.behind.settings
    return {
        "LOREG_DATABASE_URL": settings.database_url,
        "LOREG_STORAGE_URL": settings.storage_url,
        "LOREG_STORAGE_ENDPOINT": settings.storage_endpoint,
    }


def cancel_when(
    served: Guarded, job: Job, monkeypatch: pytest.MonkeyPatch, is_time: Callable[[str, int], bool]
) -> list[str]:
    """Let an administrator cancel the job where its progress is what ``is_time`` says; returns the steps it came to."""
    progress, seen = loreg.worker.Heartbeat.progress, []

    def cancel(heartbeat: Any, what: str, done: int, total: int) -> None:
        seen.append(what)
        if is_time(what, done) and job.id == heartbeat._job.id:
            served.registry("root").jobs.cancel(job.id)
            heartbeat._beat()
        progress(heartbeat, what, done, total)

    monkeypatch.setattr(loreg.worker.Heartbeat, "progress", cancel)
    return seen


@contextlib.contextmanager
def worker_process(served: Guarded, *arguments: str, program: str = PROGRAM) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own."""
    command = [sys.executable, "-c", program, "worker", *arguments]
    environment = {**os.environ, **environment_of(served)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def cli_of(served: Guarded, role: str) -> Loreg:
    return command_line({"LOREG_ENDPOINT": served.endpoint, "LOREG_TOKEN": served.tokens[role]})


def submit(served: Guarded, kind: str, **request: Any) -> Job:
    return served.registry("root").jobs.submit(kind, **request)


def work(served: Guarded, *sources: str) -> int:
    return Worker(served.behind.settings, None, None, "cpu", sources).work(until_idle=True)


def manifest_of(served: Guarded) -> str:
    return served.behind.show("team/science").version.digest


def weights_of(served: Guarded) -> str:
    files = served.behind.show("team/science").files
    return next(file.sha256 for file in files if file.path.endswith(".safetensors"))


def change(served: Guarded, statement: str, **values: Any) -> None:
    catalog = Catalog(served.behind.settings.database_url)
    with catalog.write(Access.superuser("test")) as tx:
        tx.connection.execute(text(statement), values)
    catalog.close()


def stall(served: Guarded) -> None:
    """Let every worker have been heard of for the last time too long ago."""
    change(served, "UPDATE jobs SET beat_at = :at", at=datetime.now(UTC) - jobs.LEASE - timedelta(seconds=5))


def test_a_person_sees_the_same_through_a_server_as_beside_the_store(served: Guarded):
    store_of(served).delete(manifest_of(served))
    put_bytes(store_of(served), ORPHAN)
    here, there = command_line({**environment_of(served), "LOREG_ENDPOINT": ""}), cli_of(served, "root")

    def without_time(stdout: str) -> dict[str, Any]:
        return {name: value for name, value in json.loads(stdout).items() if name != "seconds"}

    with worker_process(served):
        expected, verified = here("verify", "--format", "json"), there("verify", "--format", "json")
        assert (expected.exit_code, verified.exit_code) == (6, 6)
        assert without_time(verified.stdout) == without_time(expected.stdout)
        assert "waits for a worker; loreg job cancel" in verified.stderr
        table = there("verify")
        assert (table.exit_code, table.stdout.count("loreg repair")) == (6, 1)
        assert "1 stored blobs (9 B) belong to nothing" in table.stderr
        repaired = there("repair")
        assert repaired.exit_code == 0
        assert "1 repaired, 0 stay broken" in repaired.stdout
        assert there("verify", "team/science", "--read-data").exit_code == 0
        store_of(served).delete(weights_of(served))
        assert there("repair").exit_code == 6
        assert there("verify", "--format", "quiet").stdout == "team/science:v1\n"
    assert [job.kind for job in served.behind.jobs.list().items if job.kind == "repair"] == ["repair"] * 2
    assert "1 of 3 broken" in there("job", "ls").stdout
    assert [event.author for event in served.behind.events().items if event.action == "repair"] == ["root"]


def test_garbage_is_collected_by_a_worker(served: Guarded):
    digest = put_bytes(store_of(served), ORPHAN).sha256
    with worker_process(served), served.registry("root") as administrator:
        dry = administrator.gc(dry_run=True)
        assert (dry.dry_run, dry.removed, dry.marked) == (True, 0, 1)
        marked = administrator.gc(grace="24h")
        assert (marked.removed, marked.new, marked.marked_size) == (0, 1, len(ORPHAN))
        removed = administrator.gc(grace=timedelta(0))
        assert (removed.removed, removed.removed_size, removed.marked) == (1, len(ORPHAN), 0)
    assert store_of(served).size(digest) is None
    assert served.behind.verify(read_data=True).ok
    assert [event.author for event in served.behind.events().items if event.action == "gc"] == ["root"]


def test_an_error_of_the_worker_is_raised_where_it_was_asked_for(served: Guarded):
    job = submit(served, "verify", refs=["team/nothing"])
    work(served)
    with pytest.raises(NotFoundError, match="there is no adapter 'team/nothing'"):
        served.registry("root").jobs.wait(job.id)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("verify", {"refs": ["./run"]}),
        ("verify", {"sources": ["/backup"]}),
        ("verify", {"read_data": 5}),
        ("gc", {"grace": "soon"}),
        ("gc", {"refs": ["team/science"]}),
        ("repair", {"sources": ["./pulled"]}),
        ("repair", {"sources": ["~/pulled"]}),
        ("repair", {"name": "team/x"}),
        ("prune", {}),
    ],
)
def test_what_no_worker_understands_is_refused_when_it_is_asked(served: Guarded, kind: str, request_: dict[str, Any]):
    with pytest.raises(UsageError):
        submit(served, kind, **request_)
    assert served.behind.jobs.list().items == ()


@pytest.mark.parametrize("share", ["half", "3/2"])
def test_a_share_that_is_none_is_refused_before_anything_is_asked(served: Guarded, share: str):
    with served.registry("root") as administrator, pytest.raises(UsageError, match="is not understood"):
        administrator.verify(read_data=share)
    assert served.behind.jobs.list().items == ()


def test_of_each_kind_one_is_open_at_a_time(served: Guarded):
    first = submit(served, "gc", grace="24h")
    assert submit(served, "gc", grace="24h") == first
    with pytest.raises(ConflictError, match=f"job {first.id} is a gc already, asked for by root") as refused:
        submit(served, "gc", grace="1h")
    assert f"loreg job cancel {first.id}" in refused.value.hint
    other = submit(served, "verify")
    assert other.id != first.id
    assert work(served) == 2
    assert submit(served, "gc", grace="1h").id > other.id


def test_a_job_of_a_revoked_token_keeps_nobody_from_the_next(served: Guarded):
    served.behind.tokens.create("second", ["admin:*"])
    first = submit(served, "gc", grace="24h")
    change(served, "UPDATE tokens SET expires_at = :at WHERE name = 'root'", at=datetime(2020, 1, 1, tzinfo=UTC))
    assert served.behind.jobs.submit("gc", grace="1h").id > first.id


def test_a_worker_without_torch_takes_them(served: Guarded):
    for kind in ("verify", "repair", "gc"):
        submit(served, kind)
    catalog = Catalog(served.behind.settings.database_url)
    capabilities = jobs.WorkerCapabilities(lambda name: False, has_models=False, has_torch=False)
    with catalog.write(Access.superuser("w")) as tx:
        claimed = [jobs.claim(tx, "w", capabilities) for _ in range(4)]
    catalog.close()
    assert [job[0].kind for job in claimed if job] == ["verify", "repair", "gc"]


@pytest.mark.parametrize(
    ("kind", "step"),
    [("gc", "listing the store"), ("gc", "removing"), ("verify", "verifying"), ("repair", "verifying")],
)
def test_one_that_is_cancelled_stops_and_the_next_does_the_rest(
    served: Guarded, monkeypatch: pytest.MonkeyPatch, kind: str, step: str
):
    digests = [put_bytes(store_of(served), f"orphan {number}".encode()).sha256 for number in range(4)]
    store_of(served).delete(manifest_of(served))
    served.behind.gc(grace="24h")
    monkeypatch.setattr("loreg.verbs.gc._BATCH", 2)
    request = {"grace": "0m"} if kind == "gc" else {}
    job = submit(served, kind, **request)
    seen = cancel_when(served, job, monkeypatch, lambda what, done: what == step)
    assert work(served) == 1
    assert served.behind.jobs.show(job.id).state == "cancelled"
    assert seen.count(step) == 1
    assert seen[-1] == step
    left = [digest for digest in digests if store_of(served).size(digest) is not None]
    assert len(left) == (2 if step == "removing" else 4)
    again = submit(served, kind, **request)
    assert work(served) == 1
    summary = {"gc": f"{len(left)} removed, 0 wait", "verify": "1 of 3 broken", "repair": "1 repaired, 0 stay broken"}
    assert served.behind.jobs.show(again.id).result["summary"] == summary[kind]


def test_what_a_killed_worker_had_claimed_is_removed_by_the_next(served: Guarded):
    digest = put_bytes(store_of(served), ORPHAN).sha256
    served.behind.gc(grace="24h")
    job = submit(served, "gc", grace="0m")
    busy = (
        "import threading\nfrom loreg.storage import FolderStore\nfrom loreg.storage.s3 import S3Store\n"
        "pause = lambda *a: (print('busy', flush=True), threading.Event().wait())\n"
        f"FolderStore.delete = S3Store.delete = pause\n{PROGRAM}"
    )
    with worker_process(served, program=busy) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert served.behind.jobs.show(job.id).state == "running"
    assert work(served) == 0
    stall(served)
    change(served, "UPDATE garbage SET claimed_at = :at", at=datetime.now(UTC) - CLAIM - timedelta(minutes=1))
    assert work(served) == 1
    done = served.behind.jobs.show(job.id)
    assert (done.state, done.attempts, done.result["summary"]) == ("done", 2, "1 removed, 0 wait")
    assert store_of(served).size(digest) is None
    assert served.behind.verify(read_data=True).ok


# ── where a repair may bring blobs back from ───────────────────────────────────────────────────────────────────────


def test_a_source_that_the_worker_was_given_is_used(served: Guarded):
    store_of(served).delete(weights_of(served))
    job = submit(served, "repair", sources=[f"{SCIENCE}/"])
    work(served, str(HISTORY), str(SCIENCE))
    report = served.registry("root").jobs.wait(job.id).result
    assert (report["repaired_count"], report["broken_count"]) == (1, 0)
    assert served.behind.verify(read_data=True).ok


def test_sources_are_named_by_an_option_or_the_environment(served: Guarded, monkeypatch: pytest.MonkeyPatch):
    for arguments, environment in ((["--repair-from", str(SCIENCE)], ""), ([], f"{HISTORY} {SCIENCE}")):
        store_of(served).delete(weights_of(served))
        job = submit(served, "repair", sources=[str(SCIENCE)])
        monkeypatch.setenv("LOREG_REPAIR_FROM", environment)
        with worker_process(served, *arguments, "--until-idle") as process:
            assert process.wait() == 0
        assert served.behind.jobs.show(job.id).result["repaired_count"] == 1


def test_a_command_is_told_which_command_repairs_from_any_other_place(served: Guarded):
    store_of(served).delete(weights_of(served))
    with worker_process(served, "--repair-from", str(HISTORY)):
        refused = cli_of(served, "root")("repair", "--from", SCIENCE)
    assert refused.exit_code == 4
    assert f"does not repair from {SCIENCE}" in refused.stderr
    assert f"loreg --database-url URL --storage-url URL repair --from {SCIENCE}" in refused.stderr
    settings = served.behind.settings
    options = ["--database-url", settings.database_url, "--storage-url", settings.storage_url]
    environment = {"LOREG_STORAGE_ENDPOINT": settings.storage_endpoint, "LOREG_ENDPOINT": ""}
    assert command_line(environment)(*options, "repair", "--from", SCIENCE).exit_code == 0


# ── the report ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_report_of_a_job_has_the_first_of_each_list_and_counts_all():
    owners = tuple(Owner(ReferenceKind.FILE, f"team/{'x' * 90}:v{number}", "README.md") for number in range(50))
    damages = tuple(
        Damage(DamageKind.MISSING, f"{number:064x}", 1, None, owners, 700, "loreg repair") for number in range(250)
    )
    verified = VerifyReport(9, 9, 0, 0, 0, 1.0, damages, 250)
    stored = json.dumps(shorten(verified))
    assert len(stored) < 100_000
    report = decode(json.loads(stored), VerifyReport)
    assert [damage.sha256 for damage in report.damages] == [damage.sha256 for damage in damages[:100]]
    assert report.damage_count == 250
    assert {(damage.owners, damage.owner_count) for damage in report.damages} == {(owners[:3], 700)}
    mended = RepairReport(tuple(Repair(damage, "x") for damage in damages), 250, damages, 250)
    short = decode(shorten(mended), RepairReport)
    assert (len(short.repaired), short.repaired_count, len(short.broken)) == (100, 250, 100)
    assert short.repaired[0].damage.owners == owners[:3]
    assert asdict(short)["dry_run"] is False


def test_a_report_of_another_release_is_one_line(served: Guarded, monkeypatch: pytest.MonkeyPatch):
    with served.registry("root") as administrator:
        job = submit(served, "gc", grace="1440m", dry_run=False)
        monkeypatch.setattr(loreg.worker, "run_upkeep", lambda *arguments: {"swept": 1})
        assert work(served) == 1
        done = administrator.jobs.show(job.id)
        monkeypatch.setattr(type(administrator.jobs), "submit", lambda jobs, kind, **request: done)
        with pytest.raises(LoregError, match="of another release") as refused:
            administrator.gc()
        assert refused.value.hint == f"loreg job show {job.id} --format json"


def test_only_administrators_of_everything_are_heard(served: Guarded):
    with served.registry("owner") as owner:
        for call in (owner.verify, owner.repair, owner.gc):
            with pytest.raises(NotAllowedError) as refused:
                call()
            assert refused.value.hint == "ask for a token with --scope admin:*"
    assert served.behind.jobs.list().items == ()
