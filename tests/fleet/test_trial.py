"""Trials of a sweep in other processes: what is measured there is what is measured here, whatever ends meanwhile."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from concurrency import wait_until_ended
from deployments import empty_home
from fleet.sweeps import fill, losses_of, runs, what_was_tried
from loreg.entities import SweepCandidate, SweepOptions
from loreg.errors import ConflictError, EvaluationError, MissingExtraError, NotFoundError, UsageError
from loreg.fleet.processes import ProcessExecutor
from loreg.fleet.trial import Evaluation, TrialAnswer, TrialTask
from loreg.registry import Registry, connect

SCORE = f"{sys.executable} score.py {{dir}}"
SIX = SweepOptions(budget=6, jobs=2)


class TwoProcesses(ProcessExecutor[TrialTask]):
    """Stands where Ray would: what travels, and what comes back, is the same."""

    sent: ClassVar[list[bytes]] = []

    def __init__(self, address: str, gpus: int) -> None:
        super().__init__(2)
        self.sent.clear()

    def submit(self, task: TrialTask) -> None:
        self.sent.append(pickle.dumps(task))
        super().submit(task)

    def capacity(self) -> int:
        return 2


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which sweeps are started, on processes instead of Ray."""
    monkeypatch.setattr("loreg.verbs.sweep_on_cluster.RayExecutor", TwoProcesses)
    monkeypatch.setattr("loreg.verbs.sweep_on_cluster.pickle_function", pickle.dumps)
    return tmp_path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def trial_by(text: str, folder: Path, timeout: float | None = None) -> TrialTask:
    candidate = SweepCandidate("half of each", (0.5, 0.5))
    return TrialTask(candidate, {"score": b"0.25"}, Evaluation(text, b"", None, "", timeout, folder))


def answer_of(text: str, folder: Path, timeout: float | None = None) -> TrialAnswer:
    answer: TrialAnswer = pickle.loads(pickle.dumps(trial_by(text, folder, timeout).run()))  # as it comes back
    return answer


def read_score(folder: Path) -> float:
    return float((folder / "score").read_text())


def test_the_adapter_is_evaluated_in_the_folder_of_the_sweep(tmp_path: Path):
    (tmp_path / "sum").write_text("import sys; print(sum(float(open(name).read()) for name in sys.argv[1:]))")
    (tmp_path / "more").write_text("0.5")
    answer = answer_of(f"{sys.executable} sum more {{dir}}/score", tmp_path)
    assert answer.measured is not None
    assert answer.measured.scores == {"score": 0.75}


def test_a_function_travels_pickled(tmp_path: Path):
    task = trial_by("", tmp_path)
    answer = replace(task, evaluation=replace(task.evaluation, function=pickle.dumps(read_score))).run()
    assert answer.measured is not None
    assert answer.measured.scores == {"score": 0.25}
    answer = replace(task, evaluation=replace(task.evaluation, function=b"cno_such_module\nscore\n.")).run()
    assert isinstance(answer.error, UsageError)
    assert "cannot load the function that evaluates: ModuleNotFoundError" in answer.error.message


def test_losses_of_tokens_come_back(tmp_path: Path):
    answer = answer_of("""ls {dir} >/dev/null; echo '{"losses": {"qa": [0.25, 0.75]}}'""", tmp_path)
    assert answer.measured is not None
    assert answer.measured.losses["qa"].tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("ls {dir} >/dev/null; echo no GPU is free >&2; exit 3", EvaluationError, "exit code 3: no GPU is free"),
        ("python score.py", UsageError, "does not say where the merged adapter goes"),
        ("no_such_module:score", NotFoundError, "cannot import no_such_module:score"),
    ],
)
def test_what_fails_is_an_answer(tmp_path: Path, text: str, kind: type[Exception], message: str):
    error = answer_of(text, tmp_path).error
    assert isinstance(error, kind)
    assert message in str(error)
    assert error.hint


def test_what_hangs_ends_with_all_that_it_started(tmp_path: Path):
    command = f"sleep 1000 & echo $! > {tmp_path}/child; ls {{dir}} >/dev/null; wait"
    assert "no answer after 0.5 seconds" in str(answer_of(command, tmp_path, timeout=0.5).error)
    wait_until_ended(int((tmp_path / "child").read_text()))


def test_another_loreg_and_a_machine_without_the_folder_refuse(tmp_path: Path):
    error = replace(trial_by("cat {dir}/score", tmp_path), version="0.0.1").run().error
    assert isinstance(error, ConflictError)
    assert "the command is of loreg 0.0.1" in error.message
    error = answer_of("cat {dir}/score", tmp_path / "gone").error
    assert isinstance(error, UsageError)
    assert f"has no folder {tmp_path / 'gone'}, in which the sweep was started" in error.message


def test_a_sweep_says_bit_for_bit_what_it_says_in_one_process(registry: Registry, room: Path):
    folders = fill(room)
    local_registry = connect(home=empty_home(room / "other_home"))
    expected = local_registry.sweep(folders, SCORE, options=SIX)
    assert len(runs(room)) == 6
    result = registry.sweep(folders, SCORE, options=SIX, on="ray")
    assert (result.id, result.best, result.front) == (expected.id, expected.best, expected.front)
    assert what_was_tried(registry, result) == what_was_tried(local_registry, expected)
    assert len(runs(room)) == 12
    again = registry.resume_sweep(result.id)
    assert what_was_tried(registry, again) == what_was_tried(registry, result)
    assert len(runs(room)) == 12


def test_no_key_of_the_environment_travels(registry: Registry, room: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of S3")
    monkeypatch.setenv("HF_TOKEN", "a token of the Hub")
    registry.sweep(fill(room), SCORE, options=SweepOptions(budget=3), on="ray")
    assert len(TwoProcesses.sent) == 3
    for task in TwoProcesses.sent:
        assert b"score.py" in task
        assert b"a secret of S3" not in task
        assert b"a token of the Hub" not in task


def test_as_many_trials_as_there_was_room_for_in_the_beginning(registry: Registry, room: Path):
    folders = fill(room)
    result = registry.sweep(folders, SCORE, options=SweepOptions(budget=9, jobs=2), on="ray", dry_run=True)
    by_room = connect(home=empty_home(room / "other_home"))
    first = by_room.sweep(folders, SCORE, options=SweepOptions(budget=3), on="ray", dry_run=True)
    TwoProcesses.capacity, capacity = (lambda self: 5), TwoProcesses.capacity
    try:
        larger = by_room.resume_sweep(first.id, budget=9)
    finally:
        TwoProcesses.capacity = capacity
    assert [trial.candidate for trial in larger.trials] == [trial.candidate for trial in result.trials]


def test_a_sweep_by_the_losses_of_tokens_says_the_same(registry: Registry, room: Path):
    folders = fill(room)
    local_registry = connect(home=empty_home(room / "other_home"))
    options = SweepOptions(methods=("tsv",))
    expected = local_registry.sweep(folders, losses_of, options=options)
    result = registry.sweep(folders, losses_of, options=options, on="ray")
    assert result.comparisons == expected.comparisons
    assert [trial.confirmed for trial in result.baselines] == [trial.confirmed for trial in expected.baselines]
    assert what_was_tried(registry, result) == what_was_tried(local_registry, expected)


def test_a_trial_whose_worker_ends_is_evaluated_again(registry: Registry, room: Path):
    folders = fill(room)
    dying = f"mkdir killed 2>/dev/null && kill -9 $PPID; {SCORE}"
    result = registry.sweep(folders, dying, options=SIX, on="ray")
    assert (room / "killed").is_dir()
    local_registry = connect(home=empty_home(room / "other_home"))
    assert what_was_tried(registry, result) == what_was_tried(
        local_registry, local_registry.sweep(folders, dying, options=SIX)
    )


def test_a_trial_that_ends_each_worker_is_told_and_the_sweep_goes_on(registry: Registry, room: Path):
    folders = fill(room)
    (room / "score.py").write_text((room / "score.py").read_text() + "assert weights[0] != 0.6")
    deadly = f"{SCORE} || kill -9 $PPID"
    result = registry.sweep(folders, deadly, options=SIX, on="ray", dry_run=True)
    assert ["ended its worker 3 times" in trial.error for trial in result.trials].count(True) == 1
    assert len(result.trials) == 6


def test_what_cannot_be_merged_is_told_and_the_sweep_goes_on(registry: Registry, room: Path):
    options = SweepOptions(methods=("slerp",), jobs=2)
    result = registry.sweep(fill(room, 3), losses_of, options=options, on="ray", dry_run=True)
    assert [note for note in result.notes if note.startswith("slerp was not tried: ")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evaluate": SCORE, "on": "dask"}, "'dask' is no place where tasks run"),
        ({"data": ["qa=texts.txt"], "base": ".", "on": "ray"}, "--data loads the base once, here"),
        ({"calibration": "moments", "on": "ray"}, "--calibration alone evaluates nothing"),
        ({"evaluate": SCORE, "options": SweepOptions(gpus=1)}, "--gpus is what a trial has of a cluster"),
    ],
)
def test_what_cannot_run_elsewhere_is_refused(registry: Registry, arguments: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        registry.sweep(["./a", "./b"], **arguments)


def test_without_ray_it_says_what_to_install(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="Ray is not installed"):
        registry.sweep(fill(tmp_path), SCORE, on="ray")
