"""A map through a server: a worker does it for an administrator, and whatever is killed, every fact is there once."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from deployments import command_line
from fleet.probe_packages import install
from fleet.writes import list_writes, record_writes
from loreg.entities import JobState
from loreg.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from loreg.parsing import parse_conditions
from loreg.worker import Worker
from server.conftest import Guarded
from server.test_upkeep_jobs import cancel_when, cli_of, environment_of, stall, submit, work, worker_process

#: A worker that gives each version a chunk of its own.
PROGRAM = "import loreg.local.maps; loreg.local.maps._MAX_VERSIONS = 1; from loreg_cli.main import cli; cli()"


@pytest.fixture(params=["guarded", "guarded_folder"])
def served(request: pytest.FixtureRequest, adapters: dict[int, Path]) -> Guarded:
    """A server with a version of team/science, and of each adapter by its alpha."""
    served: Guarded = request.getfixturevalue(request.param)
    for alpha, folder in adapters.items():
        served.behind.push(folder, f"team/a{alpha}", tasks=["qa"])
    return served


@pytest.fixture
def catalog(served: Guarded) -> Iterator[Engine]:
    engine = create_engine(served.behind.settings.database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def test_a_person_sees_the_same_through_a_server_as_beside_the_store(served: Guarded):
    here, there = command_line({**environment_of(served), "LOREG_ENDPOINT": ""}), cli_of(served, "root")
    with worker_process(served):
        mapped = there("map", "spectra", "--task", "qa", "--module", "q_proj", "--format", "json")
        expected = here("map", "spectra", "--task", "qa", "--module", "q_proj", "--again", "--format", "json")
        assert (mapped.exit_code, expected.exit_code) == (0, 0)
        assert "waits for a worker; loreg job cancel" in mapped.stderr
        reports = [json.loads(outcome.stdout) for outcome in (mapped, expected)]
        for report in reports:
            for name in ("again", "id"):
                del report["run"][name]
            del report["seconds"]
        assert reports[0] == reports[1]
        assert reports[0]["recorded"] == len(served.behind.search(tasks=["qa"]).items)
        assert "2 of 2 versions" in there("map", "spectra", "team/science", "team/a9", "--again").stdout
    assert {facts.probe for facts in served.behind.facts("team/a8")} == {"check", "spectra"}


def test_what_could_not_be_read_is_named_where_it_was_asked_for(
    served: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    install(monkeypatch, tmp_path / "one", "raise ValueError('13 is unlucky')")
    with worker_process(served):
        outcome = cli_of(served, "root")("map", "mine", "team/a1?", "--format", "quiet")
        assert (outcome.exit_code, outcome.stdout) == (5, "team/a13:v1\n")
        with served.registry("root") as root, pytest.raises(NotFoundError, match="no probe 'chek'; did you mean"):
            root.map("chek")
    assert "4 of 4, 1 failed" in cli_of(served, "root")("job", "ls").stdout


def test_a_worker_may_be_killed_and_the_next_goes_on(
    served: Guarded, catalog: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    once = f"marker = Path({str(tmp_path)!r}) / 'killed'; first = not marker.exists(); marker.touch()"
    install(monkeypatch, tmp_path / "one", f"{once}; first and os.kill(os.getppid(), signal.SIGKILL)")
    record_writes(catalog)
    job = submit(served, "map", probe="mine", selectors=["team/a*"])
    with worker_process(served, program=PROGRAM) as killed:
        assert killed.wait(120) == -signal.SIGKILL
    assert 0 < len(list_writes(catalog)) < 6
    stall(served)
    assert work(served) == 1
    done = served.behind.jobs.show(job.id)
    assert (done.state, done.attempts, done.result["run"]["resumed"]) == (JobState.DONE, 2, True)
    assert len(list_writes(catalog)) == len(set(list_writes(catalog))) == 6


def test_a_job_waits_while_somebody_else_maps(served: Guarded):
    job = submit(served, "map", probe="spectra", selectors=["*"])
    with served.behind.context.backend.upkeep().maps().exclusive():
        work(served)
        assert served.behind.jobs.show(job.id).state == JobState.QUEUED
    work(served)
    assert served.behind.jobs.show(job.id).result["recorded"] == 7


@pytest.mark.usefixtures("one_in_a_chunk")
def test_a_map_that_is_cancelled_stops_and_what_is_done_stays(served: Guarded, monkeypatch: pytest.MonkeyPatch):
    job = submit(served, "map", probe="spectra", selectors=["*"])
    cancel_when(served, job, monkeypatch, lambda what, done: what == "probing" and done > 0)
    work(served)
    assert served.behind.jobs.show(job.id).state == JobState.CANCELLED
    report = served.behind.map("spectra", processes=1)
    assert report.run.resumed
    assert 0 < report.recorded < 7


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"probe": "check"},
        {"probe": "check", "selectors": ["*"], "search": {}},
        {"probe": "check", "selectors": ["team/*:v1"]},
        {"probe": "check", "search": {"tasks": "qa"}},
        {"probe": "check", "search": {"colour": "red"}},
        {"probe": "check", "search": {"tasks": [""]}},
        {"probe": "check", "selectors": ["*"], "processes": 3},
    ],
    ids=str,
)
def test_what_no_worker_understands_is_refused_when_it_is_asked(guarded_folder: Guarded, request_: dict[str, object]):
    with pytest.raises(UsageError):
        submit(guarded_folder, "map", **request_)
    assert guarded_folder.behind.jobs.list().items == ()


def test_it_is_for_administrators_and_one_is_open_at_a_time(guarded_folder: Guarded):
    for role in ("owner", "reader"):
        with guarded_folder.registry(role) as caller, pytest.raises(NotAllowedError):
            caller.map("check")
    submit(guarded_folder, "map", probe="check", selectors=["*"])
    with guarded_folder.registry("root") as root, pytest.raises(ConflictError, match="job 1"):
        root.map("check", parse_conditions(tasks=["qa"]))


def test_where_chunks_run_is_said_where_the_worker_is_started(guarded_folder: Guarded):
    with guarded_folder.registry("root") as root:
        for options in ({"processes": 2}, {"on": "ray"}):
            with pytest.raises(UsageError, match="as its own options say"):
                root.map("check", **options)
    for place in ("ray", "spark://10.0.0.1"):
        with pytest.raises(UsageError):
            Worker(guarded_folder.behind.settings, None, None, "cpu", on=place)
