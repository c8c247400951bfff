"""The trials of a sweep on a real Ray: the same answer, whatever is killed, and nothing that goes on on its nodes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from concurrency import wait_until_ended
from deployments import empty_home
from fleet import ray_clusters
from fleet.ray_clusters import on_ray
from fleet.sweeps import fill, runs, what_was_tried
from loreg.entities import SweepOptions
from loreg.errors import UsageError
from loreg.registry import Registry, connect

SCORE = f"{sys.executable} score.py {{dir}}"
#: Hangs as long as there is the pipe, in which it tells process ids: of the program, and of the raylet that has it.
HANG = "{ echo $$ $(ps -o ppid= -p $PPID) > pipe; sleep 1000; }"
SIX = SweepOptions(budget=6, jobs=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_clusters.two_nodes() as cluster:
        yield cluster


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which sweeps are started, with two adapters and a program."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    """Another registry, whose sweeps run in this process."""
    return connect(home=empty_home(tmp_path / "other_home"))


def tried_in(local_registry: Registry, evaluate: Any) -> Any:
    return what_was_tried(local_registry, local_registry.sweep(["./source0", "./source1"], evaluate, options=SIX))


@on_ray
def test_two_nodes_say_bit_for_bit_what_one_process_says(
    registry: Registry, local_registry: Registry, room: Path, cluster: Any
):
    best = 0.45

    def score(folder: Path) -> float:  # which no module has: it travels with its code, and with ``best``
        recipe = json.loads((folder / "loreg_merge.json").read_bytes())["recipe"]
        return -((recipe["sources"][0]["weight"] - best) ** 2)

    for evaluate in (SCORE, score):
        result = registry.sweep(["./source0", "./source1"], evaluate, options=SIX, on=f"ray://{cluster.address}")
        assert what_was_tried(registry, result) == tried_in(local_registry, evaluate)
    assert len(runs(room)) == 12


@on_ray
def test_a_worker_that_is_killed_changes_nothing(
    registry: Registry, local_registry: Registry, room: Path, cluster: Any
):
    dying = f"mkdir killed 2>/dev/null && kill -9 $PPID; {SCORE}"
    result = registry.sweep(["./source0", "./source1"], dying, options=SIX, on=f"ray://{cluster.address}")
    assert (room / "killed").is_dir()
    assert len(runs(room)) == 6
    assert what_was_tried(registry, result) == tried_in(local_registry, dying)


@on_ray
def test_a_node_that_is_killed_changes_nothing_and_its_program_ends(
    registry: Registry, local_registry: Registry, room: Path, cluster: Any
):
    ray_clusters.replace_nodes(cluster)
    os.mkfifo(room / "pipe")
    hanging = f"test -p pipe && {HANG}; {SCORE}"
    programs: list[int] = []

    def kill_node() -> None:
        program, raylet = map(int, (room / "pipe").read_text().split())
        (room / "pipe").unlink()
        programs.append(program)
        ray_clusters.kill_node(cluster, raylet)

    killer = threading.Thread(target=kill_node, daemon=True)
    killer.start()
    options = SweepOptions(budget=6, jobs=2)
    result = registry.sweep(["./source0", "./source1"], hanging, options=options, on=f"ray://{cluster.address}")
    killer.join()
    wait_until_ended(programs[0])
    assert len(runs(room)) == 6
    assert what_was_tried(registry, result) == tried_in(local_registry, hanging)
    ray_clusters.replace_nodes(cluster)


@on_ray
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_ended_leaves_nothing_running_and_measures_nothing_twice(
    room: Path, cluster: Any, ending: signal.Signals
):
    os.mkfifo(room / "pipe")
    (room / "runs").touch()
    command = [
        sys.executable, "-m", "loreg_cli.main", "sweep", "./source0", "./source1", "--budget", "6", "--jobs", "1",
        "--eval", f"test -p pipe && test $(wc -l < runs) = 3 && {HANG}; {SCORE}", "--on", f"ray://{cluster.address}",
    ]  # fmt: skip
    environment = {**os.environ, "LOREG_HOME": str(room / "home")}
    sweep = subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)
    reader = os.open(room / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([reader], [], [], 100)[0]
    program = int(os.read(reader, 100).split()[0])
    os.close(reader)
    sweep.send_signal(ending)
    _, errors = sweep.communicate(timeout=50)
    assert sweep.returncode == (130 if ending == signal.SIGINT else -signal.SIGKILL), errors
    wait_until_ended(program)
    (room / "pipe").unlink()
    (folder,) = room.glob("home/**/sweeps/*")
    resume = [*command[:4], "--resume", folder.name, "--format", "json"]
    again = subprocess.run(resume, env=environment, text=True, capture_output=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert len(json.loads(again.stdout)["trials"]) == len(runs(room)) == len(set(runs(room)))


@on_ray
def test_what_a_cluster_has_no_room_for_is_refused(registry: Registry, room: Path, cluster: Any):
    options = SweepOptions(gpus=1)
    with pytest.raises(UsageError, match="the cluster has no machine with 1 GPUs"):
        registry.sweep(["./source0", "./source1"], SCORE, options=options, on=f"ray://{cluster.address}")
    lock = threading.Lock()
    with pytest.raises(UsageError, match="the function that evaluates cannot be sent to other machines"):
        registry.sweep(["./source0", "./source1"], lambda folder: lock.locked(), on=f"ray://{cluster.address}")


@on_ray
def test_a_trial_has_gpus_of_its_own(registry: Registry, room: Path, cluster: Any):
    """On a node that says it has four: trials of two each, and so two side by side."""
    ray_clusters.add_node(cluster, processors=4, gpus=4)
    options = SweepOptions(budget=6, gpus=2)
    seen = f'echo "$CUDA_VISIBLE_DEVICES" >> seen; {SCORE}'
    sources = ["./source0", "./source1"]
    result = registry.sweep(sources, seen, options=options, on=f"ray://{cluster.address}", dry_run=True)
    devices = [line.split(",") for line in (room / "seen").read_text().splitlines()]
    assert [len(set(names)) for names in devices] == [2] * 6
    two_at_once = registry.sweep(sources, seen, options=SIX, dry_run=True)
    assert [trial.candidate for trial in result.trials] == [trial.candidate for trial in two_at_once.trials]
