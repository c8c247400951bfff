"""A sweep that was ended goes on: what was measured is kept, and is measured once, however the sweep ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from concurrency import wait_until_ended
from deployments import Loreg
from factories import train, write_base

#: Appends the weights of the adapter that it is given to a file, then scores it; hangs at the fourth.
SCORE = """
import json, os, pathlib, sys, time
weights = [source["weight"] for source in json.load(open(sys.argv[1] + "/loreg_merge.json"))["recipe"]["sources"]]
here = pathlib.Path(__file__).parent
if (here / "hang").exists() and len((here / "runs").read_text().split("\\n")) == 4:
    (here / "pid").write_text(str(os.getpid()))
    with open(here / "hangs", "w"):  # which waits for the one that reads
        pass
    time.sleep(1000)
print(-sum((weight - best) ** 2 for weight, best in zip(weights, (0.45, 0.3))))
with open(here / "runs", "a") as file:
    file.write(json.dumps(weights) + "\\n")
"""


class Sweep:
    """A sweep in a process of its own, whose scorer hangs at the fourth trial until the file ``hang`` is removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "score.py").write_text(SCORE)
        (folder / "runs").touch()
        (folder / "hang").touch()
        os.mkfifo(folder / "hangs")
        for i in range(2):
            train(folder / f"source{i}", i)

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "loreg_cli.main", "sweep"]
        if "--resume" not in options:
            score = f"{sys.executable} score.py {{dir}}"
            command += ["./source0", "./source1", "--eval", score, "--budget", "8", "--format", "json"]
        environment = {**os.environ, "LOREG_HOME": str(self.folder / "home")}
        return subprocess.Popen(
            [*command, *options], cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_until_it_hangs(self) -> None:
        reader = os.open(self.folder / "hangs", os.O_RDONLY | os.O_NONBLOCK)
        assert select.select([reader], [], [], 60)[0]  # until the scorer opens the other end
        os.close(reader)

    def runs(self) -> Counter[str]:
        return Counter((self.folder / "runs").read_text().split("\n")[:-1])


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def identity(tmp_path: Path) -> str:
    (folder,) = tmp_path.glob("home/**/sweeps/*")
    return folder.name


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_what_runs_and_loses_nothing(sweep: Sweep, tmp_path: Path, jobs: str):
    process = sweep.start("--jobs", jobs)
    sweep.wait_until_it_hangs()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    how_to_go_on = f"loreg sweep --resume {identity(tmp_path)}"
    assert errors.strip().splitlines()[-1] == f"error: interrupted. Hint: {how_to_go_on}"
    wait_until_ended(int((tmp_path / "pid").read_text()))
    before = sweep.runs()
    assert sum(before.values()) >= 3
    (tmp_path / "hang").unlink()
    output, errors = sweep.start(*how_to_go_on.split()[2:], "--format", "json").communicate(timeout=50)
    result = json.loads(output)
    assert sweep.runs() >= before
    assert set(sweep.runs().values()) == {1}
    assert len(result["trials"]) == sum(sweep.runs().values())
    assert len({trial["version"] for trial in result["trials"]}) == len(result["trials"])


def test_a_kill_loses_nothing_and_a_larger_budget_goes_on(sweep: Sweep, tmp_path: Path):
    process = sweep.start()
    sweep.wait_until_it_hangs()
    process.kill()
    process.communicate(timeout=50)
    wait_until_ended(int((tmp_path / "pid").read_text()))
    (tmp_path / "hang").unlink()
    resumed = sweep.start("--resume", identity(tmp_path), "--budget", "8", "--format", "json")
    result = json.loads(resumed.communicate(timeout=50)[0])
    assert set(sweep.runs().values()) == {1}
    assert len(result["trials"]) == sum(sweep.runs().values()) <= 8
    larger = sweep.start("--resume", result["id"], "--budget", "20", "--format", "json")
    more = json.loads(larger.communicate(timeout=50)[0])
    assert set(sweep.runs().values()) == {1}
    assert more["trials"][: len(result["trials"])] == result["trials"]
    best = more["trials"][more["best"]]["candidate"]["weights"]
    assert best == pytest.approx([0.45, 0.3], abs=0.04)


def test_one_process_at_a_time_drives_a_sweep(sweep: Sweep, tmp_path: Path):
    first = sweep.start()
    sweep.wait_until_it_hangs()
    second = sweep.start()
    _, errors = second.communicate(timeout=50)
    assert second.returncode == 7
    assert f"the sweep {identity(tmp_path)} runs in another process" in errors
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=50)
    (tmp_path / "hang").unlink()
    hint = errors.strip().rpartition("; then ")[2].split()  # which is a command
    again = sweep.start(*hint[2:])
    again.communicate(timeout=50)
    assert again.returncode == 0


def run_three(loreg: Loreg, *names: str) -> dict:
    outcome = loreg("sweep", *names, "--eval", "wc -c < {dir}/adapter_config.json", "--budget", "3", "--format", "json")
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_a_sweep_goes_on_with_the_versions_that_it_began_with(loreg: Loreg, tmp_path: Path):
    base = write_base(tmp_path / "base")
    for i in range(3):
        train(tmp_path / f"source{i}", i)
    for i in range(2):
        assert loreg("push", f"./source{i}", f"team/source{i}", "--base", base).exit_code == 0
    result = run_three(loreg, "team/source0", "team/source1")
    assert loreg("push", "./source2", "team/source0", "--base", base).exit_code == 0  # the newest is another one now
    outcome = loreg("sweep", "--resume", result["id"], "--format", "json")
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["trials"] == result["trials"]
    assert run_three(loreg, "team/source0", "team/source1")["id"] != result["id"]


def test_a_sweep_goes_on_where_its_files_are(local: Loreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(2):
        train(tmp_path / f"source{i}", i)
    result = run_three(local, "./source0", "./source1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = local("sweep", "--resume", result["id"])
    assert outcome.exit_code == 2
    assert f"cd {tmp_path} && loreg sweep --resume {result['id']}" in outcome.stderr


def test_what_cannot_go_on_says_why(local: Loreg, tmp_path: Path):
    for name, code in (("0123456789ab", 3), ("0123456789AB", 2), ("../../secrets", 2), ("", 2)):
        outcome = local("sweep", "--resume", name)
        assert outcome.exit_code == code, outcome.stderr
    for options in (["--dry-run"], ["--push", "x"], ["--base", "."], ["--eval", "x"], ["--seed", "1"], ["./a"]):
        outcome = local("sweep", "--resume", "0123456789ab", *options)
        assert outcome.exit_code == 2, options
        assert "only --budget and --on go with it" in outcome.stderr
