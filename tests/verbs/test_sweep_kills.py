"""A sweep on texts that is killed where it looks at moments or chooses the rank goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from deployments import command_line, empty_home
from loreg.sweeping.in_place import InPlaceModel
from tiny_models import LLAMA, count_on, teach, write_model

#: Runs loreg, and kills it as it comes to a function for the n-th time.
RUN = """
import importlib, os, runpy, signal, sys
place, name, occurrence, *arguments = sys.argv[1:]
owner = importlib.import_module(place)
*outer, name = name.split(".")
for part in outer:
    owner = getattr(owner, part)
function, calls = getattr(owner, name), []
def call(*positional, **named):
    calls.append(1)
    if len(calls) == int(occurrence):
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*positional, **named)
setattr(owner, name, call)
sys.argv[1:] = arguments
runpy.run_module("loreg_cli.main", run_name="__main__")
"""

#: Where it is killed, and how often it has been there by then.
POINTS = {
    "while moments are collected": ("loreg.sweeping.in_place_evaluator", "MomentsOfTask", 2),
    "moments written, not recorded": ("loreg.sweeping.journal", "Journal.record", 1),
    "while the cut's moments are collected": ("loreg.sweeping.in_place_evaluator", "MomentsOfTask", 4),
    "the ranks' errors known": ("loreg.sweeping.token_search", "choose_rank", 1),
    "the cut confirmed": ("loreg.sweeping.in_place_evaluator", "InPlaceEvaluator.confirm", 7),
    "two of the trials pushed": ("loreg.verbs.sweep_trials", "push", 3),
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    llama = write_model(folder / "llama", LlamaForCausalLM, LLAMA)
    steps = {"ones": 1, "fives": 5}
    for name, step in steps.items():
        teach(folder / name, llama, step)
    texts = ((task, text) for task, step in steps.items() for text in count_on(step, 40, 7 + step))
    lines = (json.dumps({"task": task, "text": " ".join(f"w{word}" for word in text)}) for task, text in texts)
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return folder


class Passes:
    """Counts how often a model is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        logits = InPlaceModel.logits

        def counting(model: InPlaceModel, batch: Any) -> Any:
            self.count += 1
            return logits(model, batch)

        monkeypatch.setattr(InPlaceModel, "logits", counting)


SWEEP = ("sweep", "./ones", "./fives", "--base", "./llama", "--data", "texts.jsonl", "--method", "regmean")


def without_times(output: str) -> dict[str, Any]:
    """The answer, without the seconds that merges and evaluations took."""
    result: dict[str, Any] = json.loads(output)
    for trial in (*result["trials"], *result["baselines"]):
        del trial["merge_seconds"], trial["evaluate_seconds"]
    return result


@pytest.fixture(scope="module")
def undisturbed(room: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """The answer of a sweep that nothing ends, and how often it ran the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(room)
        passes = Passes(patch)
        home = empty_home(tmp_path_factory.mktemp("undisturbed"))
        outcome = command_line({"LOREG_HOME": str(home)})(*SWEEP, "--format", "json")
    assert outcome.exit_code == 0, outcome.stderr
    return without_times(outcome.stdout), passes.count


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_costs_only_what_was_under_way(
    room: Path,
    undisturbed: tuple[dict[str, Any], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
):
    answer, whole = undisturbed
    assert answer["trials"][answer["best"]]["candidate"]["rank"] is not None
    monkeypatch.chdir(room)
    place, name, occurrence = POINTS[point]
    home = {"LOREG_HOME": str(empty_home(tmp_path / "home"))}
    killed = subprocess.run(
        [sys.executable, "-c", RUN, place, name, str(occurrence), *SWEEP], env={**os.environ, **home}, text=True,
        capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not killed.stdout
    (folder,) = tmp_path.glob("home/**/sweeps/*")
    passes = Passes(monkeypatch)
    resumed = command_line(home)("sweep", "--resume", folder.name, "--format", "json")
    assert resumed.exit_code == 0, resumed.stderr
    assert without_times(resumed.stdout) == answer
    is_early = "moments" in point and occurrence <= 2
    assert passes.count == whole if is_early else passes.count < whole / 4
    assert not list(folder.glob(".put-*"))
