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
from factories import train

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


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_what_runs_and_loses_nothing(sweep: Sweep, tmp_path: Path, jobs: str):
    process = sweep.start("--jobs", jobs)
    sweep.wait_until_it_hangs()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    wait_until_ended(int((tmp_path / "pid").read_text()))
    before = sweep.runs()
    assert sum(before.values()) >= 3
    (tmp_path / "hang").unlink()
    output, errors = sweep.start("--jobs", jobs).communicate(timeout=50)
    result = json.loads(output)
    assert sweep.runs() >= before
    assert set(sweep.runs().values()) == {1}
    assert len(result["trials"]) == sum(sweep.runs().values())
    assert len({trial["version"] for trial in result["trials"]}) == len(result["trials"])
