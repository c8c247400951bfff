"""The same chunks as tasks on a real Ray: every version once, whatever node is killed; no secret, no open port."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine

from deployments import HISTORY, SCIENCE, Deployment
from fleet import ray_clusters
from fleet.probe_packages import install
from fleet.ray_clusters import on_ray
from fleet.test_executor import StoppedError, stop_once_begun
from fleet.work_items import Endless
from fleet.writes import list_writes, record_writes
from loreg import Registry
from loreg.entities import MapChunk, MergeOptions
from loreg.errors import ConflictError, LoregError, MissingExtraError, UnavailableError, UsageError
from loreg.fleet.chunk import ChunkTask
from loreg.fleet.executor import run_all
from loreg.fleet.ray_tasks import RayExecutor, parse_cluster
from loreg.fleet.worker_store import StorePlace
from loreg.worker import Worker
from services import SECRET_KEY
from verbs.test_bake import ATTENTION, adapt, contents, llama

#: A program that maps on a Ray of its own, and looks before that ends at what it shows, and after at what it leaves.
STARTED_HERE = """
import json, os, sys
from pathlib import Path

import psutil

from fleet import ray_clusters
from loreg import connect
from loreg.fleet.ray_tasks import RayExecutor

shown = {}
close = RayExecutor.close

def look(executor):
    folder, secrets = os.environ["RAY_TMPDIR"], (os.environ["RAY_AUTH_TOKEN"], *json.loads(os.environ["SECRETS"]))
    assert list(Path(folder).rglob("gcs_server*"))
    shown["addresses"] = sorted(ray_clusters.listening_addresses())
    shown["files"] = ray_clusters.files_with(folder, *secrets)
    shown["state"] = [key.decode() for key in ray_clusters.state_with(*secrets)]
    close(executor)
    shown["folder"] = Path(folder).exists()
    shown["left"] = [process.name() for process in psutil.Process().children(recursive=True)]

RayExecutor.close = look
with connect(**json.loads(os.environ["SETTINGS"])) as registry:
    shown["recorded"] = registry.map("spectra", on="ray").recorded
print(json.dumps(shown))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_clusters.two_nodes() as cluster:
        yield cluster


def values_of(registry: Registry, probe: str) -> dict[str, object]:
    refs = [version.ref for version in registry.context.backend.samples(10)]
    return {ref: facts.value for ref in refs for facts in registry.facts(ref) if facts.probe == probe}


@on_ray
@pytest.mark.usefixtures("one_in_a_chunk")
def test_two_nodes_say_bit_for_bit_what_one_process_says(filled: Registry, cluster: Any):
    for probe in ("check", "sketch", "spectra"):
        filled.map(probe, again=True, processes=1)
        expected = values_of(filled, probe)
        report = filled.map(probe, again=True, on=f"ray://{cluster.address}")
        assert (report.recorded, report.failed) == (6, ())
        assert values_of(filled, probe) == expected


def kill_node_named_in(cluster: Any, pipe: Path) -> None:
    raylet = int(pipe.read_text())
    pipe.unlink()
    ray_clusters.kill_node(cluster, raylet)


@on_ray
@pytest.mark.usefixtures("one_in_a_chunk")
def test_a_node_that_is_killed_leaves_nothing_out_and_nothing_twice(
    filled: Registry,
    database: Engine,
    cluster: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    """The first worker to read a certain adapter says on which node it is, and waits for its end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    stay = f"pipe = Path({str(pipe)!r}); pipe.exists() and (pipe.write_text(str(os.getppid())), signal.pause())"
    install(monkeypatch, tmp_path / "one", stay)
    ray_clusters.replace_nodes(cluster)  # by nodes whose workers have the package in their environment
    record_writes(database)
    killer = threading.Thread(target=kill_node_named_in, args=(cluster, pipe), daemon=True)
    killer.start()
    report = filled.map("mine", on=f"ray://{cluster.address}")
    assert not pipe.exists()
    killer.join()
    assert capsys.readouterr().out == "", "there are results on stdout"
    assert (report.recorded, report.failed, report.retries > 0) == (6, (), True)
    assert len(list_writes(database)) == len(set(list_writes(database))) == 6


@on_ray
def test_a_worker_maps_on_the_cluster_that_it_is_given(
    filled: Registry, cluster: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Twice, with a connection to the cluster of its own for each job."""
    install(monkeypatch, tmp_path / "one", "return {'parent': Path(f'/proc/{os.getppid()}/comm').read_text()}")
    ray_clusters.replace_nodes(cluster)
    for _ in range(2):
        job = filled.jobs.submit("map", probe="mine", selectors=["team/a13"], again=True)
        Worker(filled.settings, None, None, "cpu", on=f"ray://{cluster.address}").work(until_idle=True)
        assert filled.jobs.show(job.id).result["recorded"] == 1
        assert values_of(filled, "mine") == {"team/a13:v1": {"parent": "raylet\n"}}


@on_ray
def test_a_merge_and_a_bake_on_two_nodes_are_the_same_to_the_last_bit(
    local_registry: Registry, cluster: Any, tmp_path: Path
):
    ray_clusters.replace_nodes(cluster)
    base = llama(tmp_path / "base", shard="60KB")
    adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
    for place, on in {"here": "", "there": f"ray://{cluster.address}"}.items():
        local_registry.merge([SCIENCE, HISTORY], MergeOptions(rank=4), folder=tmp_path / f"merged-{place}", on=on)
        local_registry.bake([adapter], base, tmp_path / f"baked-{place}", on=on)
    for result in ("merged", "baked"):
        assert contents(tmp_path / f"{result}-there") == contents(tmp_path / f"{result}-here")


@on_ray
def test_a_bake_goes_on_without_the_node_that_is_killed(local_registry: Registry, cluster: Any, tmp_path: Path):
    """The node is killed as soon as the first shard grows."""
    ray_clusters.replace_nodes(cluster)
    base = llama(tmp_path / "base", shard="60KB")
    adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
    killer = threading.Thread(target=kill_node_when, args=(cluster, tmp_path, "*.safetensors.*"), daemon=True)
    killer.start()
    local_registry.bake([adapter], base, tmp_path / "there", on=f"ray://{cluster.address}")
    killer.join(60)
    local_registry.bake([adapter], base, tmp_path / "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert not list(tmp_path.glob(".*baking"))


@on_ray
def test_what_a_node_does_not_have_is_named(cluster: Any, tmp_path: Path):
    with pytest.raises(LoregError) as refused, contextlib.closing(RayExecutor(cluster.address)) as executor:
        list(run_all(executor, [Endless(tmp_path)]))
    assert refused.value.message.endswith("cannot do it: ModuleNotFoundError: No module named 'fleet'")


@on_ray
def test_what_is_given_up_ends_on_the_cluster(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    ray_clusters.replace_nodes(cluster)
    with pytest.raises(StoppedError), contextlib.closing(RayExecutor(cluster.address)) as executor:
        list(run_all(executor, [Endless(tmp_path)], stop_once_begun(tmp_path)))
    (worker,) = tmp_path.iterdir()
    psutil.wait_procs([psutil.Process(int(worker.name))] if psutil.pid_exists(int(worker.name)) else [], timeout=30)
    assert not psutil.pid_exists(int(worker.name))


def kill_node_when(cluster: Any, folder: Path, pattern: str) -> None:
    """Kill a node when a file of that name is below the folder."""
    while not list(folder.rglob(pattern)):
        pass
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


@on_ray
def test_what_is_made_on_a_cluster_is_bit_for_bit_what_is_made_here(filled: Registry, cluster: Any, tmp_path: Path):
    """An export, and a version at another rank."""
    place = f"ray://{cluster.address}"
    exported = filled.map("export", profile="vllm:max_lora_rank=8", on=place)
    reranked = filled.map("rerank", "team/*", rank=2, name="small/{namespace}-{name}", on=place)
    for report in (exported, reranked):
        assert (report.recorded, report.failed) == (6, ())
    filled.export("team/a9", "vllm:max_lora_rank=8", tmp_path / "here")
    pulled = filled.pull("team/a9", tmp_path / "there", profile="vllm:max_lora_rank=8")
    assert {path.name: path.read_bytes() for path in pulled.folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()
    }
    alone = filled.rerank("team/a9", 2, name="alone/a9").pushed
    assert alone is not None
    assert filled.show("small/team-a9").version.digest == alone.version.digest


@on_ray
def test_a_ray_that_is_started_here_has_no_open_port_and_no_secret(
    filled: Registry, local_deployment: Deployment, tmp_path: Path
):
    """In a program of its own: Ray reads its environment once, when it is imported."""
    (tmp_path / "program.py").write_text(STARTED_HERE)
    secrets = (SECRET_KEY, filled.settings.database_url)
    environment = {
        **os.environ, "HOME": str(tmp_path), "SETTINGS": json.dumps(local_deployment.settings, default=str),
        "SECRETS": json.dumps(secrets), "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    command = [sys.executable, tmp_path / "program.py"]
    outcome = subprocess.run(command, env=environment, capture_output=True, timeout=200, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout) == {
        "recorded": 6, "addresses": ["127.0.0.1"], "files": [], "state": [], "left": [], "folder": False
    }  # fmt: skip
    assert not (tmp_path / ".ray").exists()


@on_ray
def test_a_cluster_that_is_not_there_is_named(filled: Registry):
    with pytest.raises(UnavailableError, match=re.escape("there is no Ray at 127.0.0.1:1")):
        filled.map("spectra", on="ray://127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "address"), [("ray", ""), ("ray://10.0.0.1", "10.0.0.1:6379"), ("ray://head:1234", "head:1234")]
)
def test_where_a_map_runs(text: str, address: str):
    assert parse_cluster(text) == address


@pytest.mark.parametrize(
    "text", ["dask", "ray://", "ray://head:port", "http://head", "ray://user:key@head", "ray://a/b"]
)
def test_where_no_map_runs(text: str):
    with pytest.raises(UsageError, match="no place where tasks run"):
        parse_cluster(text)


def test_without_ray_it_says_what_to_install(filled: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="Ray is not installed"):
        filled.map("spectra", on="ray")
    with pytest.raises(UsageError):
        filled.map("spectra", on="ray", processes=2)


def test_a_worker_of_another_release_refuses(tmp_path: Path):
    chunk = MapChunk(1, 1, 1, ())
    for task in (
        ChunkTask(chunk, "spectra", "1", StorePlace(str(tmp_path), "", False), version="0.0.1"),
        ChunkTask(chunk, "spectra", "0", StorePlace(str(tmp_path), "", False)),
    ):
        error = task.run().error
        assert isinstance(error, ConflictError)
        assert "the run was begun by" in error.message
