"""prune and backup through a server: by the server's rules, to the places of the worker's operator, for administrators.

restore and move stay with whoever has the database and the store.
"""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments import HISTORY, command_line
from factories import train
from loreg import connect
from loreg.entities import Access, Job, PruneDecision, PruneReport, SnapshotDecision
from loreg.errors import ConflictError, NotAllowedError, UsageError
from loreg.local.factory import open_local
from loreg.storage import DocumentStore, open_store
from loreg.verbs.upkeep_jobs import shorten
from loreg.worker import Worker
from server.conftest import ROLES, Guarded
from server.test_upkeep_jobs import (
    PROGRAM,
    cancel_when,
    cli_of,
    environment_of,
    served,
    stall,
    store_of,
    submit,
    weights_of,
    work,
    worker_process,
)

__all__ = ["served"]
RULES = "[retention]\nkeep_last = 2\n"


@pytest.fixture(params=["guarded", "guarded_folder"])
def ruled(request: pytest.FixtureRequest, tmp_path: Path) -> Guarded:
    """One whose server has rules, with four versions of an adapter."""
    (tmp_path / "loreg.toml").write_text(RULES)
    served: Guarded = request.getfixturevalue(request.param)
    for number in range(4):
        served.behind.push(train(tmp_path / f"adapter-{number}", number), "team/many")
    (tmp_path / "loreg.toml").unlink()
    return served


@pytest.fixture
def target(served: Guarded, tmp_path: Path) -> str:
    """Where a worker may back up to: beside a store in S3 to S3."""
    settings = served.behind.settings
    return f"{settings.storage_url}-backup" if settings.storage_endpoint else str(tmp_path / "backups" / "nightly")


def back_up_by_worker(served: Guarded, target: str, **request: Any) -> dict[str, Any]:
    """Let a worker do what a job for the backup asks; returns the job's report."""
    job = submit(served, "backup", target=target, **request)
    settings = served.behind.settings
    assert Worker(settings, None, None, "cpu", (), [target]).work(until_idle=True) == 1
    result = served.registry("root").jobs.wait(job.id).result
    assert result["summary"]
    return dict(result)


def numbers(served: Guarded) -> list[int]:
    return sorted(version.number for version in served.behind.versions("team/many").items)


def events(served: Guarded, action: str) -> list[str]:
    return [event.author for event in served.behind.events(limit=200).items if event.action == action]


def documents(served: Guarded, target: str) -> list[str]:
    store = open_store(target, served.behind.settings.storage_endpoint)
    assert isinstance(store, DocumentStore)
    return store.list_documents("snapshots")


# ── prune ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_person_prunes_through_a_server_as_beside_the_store(ruled: Guarded, tmp_path: Path):
    here, there = command_line({**environment_of(ruled), "LOREG_ENDPOINT": ""}), cli_of(ruled, "root")
    (tmp_path / "loreg.toml").write_text(RULES)  # where the store is reached; the server has read its own
    expected = [here("prune", "team/*", "--dry-run", "--format", how) for how in ("table", "json", "quiet")]
    (tmp_path / "loreg.toml").unlink()
    with worker_process(ruled):
        dry = [there("prune", "team/*", "--dry-run", "--format", how) for how in ("table", "json", "quiet")]
        assert [outcome.stdout for outcome in dry] == [outcome.stdout for outcome in expected]
        assert {outcome.exit_code for outcome in (*dry, *expected)} == {0}
        assert "waits for a worker; loreg job cancel" in dry[0].stderr
        assert numbers(ruled) == [1, 2, 3, 4]
        asked = there("prune", "team/*")
        assert asked.exit_code == 4
        assert f"by the rules in the file of {ruled.endpoint}" in asked.stderr
        assert asked.stderr.splitlines()[-1].endswith("Hint: loreg prune 'team/*' --yes")
        done = there("prune", "team/*", "--yes")
        assert (done.exit_code, "2 versions are gone" in done.stdout) == (0, True)
        assert numbers(ruled) == [3, 4]
        assert there("prune", "team/*").exit_code == 0
    assert events(ruled, "prune") == ["root", "root"]
    assert "2 gone, 3 stay" in there("job", "ls").stdout
    assert ruled.behind.verify(read_data=True).ok


@pytest.mark.parametrize("rules", [{}, {"keep_last": 1}, {"keep_lst": 1}])
def test_the_rules_are_those_of_the_server_and_of_nobody_else(ruled: Guarded, tmp_path: Path, rules: dict[str, int]):
    """Neither the file beside the worker nor the one of who asks says what goes."""
    (tmp_path / "loreg.toml").write_text("[retention]\nkeep_last = 1\n")
    with ruled.registry("root") as administrator:
        assert administrator.settings.retention == {"keep_last": 1}
        job = submit(ruled, "prune", pattern="*", dry_run=False)
        worker = Worker(replace(ruled.behind.settings, retention=rules), None, None, "cpu")
        assert worker.work(until_idle=True) == 1
        assert administrator.jobs.show(job.id).result["summary"] == "2 gone, 3 stay"
    assert numbers(ruled) == [3, 4]


def test_without_rules_in_the_server_nothing_is_pruned(served: Guarded, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text(RULES)  # of who asks
    refused = cli_of(served, "root")("prune", "*", "--yes")
    assert (refused.exit_code, len(refused.stderr.strip().splitlines())) == (2, 1)
    assert "the server has no rules" in refused.stderr
    assert served.behind.jobs.list().items == ()


def test_a_rule_that_is_none_is_told_to_who_asks(request: pytest.FixtureRequest, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text("[retention]\nkeep_last = 0\n")
    guarded: Guarded = request.getfixturevalue("guarded_folder")
    job = submit(guarded, "prune")
    work(guarded)
    with pytest.raises(UsageError, match=r"of the server: .*keep_last is 0") as refused:
        guarded.registry("root").jobs.wait(job.id)
    assert str(tmp_path) not in str(refused.value)


def test_an_alias_that_the_server_guards_keeps_what_it_last_meant(request: pytest.FixtureRequest, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text('[retention]\nkeep_last = 1\n[check]\naliases = ["prod"]\n')
    guarded: Guarded = request.getfixturevalue("guarded_folder")
    (tmp_path / "loreg.toml").unlink()
    for number in range(3):
        aliases = ["prod"] if number == 0 else []
        guarded.behind.push(train(tmp_path / f"adapter-{number}", number), "team/many", aliases=aliases)
    guarded.behind.untag("team/many", "prod")
    submit(guarded, "prune")
    with connect(**{key: getattr(guarded.behind.settings, key) for key in ("database_url", "storage_url")}) as plain:
        assert plain.settings.check == {}
        Worker(plain.settings, None, None, "cpu").work(until_idle=True)
    assert numbers(guarded) == [1, 3]


def test_a_prune_that_is_cancelled_stops_and_the_next_does_the_rest(ruled: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.verbs.prune._BATCH", 1)
    job = submit(ruled, "prune")
    cancel_when(ruled, job, monkeypatch, lambda what, done: done == 1)
    assert work(ruled) == 1
    assert ruled.behind.jobs.show(job.id).state == "cancelled"
    assert len(numbers(ruled)) == 3
    again = submit(ruled, "prune")
    assert work(ruled) == 1
    assert ruled.behind.jobs.show(again.id).result["summary"] == "1 gone, 3 stay"
    assert numbers(ruled) == [3, 4]


def test_the_prune_of_a_killed_worker_is_finished_by_the_next(ruled: Guarded):
    job = submit(ruled, "prune")
    die_at_the_second = (
        "import os, signal\nfrom loreg.local.upkeep import LocalUpkeep\nimport loreg.verbs.prune\n"
        "loreg.verbs.prune._BATCH, prune, calls = 1, LocalUpkeep.prune, []\n"
        "def dying(*a):\n    calls.append(a)\n"
        "    return prune(*a) if len(calls) == 1 else os.kill(os.getpid(), signal.SIGKILL)\n"
        f"LocalUpkeep.prune = dying\n{PROGRAM}"
    )
    with worker_process(ruled, program=die_at_the_second) as process:
        assert process.wait() == -signal.SIGKILL
    assert (len(numbers(ruled)), ruled.behind.jobs.show(job.id).state) == (3, "running")
    stall(ruled)
    assert work(ruled) == 1
    done = ruled.behind.jobs.show(job.id)
    assert (done.state, done.attempts, numbers(ruled)) == ("done", 2, [3, 4])


# ── backup ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_person_backs_up_through_a_server_as_beside_the_store(served: Guarded, target: str, tmp_path: Path):
    here, there = command_line({**environment_of(served), "LOREG_ENDPOINT": ""}), cli_of(served, "root")
    with worker_process(served, "--backup-to", target):
        made = there("backup", target)
        assert (made.exit_code, "3 new blobs, " in made.stdout) == (0, True)
        assert "waits for a worker; loreg job cancel" in made.stderr
        again = there("backup", target, "--verify", "--format", "json")
        assert (again.exit_code, json.loads(again.stdout)["known"]) == (0, 3)
        listed = there("backup", target, "--list")
        assert listed.stdout == here("backup", target, "--list").stdout
        assert len(documents(served, target)) == 2
        planned = there("backup", target, "--forget", "--keep-last", "1", "--dry-run")
        assert planned.stdout == here("backup", target, "--forget", "--keep-last", "1", "--dry-run").stdout
        assert there("backup", target, "--forget", "--keep-newer", "30d").stdout.count("keep_newer = 30d") == 1
        gone = there("backup", target, "--forget", "--keep-last", "1")
        assert (gone.exit_code, "1 snapshots are gone, 1 stay; " in gone.stdout) == (0, True)
        assert len(documents(served, target)) == 1
        store_of(served).delete(weights_of(served))
        served.behind.push(HISTORY, "team/history")
        lost = next(f.sha256 for f in served.behind.show("team/history").files if f.path.endswith(".safetensors"))
        store_of(served).delete(lost)
        broken = there("backup", target)
        assert (broken.exit_code, lost[:12] in broken.stdout) == (6, True)
        assert "has 1 blobs not whole" in broken.stderr
    assert events(served, "backup") == ["root"] * 3
    assert events(served, "forget") == ["root"]
    new = tmp_path / "new"
    restored = here("--home", new, "restore", target, "--incomplete")
    assert (restored.exit_code, lost[:12] in restored.stdout) == (6, True)
    assert "team/science" in here("--home", new, "ls").stdout


def test_the_report_of_a_backup_is_the_same_through_a_server(served: Guarded, target: str):
    result = back_up_by_worker(served, target)
    (snapshot,) = served.behind.list_backup(target)
    assert result["summary"] == f"snapshot {snapshot.name}, 0 not whole"
    with worker_process(served, "--backup-to", target), served.registry("root") as administrator:
        report = administrator.backup(f"{target}/")
        assert (report.ok, report.new, report.known) == (True, 0, 3)
        assert administrator.list_backup(target) == served.behind.list_backup(target)
        assert administrator.list_backup(target)[0] == report.snapshot
        forgotten = administrator.forget_snapshots(target, keep_last=1)
        assert (forgotten.going_count, forgotten.removed) == (1, 1)  # its dump: the list of blobs is the same
        with pytest.raises(UsageError, match="nothing says which"):
            administrator.forget_snapshots(target)


def test_a_target_is_named_by_an_option_or_the_environment(
    served: Guarded, target: str, monkeypatch: pytest.MonkeyPatch
):
    for arguments, environment in ((["--backup-to", target], ""), ([], f"/elsewhere {target}")):
        job = submit(served, "backup", target=target)
        monkeypatch.setenv("LOREG_BACKUP_TO", environment)
        with worker_process(served, *arguments, "--until-idle") as process:
            assert process.wait() == 0
        assert served.behind.jobs.show(job.id).state == "done"


@pytest.mark.parametrize("request_", [{}, {"action": "list"}, {"action": "forget", "keep_last": 1}])
def test_no_other_place_is_touched(served: Guarded, tmp_path: Path, request_: dict[str, Any]):
    """Neither beside nor below a place that was named; a place to repair from is none to back up to."""
    named, source = tmp_path / "named", tmp_path / "source"
    for place in (tmp_path / "other", f"{named}/../other", f"{named}/below", f"{named}-2", source, "named", "//x"):
        job = submit(served, "backup", target=str(place), **request_)
        worker = Worker(served.behind.settings, None, None, "cpu", [str(source)], [str(named)])
        assert worker.work(until_idle=True) == 1
        error = served.behind.jobs.show(job.id).error
        assert (error["code"], "does not back up to" in error["message"]) == ("not-allowed", True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("other", "named", "source")) == []


def test_a_command_is_told_which_command_backs_up_to_any_other_place(served: Guarded, tmp_path: Path):
    place = tmp_path / "mine"
    with worker_process(served, "--backup-to", str(tmp_path / "named")):
        refused = cli_of(served, "root")("backup", place)
    assert (refused.exit_code, place.exists()) == (4, False)
    assert f"does not back up to {place}, which its --backup-to does not name" in refused.stderr
    assert refused.stderr.strip().endswith(f"loreg --database-url URL --storage-url URL backup {place}")
    settings = served.behind.settings
    options = ["--database-url", settings.database_url, "--storage-url", settings.storage_url]
    environment = {"LOREG_STORAGE_ENDPOINT": settings.storage_endpoint, "LOREG_ENDPOINT": ""}
    assert command_line(environment)(*options, "backup", place).exit_code == 0


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("prune", {"retention": {"keep_last": 1}}),
        ("prune", {"pattern": "team/[a]"}),
        ("prune", {"pattern": 5}),
        ("backup", {}),
        ("backup", {"target": ""}),
        ("backup", {"target": "./here"}),
        ("backup", {"target": "~/here"}),
        ("backup", {"target": "/x", "action": "restore"}),
        ("backup", {"target": "/x", "action": "forget"}),
        ("backup", {"target": "/x", "action": "forget", "keep_last": 0}),
        ("backup", {"target": "/x", "keep_newer": "soon"}),
        ("backup", {"target": "/x", "keep_last": "5"}),
        ("backup", {"target": "/x", "sources": ["/y"]}),
        ("restore", {"target": "/x"}),
        ("move", {}),
    ],
)
def test_what_no_worker_does_is_refused_when_it_is_asked(ruled: Guarded, kind: str, request_: dict[str, Any]):
    with pytest.raises(UsageError) as refused:
        submit(ruled, kind, **request_)
    assert refused.value.hint
    assert ruled.behind.jobs.list().items == ()


def test_of_each_kind_one_is_open_at_a_time(ruled: Guarded):
    first, prune = submit(ruled, "backup", target="/one"), submit(ruled, "prune")
    assert submit(ruled, "backup", target="/one") == first
    assert submit(ruled, "prune") == prune
    for kind, other in (("backup", {"target": "/two"}), ("prune", {"pattern": "team/*"})):
        with pytest.raises(ConflictError, match=f"is a {kind} already, asked for by root"):
            submit(ruled, kind, **other)


def test_a_prune_by_rules_that_changed_is_another_one(tmp_path: Path):
    """Who asks again after the operator changed the rules does not get the job that goes by the old ones."""
    with connect(home=str(tmp_path / "home"), author="ada") as registry:
        for number in range(3):
            registry.push(train(tmp_path / f"adapter-{number}", number), "team/many")

        def ask(keep: int) -> Job:
            settings = replace(registry.settings, retention={"keep_last": keep})
            return open_local(settings).backend(Access.superuser("root")).submit("prune", {"pattern": "*"})

        first = ask(1)
        assert ask(1).id == first.id
        with pytest.raises(ConflictError, match=f"job {first.id} is a prune already"):
            ask(2)


def test_keys_in_a_place_are_refused_when_the_job_is_asked(served: Guarded):
    for kind, request in (
        ("backup", {"target": "s3://KEY:hush@b/x"}),
        ("repair", {"sources": ["s3://KEY:hush@b/x"]}),
    ):
        with pytest.raises(UsageError, match="has a key or a password in it") as refused:
            submit(served, kind, **request)
        assert "hush" not in str(refused.value)


def test_an_empty_place_of_the_operator_is_none(served: Guarded):
    job = submit(served, "backup", target="/")
    Worker(served.behind.settings, None, None, "cpu", (), [""]).work(until_idle=True)
    assert served.behind.jobs.show(job.id).error["code"] == "not-allowed"


def test_a_backup_that_is_cancelled_leaves_no_snapshot_and_the_next_goes_on(
    served: Guarded, target: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("loreg.workspace.blob_copies._CHUNK", 1)
    job = submit(served, "backup", target=target)
    cancel_when(served, job, monkeypatch, lambda what, done: what == "copying")
    worker = Worker(served.behind.settings, None, None, "cpu", (), [target])
    assert worker.work(until_idle=True) == 1
    assert (served.behind.jobs.show(job.id).state, documents(served, target)) == ("cancelled", [])
    assert back_up_by_worker(served, target)["known"] >= 1
    assert len(documents(served, target)) == 1


def test_a_backup_that_waits_can_be_cancelled(served: Guarded, target: str, monkeypatch: pytest.MonkeyPatch):
    job = submit(served, "backup", target=target)
    cancel_when(served, job, monkeypatch, lambda what, done: what.startswith("waiting for loreg backup --forget"))
    with served.behind.context.backend.upkeep().hold_removals(alone=True):
        Worker(served.behind.settings, None, None, "cpu", (), [target]).work(until_idle=True)
    assert served.behind.jobs.show(job.id).state == "cancelled"


@pytest.mark.parametrize(
    ("dies_at", "request_"), [("put", {}), ("delete", {"action": "forget", "keep_last": 1})]
)  # fmt: skip
def test_the_backup_of_a_killed_worker_is_finished_by_the_next(
    served: Guarded, target: str, dies_at: str, request_: dict[str, Any]
):
    for _ in range(2):
        served.behind.backup(target)
    served.behind.push(HISTORY, "team/history")
    job = submit(served, "backup", target=target, **request_)
    program = (
        "import os, signal\nfrom loreg.storage import FolderStore\nfrom loreg.storage.s3 import S3Store\n"
        f"FolderStore.{dies_at} = S3Store.{dies_at} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n{PROGRAM}"
    )
    with worker_process(served, "--backup-to", target, program=program) as process:
        assert process.wait() == -signal.SIGKILL
    stall(served)
    worker = Worker(served.behind.settings, None, None, "cpu", (), [target])
    assert worker.work(until_idle=True) == 1
    done = served.behind.jobs.show(job.id)
    assert (done.state, done.attempts) == ("done", 2)
    assert len(documents(served, target)) == (1 if request_ else 3)
    assert done.result["removed" if request_ else "new"] >= 1


def test_the_reports_have_the_first_of_each_list_and_count_all():
    decisions = tuple(PruneDecision(f"team/a:v{number}", "0" * 64, 1, True, "rule") for number in range(250))
    short = shorten(PruneReport(decisions, 250, 250, decisions, 250))
    assert ([len(short[name]) for name in ("going", "kept")], short["going_count"]) == ([100, 100], 250)
    snapshots = tuple(SnapshotDecision(f"{number}", True, "rule") for number in range(250))
    from loreg.entities import ForgetReport

    forgotten = shorten(ForgetReport("/x", snapshots, 250, 0, 1, 1))
    assert (len(forgotten["decisions"]), forgotten["going_count"]) == (100, 250)


# ── who may, and what is not for a server ──────────────────────────────────────────────────────────────────────────


def test_nobody_but_an_administrator_of_everything_asks_sees_or_cancels(ruled: Guarded):
    bodies = [
        {"kind": "prune", "request": {"pattern": "team/*"}},
        {"kind": "backup", "request": {"target": "/backup"}},
        {"kind": "backup", "request": {"target": "/backup", "action": "list"}},
    ]
    others = [role for role in ROLES if role != "root"]
    for body in bodies:
        for role in others:
            refused = ruled.http(role).post("/api/v1/jobs", json=body)
            assert (refused.status_code, role) == (401 if role == "anonymous" else 403, role)
    assert ruled.behind.jobs.list().items == ()
    jobs = [ruled.http("root").post("/api/v1/jobs", json=body).json()["id"] for body in bodies[:2]]
    for role in others:
        for job in jobs:
            url = f"/api/v1/jobs/{job}"
            http = ruled.http(role)
            assert (http.get(url).status_code, http.delete(url).status_code, role) == (404, 404, role)
    with ruled.registry("owner") as owner:
        for call in (owner.prune, lambda: owner.backup("/backup"), lambda: owner.list_backup("/backup")):
            with pytest.raises(NotAllowedError) as refused_call:
                call()
            assert refused_call.value.hint == "ask for a token with --scope admin:*"


@pytest.mark.parametrize("role", ["root", "reader"])
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("restore", "/backup"), "restore /backup"),
        (("restore", "s3://backup/loreg", "--snapshot", "2026"), "restore s3://backup/loreg"),
        (
            ("move", "--to-database", "postgresql://me:secret@db/x", "--to-storage", "s3://x/y"),
            "move --to-database 'postgresql://me:***@db/x' --to-storage s3://x/y",
        ),
        (("move", "--undo"), "move --undo"),
    ],
)
def test_restore_and_move_are_for_who_has_the_store(served: Guarded, role: str, arguments: Any, hint: str):
    refused = cli_of(served, role)(*arguments)
    assert (refused.exit_code, len(refused.stderr.strip().splitlines())) == (4, 1)
    assert f"{served.endpoint} does not {arguments[0]} its registry for its clients" in refused.stderr
    assert refused.stderr.strip().endswith(f"loreg --database-url URL --storage-url URL {hint}")
    assert served.behind.jobs.list().items == ()


def test_what_the_hints_say_works_where_the_store_is(served: Guarded, target: str, tmp_path: Path):
    served.behind.backup(target)
    settings = served.behind.settings
    new = [f"sqlite:///{tmp_path}/new/catalog.db", str(tmp_path / "new" / "store")]
    moved = [f"sqlite:///{tmp_path}/moved/catalog.db", str(tmp_path / "moved" / "store")]
    run = command_line({"LOREG_STORAGE_ENDPOINT": settings.storage_endpoint, "LOREG_ENDPOINT": ""})
    assert run("--database-url", new[0], "--storage-url", new[1], "restore", target).exit_code == 0
    there = ["--database-url", settings.database_url, "--storage-url", settings.storage_url]
    assert run(*there, "move", "--to-database", moved[0], "--to-storage", moved[1]).exit_code == 0
    assert run(*there, "move", "--undo").exit_code == 0
    assert served.http("root").post("/api/v1/jobs", json={"kind": "verify", "request": {}}).status_code == 202
