"""A probe over all versions: every one once, whatever ends meanwhile; what a push records is the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine, text

from deployments import Deployment, Loreg
from factories import deltas_by_peft, train
from fleet.conftest import ALPHAS, forget_facts
from fleet.probe_packages import install
from fleet.writes import list_writes, record_writes
from loreg import Registry
from loreg.entities import MapRun, MapSelection, VersionFacts
from loreg.errors import ConflictError, LoregError, NotAllowedError, NotFoundError, UnavailableError, UsageError
from loreg.probes.probe import Probe, find_probe
from loreg.refs import parse_ref

#: A program that maps the probe ``mine`` with one version in each chunk.
DRIVER = """
import json, os, sys
import loreg.local.maps
from loreg import connect

if __name__ == "__main__":
    loreg.local.maps._MAX_VERSIONS = 1
    with connect(**json.loads(os.environ["SETTINGS"])) as registry:
        registry.map("mine", processes=1)
"""


def facts_of(registry: Registry, ref: str, probe: str) -> VersionFacts:
    (facts,) = [facts for facts in registry.facts(ref) if facts.probe == probe]
    return facts


def values_of(registry: Registry, probe: str) -> dict[int, object]:
    """What a probe said of each version, by its alpha."""
    return {alpha: facts_of(registry, f"team/a{alpha}", probe).value for alpha in ALPHAS}


def test_versions_of_before_are_checked_as_a_push_does_it(filled: Registry, database: Engine):
    expected, counts = values_of(filled, "check"), filled.count_findings()
    forget_facts(database)
    assert filled.count_findings().findings == ()
    report = filled.map("check", processes=2)
    assert (report.recorded, report.run.versions, report.failed_count, report.gone) == (6, 6, 0, 0)
    assert values_of(filled, "check") == expected
    assert filled.count_findings() == counts


def test_what_is_known_is_left_out_unless_again(filled: Registry):
    assert filled.map("check").run.versions == 0
    assert filled.map("check", "team/a1?", again=True, processes=1).recorded == 4
    with pytest.raises(NotFoundError, match=r"no adapter matches 'other/\*'"):
        filled.map("spectra", "other/*")


def test_spectra_are_the_singular_values_of_the_deltas(filled: Registry, adapters: dict[int, Path]):
    filled.map("spectra", "team/a9", processes=1)
    value = facts_of(filled, "team/a9", "spectra").value
    deltas = deltas_by_peft(adapters[9])
    assert value["modules"].keys() == deltas.keys()
    for name, sigmas in value["modules"].items():
        assert sigmas == pytest.approx(torch.linalg.svdvals(deltas[name])[: len(sigmas)].tolist(), rel=1e-6)


def test_a_sketch_is_filled_in_where_there_is_none(filled: Registry, database: Engine):
    backend, ref = filled.context.backend, filled.show("team/a9").version.ref
    expected = backend.sketch(parse_ref(ref))
    with database.begin() as connection:
        connection.execute(text("DELETE FROM sketches"))
    filled.map("sketch", processes=1)
    assert backend.sketch(parse_ref(ref)) == expected
    assert facts_of(filled, ref, "sketch").value == {"data": expected.data, "norm": expected.norm}


def test_a_package_brings_a_probe_of_its_own(filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    install(monkeypatch, tmp_path / "one", "pass")
    assert filled.map("mine", processes=1).recorded == 6
    assert {alpha: value["alpha"] for alpha, value in values_of(filled, "mine").items()} == {a: a for a in ALPHAS}
    assert filled.map("mine", processes=1).run.versions == 0
    monkeypatch.undo()


def test_another_release_of_a_probe_says_it_anew(filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    install(monkeypatch, tmp_path / "one", "pass")
    filled.map("mine", "team/a8", processes=1)
    (tmp_path / "one" / "my_probes-1.0.dist-info").rename(tmp_path / "one" / "my_probes-2.0.dist-info")
    metadata = tmp_path / "one" / "my_probes-2.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "2.0"))
    assert filled.map("mine", "team/a8", processes=1).recorded == 1
    assert facts_of(filled, "team/a8", "mine").release == "2.0"


def test_one_that_the_probe_cannot_read_is_named_and_tried_again(
    filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    package = install(monkeypatch, tmp_path / "one", "raise ValueError('13 is unlucky')")
    report = filled.map("mine", processes=2)
    assert report.failed == (("team/a13:v1", "ValueError: 13 is unlucky"),)
    assert facts_of(filled, "team/a13", "mine").error == "ValueError: 13 is unlucky"
    assert (report.recorded, filled.map("mine", processes=1).run.versions) == (6, 1)
    (package / "my_probes.py").write_text("def probe(adapter):\n    return {'alpha': 13.0}\n")
    assert filled.map("mine", processes=1).failed == ()
    assert facts_of(filled, "team/a13", "mine").error == ""


@pytest.mark.parametrize(
    ("what", "reason"),
    [("return {'nan': float('nan')}", "no JSON"), ("return [1]", "returned list"), ("return {1: {2}}", "no JSON")],
)
def test_what_json_cannot_say_is_refused(
    filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, reason: str
):
    install(monkeypatch, tmp_path / "one", what)
    ((_, error),) = filled.map("mine", "team/a13", processes=1).failed
    assert reason in error


def test_the_adapter_that_ends_its_worker_is_found_among_the_others(
    filled: Registry, database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """All six are in one chunk, which is halved until the one is left."""
    install(monkeypatch, tmp_path / "one", "os.kill(os.getpid(), signal.SIGKILL)")
    record_writes(database)
    report = filled.map("mine", processes=2)
    ((ref, error),) = report.failed
    assert (ref, report.recorded) == ("team/a13:v1", 6)
    assert "its worker ended, the last of 3 times" in error
    assert len(list_writes(database)) == len(set(list_writes(database))) == 6


@pytest.mark.usefixtures("one_in_a_chunk")
def test_workers_that_are_killed_leave_nothing_out_and_nothing_twice(
    filled: Registry, database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    once = f"marker = Path({str(tmp_path)!r}) / 'killed'; first = not marker.exists(); marker.touch()"
    install(monkeypatch, tmp_path / "one", f"{once}; first and os.kill(os.getpid(), signal.SIGKILL)")
    record_writes(database)
    report = filled.map("mine", processes=2)
    assert (report.recorded, report.failed, report.retries) == (6, (), 1)
    assert len(list_writes(database)) == len(set(list_writes(database))) == 6


def kill_starting_workers(monkeypatch: pytest.MonkeyPatch, folder: Path, count: int) -> None:
    """The first processes that are to be workers end before they are."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\nfrom pathlib import Path\n"
        f"marker = Path({str(folder)!r}) / str(len(os.listdir({str(folder)!r})))\n"
        f"if '--multiprocessing-fork' in sys.orig_argv and int(marker.name) <= {count}:\n"
        "    marker.touch()\n    os._exit(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def test_a_worker_that_is_killed_before_it_begins_is_started_again(
    filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    kill_starting_workers(monkeypatch, tmp_path / "starts", 3)
    report = filled.map("spectra", processes=1)
    assert (report.recorded, report.retries, len(list((tmp_path / "starts").iterdir()))) == (6, 0, 4)


def test_workers_that_never_begin_end_the_run(filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    kill_starting_workers(monkeypatch, tmp_path / "starts", 100)
    with pytest.raises(LoregError, match="did not start"):
        filled.map("spectra", processes=1)


def test_whoever_drives_may_be_killed_and_the_next_goes_on(
    filled: Registry, local_deployment: Deployment, database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    once = f"marker = Path({str(tmp_path)!r}) / 'killed'; first = not marker.exists(); marker.touch()"
    install(monkeypatch, tmp_path / "one", f"{once}; first and os.kill(os.getppid(), signal.SIGKILL)")
    record_writes(database)
    (tmp_path / "driver.py").write_text(DRIVER)
    settings = {**local_deployment.settings}
    environment = {**os.environ, "SETTINGS": json.dumps(settings, default=str)}
    killed = subprocess.run([sys.executable, tmp_path / "driver.py"], env=environment, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < len(list_writes(database)) < 6
    report = filled.map("mine", processes=2)
    assert (report.run.resumed, report.run.done + report.recorded) == (True, 6)
    assert len(list_writes(database)) == len(set(list_writes(database))) == 6


def test_what_a_probe_prints_is_none_of_the_results(
    local: Loreg, adapters: dict[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Nor is a process that it forks, and that comes back beside it."""
    install(monkeypatch, tmp_path / "one", "os.system('echo noise'); print('noise'); os.fork()")
    for alpha in (12, 13):
        local("push", str(adapters[alpha]), f"team/a{alpha}")
    outcome = local("map", "mine", "--processes", "1", "--format", "json")
    assert json.loads(outcome.stdout)["recorded"] == 2


@pytest.mark.usefixtures("one_in_a_chunk")
def test_a_chunk_that_another_did_meanwhile_changes_nothing(filled: Registry, database: Engine):
    """As who was taken for dead, and was not, records late."""
    forget_facts(database)
    maps, probe = filled.context.backend.upkeep().maps(), find_probe("check")
    wanted = MapRun(probe.name, probe.release, MapSelection(("*",)), False)
    run = maps.begin(wanted, reads_weights=False)
    (late, *_) = maps.claim(run, 6)
    again = maps.begin(wanted, reads_weights=False)
    assert (again.id, again.resumed) == (run.id, True)
    (current, *_) = maps.claim(again, 6)
    assert (current.number, current.attempts) == (late.number, late.attempts + 1)
    facts = {version.id: probe.failure("early") for version in late.versions}
    assert maps.finish(late, facts) is None
    assert filled.facts(late.versions[0].ref) == ()
    assert len(maps.finish(current, facts) or ()) == 1
    assert maps.finish(current, {v: probe.failure("twice") for v in facts}) is None
    assert facts_of(filled, late.versions[0].ref, "check").error == "early"


@pytest.mark.usefixtures("one_in_a_chunk")
def test_a_version_that_is_deleted_meanwhile_is_left_out(filled: Registry, database: Engine):
    forget_facts(database)
    maps, probe = filled.context.backend.upkeep().maps(), find_probe("check")
    wanted = MapRun(probe.name, probe.release, MapSelection(("*",)), False)
    chunks = maps.claim(maps.begin(wanted, reads_weights=False), 6)
    filled.delete(chunks[0].versions[0].ref, reason="private")
    filled.delete(chunks[1].versions[0].ref, reason="private")
    assert maps.finish(chunks[0], {chunks[0].versions[0].id: probe.failure("late")}) == {}
    report = filled.map("check", processes=1)
    assert (report.recorded, report.gone) == (4, 1)


def test_what_is_pushed_meanwhile_is_not_of_the_run(filled: Registry, database: Engine, tmp_path: Path):
    forget_facts(database)
    maps, probe = filled.context.backend.upkeep().maps(), find_probe("check")
    maps.begin(MapRun(probe.name, probe.release, MapSelection(("*",)), False), reads_weights=False)
    filled.push(train(tmp_path / "new", 1), "team/new")
    assert filled.map("check", processes=1).run.versions == 6


def test_one_probe_runs_at_a_time(filled: Registry):
    with filled.context.backend.upkeep().maps().exclusive(), pytest.raises(ConflictError, match="another loreg map"):
        filled.map("check", again=True)


def test_what_cannot_be_is_refused(filled: Registry):
    with pytest.raises(NotFoundError, match="no probe 'chek'; did you mean 'check'"):
        filled.map("chek")
    with pytest.raises(UsageError):
        filled.map("check", processes=0)


def test_the_command_prints_what_failed_and_says_so_by_its_code(
    local: Loreg, adapters: dict[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    install(monkeypatch, tmp_path / "one", "raise ValueError('13 is unlucky')")
    for alpha in (8, 13):
        local("push", str(adapters[alpha]), f"team/a{alpha}")
    outcome = local("map", "mine", "--format", "quiet")
    assert (outcome.exit_code, outcome.stdout) == (5, "team/a13:v1\n")
    assert "1 of 1 versions" in local("map", "mine").stdout
    assert '"recorded": 2' in local("map", "spectra", "--format", "json").stdout


def test_ctrl_c_ends_it_with_its_workers_and_loses_nothing(
    local: Loreg, adapters: dict[int, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The probe itself presses Ctrl-C, in the process that drives it and in its own, and then never ends."""
    pressed = f"Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid())); os.kill(os.getppid(), signal.SIGINT)"
    package = install(monkeypatch, tmp_path / "one", f"{pressed}; os.kill(os.getpid(), signal.SIGINT); signal.pause()")
    local("push", str(adapters[13]), "team/a13")
    command = [sys.executable, "-m", "loreg_cli.main", "map", "mine"]
    environment = {**os.environ, "LOREG_HOME": str(tmp_path / "home")}
    outcome = subprocess.run(command, env=environment, capture_output=True, timeout=120, text=True)
    assert outcome.returncode == 130, outcome.stderr
    assert "Traceback" not in outcome.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    (package / "my_probes.py").write_text("def probe(adapter):\n    return {'alpha': 13}\n")
    assert "1 of 1 versions" in local("map", "mine").stdout


def test_a_store_that_does_not_answer_is_no_fact_of_an_adapter(
    filled: Registry, database: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    package = install(
        monkeypatch,
        tmp_path / "one",
        "from loreg.errors import UnavailableError; raise UnavailableError('down', hint='')",
    )
    with pytest.raises(UnavailableError, match="down"):
        filled.map("mine", processes=1)
    assert [facts.probe for facts in filled.facts("team/a13")] == ["check"]
    (package / "my_probes.py").write_text("def probe(adapter):\n    return {'alpha': 13}\n")
    report = filled.map("mine", processes=1)
    assert (report.run.resumed, report.recorded + report.run.done) == (True, 6)


@pytest.mark.parametrize("local_deployment", ["postgres+s3"], indirect=True)
def test_keys_that_a_worker_lacks_are_no_fact_of_an_adapter(filled: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAllowedError, match="no credentials"):
        filled.map("spectra", processes=1)
    assert [facts.probe for facts in filled.facts("team/a8")] == ["check"]


def test_weights_that_are_lost_are_named(filled: Registry):
    weights = next(file for file in filled.show("team/a8").files if file.path.endswith(".safetensors"))
    filled.context.store.delete(weights.sha256)
    ((ref, error),) = filled.map("spectra", processes=1).failed
    assert ref == "team/a8:v1"
    assert weights.sha256[:12] in error


def test_a_full_disk_is_no_fault_of_the_adapter():
    def write() -> dict[str, object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UnavailableError, match="No space left on device"):
        find_probe("check").call(write)
    assert "Is a directory" in find_probe("check").call(lambda: Path("/").read_bytes()).error


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("it says not what")


class PanicError(BaseException):
    """As Rust's, which is no Exception."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit("bye"), "SystemExit: bye"),
        (PanicError("index out of bounds"), "PanicError: index out of bounds"),
        (UnspeakableError(), "UnspeakableError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_a_probe_raises_is_said_of_the_adapter(error: BaseException, reason: str):
    def probe(adapter: object) -> dict[str, object]:
        raise error

    assert Probe("mine", "1", False, probe).run(None).error == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": "\ud800"}, "is no JSON"),
        ({"x": "y" * 17_000_000}, "17,000,008 bytes, expected 16,777,216 at most"),
    ],
)
def test_what_nobody_could_be_sent_is_not_recorded(value: dict[str, object], reason: str):
    assert reason in Probe("mine", "1", False, lambda adapter: value).run(None).error


def test_an_entry_point_that_is_no_function_is_refused(
    filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    install(monkeypatch, tmp_path / "one", "pass")
    (tmp_path / "one" / "my_probes.py").write_text("import os as probe")
    with pytest.raises(UsageError, match="my_probes:probe is module"):
        filled.map("mine")
