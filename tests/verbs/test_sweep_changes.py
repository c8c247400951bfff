"""What has changed since a sweep was ended: sources, tasks, its versions, or the files that it keeps."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from deployments import Loreg
from factories import change_tensors, train, write_base
from verbs.test_sweep_resume import run_three


def test_a_folder_that_has_changed_is_another_sweep(local: Loreg, tmp_path: Path):
    for i in range(2):
        train(tmp_path / f"source{i}", i)
    result = run_three(local, "./source0", "./source1")
    name = "base_model.model.layers.0.q_proj.lora_B.weight"
    change_tensors(tmp_path / "source0", {name: torch.ones(24, 4)})
    outcome = local("sweep", "--resume", result["id"])
    assert outcome.exit_code == 7
    assert "has changed since it began" in outcome.stderr
    assert run_three(local, "./source0", "./source1")["id"] != result["id"]


def test_what_damage_there_is_to_what_was_kept_is_told_with_the_command_that_mends_it(local: Loreg, tmp_path: Path):
    for i in range(2):
        train(tmp_path / f"source{i}", i)
    losses = "print(json.dumps({'losses': {'all': [1 + i % 7 for i in range(2000)]}}))"
    for script, line in (("scores.py", "print(1.5)"), ("losses.py", losses)):
        (tmp_path / script).write_text(f"import json, sys\n{line}\n")
        command = ["sweep", "./source0", "./source1", "--eval", f"{sys.executable} {script} {{dir}}", "--budget", "8"]
        result = local(*command, "--format", "json")
        assert result.exit_code == 0, result.stderr
        (folder,) = tmp_path.glob(f"**/sweeps/{json.loads(result.stdout)['id']}")
        kept = sorted(path for path in folder.iterdir() if path.suffix)
        assert {path.suffix for path in kept} == ({".json", ".npz"} if script == "losses.py" else {".json"})
        refused = 0
        for path in kept:
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:10])
            damaged = local("sweep", "--resume", folder.name) if path.name == "sweep.json" else local(*command)
            if damaged.exit_code == 0:  # as which version a trial was pushed is asked of the registry
                assert len(path.read_bytes()) > 10
                continue
            assert damaged.exit_code == 6, damaged.stderr
            assert str(path) in damaged.stderr
            assert "Traceback" not in damaged.stderr
            if f"rm -f {path}" in damaged.stderr:
                path.unlink()
            again = local(*command, "--format", "json")
            assert again.exit_code == 0, again.stderr
            assert scores_of(again.stdout) == scores_of(result.stdout)
            refused += 1
        assert refused >= 9  # the request, and each measurement


def scores_of(output: str) -> list[dict[str, float]]:
    return [trial["scores"] for trial in json.loads(output)["trials"]]


#: What lm-evaluation-harness leaves of a run, written by a program of its name.
HARNESS = """#!{python}
import json, pathlib, sys
output = pathlib.Path(sys.argv[sys.argv.index("--output_path") + 1])
score = float(pathlib.Path("tasks/own.yaml").read_text().split()[-1])
results = {{"results": {{"own": {{"acc,none": score}}}}, "configs": {{}}, "versions": {{}}}}
output.with_name("results_2026.json").write_text(json.dumps(results))
"""


def test_a_task_that_has_changed_is_measured_again(local: Loreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(2):
        train(tmp_path / f"source{i}", i)
    base = write_base(tmp_path / "base")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/lm_eval").write_text(HARNESS.format(python=sys.executable))
    (tmp_path / "bin/lm_eval").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "tasks").mkdir()
    command = ["sweep", "./source0", "./source1", "--base", base, "--budget", "3", "--format", "json"]
    command += ["--eval", "lm-eval:own --include_path tasks", "--dry-run"]
    results = []
    for score in (0.5, 0.5, 0.75):
        (tmp_path / "tasks/own.yaml").write_text(f"task: own\nweight: {score}\n")
        outcome = local(*command)
        assert outcome.exit_code == 0, outcome.stderr
        results.append(json.loads(outcome.stdout))
    assert [result["trials"][0]["scores"] for result in results] == [{"own": 0.5}, {"own": 0.5}, {"own": 0.75}]
    assert results[0]["id"] == results[1]["id"] != results[2]["id"]
    outcome = local("sweep", "--resume", results[0]["id"])
    assert outcome.exit_code == 7
    assert "a task of the sweep" in outcome.stderr


@pytest.mark.parametrize("command", [["yank"], ["delete", "--yes"]])
def test_a_trial_that_is_withdrawn_stays_so_and_the_sweep_goes_on(local: Loreg, tmp_path: Path, command: list[str]):
    for i in range(2):
        train(tmp_path / f"source{i}", i)
    result = run_three(local, "./source0", "./source1")
    withdrawn = result["trials"][1]["version"]
    assert local(command[0], withdrawn, "--reason", "of no use", *command[1:]).exit_code == 0
    outcome = local("sweep", "--resume", result["id"], "--budget", "4", "--format", "json")
    assert outcome.exit_code == 0, outcome.stderr
    assert "trial 1 is no version any more" in outcome.stderr
    again = json.loads(outcome.stdout)
    assert [trial["version"] for trial in again["trials"][:3]] == [
        result["trials"][0]["version"],
        "",
        result["trials"][2]["version"],
    ]
    assert len(again["trials"]) == 4
