"""Merges and bakes whose work is done by other processes: the same to the last bit, or refused by name."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments import HISTORY, SCIENCE
from factories import train
from fleet.test_executor import StoppedError
from loreg import Registry
from loreg.adapters.structure import read_structure
from loreg.baking.plan import outline_digest, sample_digest
from loreg.baking.weighted_sum import Summand, WeightedSum
from loreg.bases.model import read_model
from loreg.entities import MergeOptions
from loreg.errors import ConflictError, MergeError, NotFoundError, UsageError
from loreg.fleet.bake_shards import ShardWork
from loreg.fleet.merge_work import carry_merge
from loreg.fleet.processes import ProcessExecutor
from loreg.merging.inputs import MergeInput
from loreg.merging.recipe import Recipe
from verbs.test_bake import ATTENTION, adapt, contents, llama


class OtherProcesses(ProcessExecutor):
    """Two processes where the machines of a cluster would be."""

    def __init__(self, address: str, gpus: int = 0) -> None:
        super().__init__(2)

    def require_capacity(self) -> None:
        """There is room."""


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in ("bake", "merge"):
        monkeypatch.setattr(f"loreg.verbs.{verb}.RayExecutor", OtherProcesses)


@pytest.mark.parametrize(
    "options",
    [
        MergeOptions(weights=[0.7, 0.3]),
        MergeOptions(weights_for={".*q_proj": [1.0, 0.0]}, scale=0.5),
        MergeOptions(weights=[0.7, 0.3], rank=2),
    ],
    ids=["a sum", "weights for modules", "merged first"],
)
def test_a_bake_is_the_same_to_the_last_bit(local_registry: Registry, tmp_path: Path, options: MergeOptions):
    base = llama(tmp_path / "base", shard="60KB")
    adapters = [adapt(base, tmp_path / name, seed, target_modules=ATTENTION) for seed, name in enumerate("ab")]
    local_registry.bake(adapters, base, tmp_path / "here", options)
    baked = local_registry.bake(adapters, base, tmp_path / "there", options, on="ray", verify=True)
    assert baked.changed > 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert not list(tmp_path.glob(".*baking"))


@pytest.mark.parametrize("verb", ["merge", "bake"])
def test_who_waits_for_a_cluster_is_told_of_it_and_can_stop_it(local_registry: Registry, tmp_path: Path, verb: str):
    """As a worker does whose job is cancelled."""
    base = llama(tmp_path / "base", shard="60KB")
    adapters = [adapt(base, tmp_path / name, seed, target_modules=ATTENTION) for seed, name in enumerate("ab")]

    def stop(what: str, done: int, total: int) -> None:
        if what in ("merging on the cluster", "baking"):
            assert done < total
            raise StoppedError

    with pytest.raises(StoppedError):
        if verb == "merge":
            local_registry.merge(adapters, on="ray", progress=stop)
        else:
            local_registry.bake(adapters, base, tmp_path / "there", on="ray", progress=stop)
    assert not list(tmp_path.glob("there"))


def test_a_relative_base_is_found_by_the_workers(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = llama(tmp_path / "base", shard="60KB")
    adapt(base, tmp_path / "a", target_modules=ATTENTION)
    monkeypatch.chdir(tmp_path)
    local_registry.bake(["./a"], "base", "there", on="ray")
    local_registry.bake(["./a"], "base", "here")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_what_does_not_fit_is_refused_as_it_is_here_and_leaves_nothing(local_registry: Registry, tmp_path: Path):
    base = llama(tmp_path / "base", shard="60KB", dtype=torch.float16)
    adapter = adapt(base, tmp_path / "a", target_modules=ATTENTION)
    with pytest.raises(MergeError, match="numbers over 65504"):
        local_registry.bake([adapter], base, tmp_path / "baked", MergeOptions(weights=[1e6]), on="ray")
    assert not list(tmp_path.glob("*baked")) + list(tmp_path.glob(".*baking"))


@pytest.fixture
def shard(tmp_path: Path) -> ShardWork:
    base = llama(tmp_path / "base")
    adapter = read_structure(adapt(base, tmp_path / "growing" / "summands" / "0", target_modules=ATTENTION))
    (tmp_path / "shards").mkdir()
    total = WeightedSum((Summand("a", "", adapter),), (1.0,))
    model = read_model(base)
    plan, name = total.plan(model), "model.safetensors"
    digests = (outline_digest(plan, model), sample_digest(plan.shards[name]))
    return ShardWork(base, tmp_path / "growing", tmp_path / "shards", name, total, *digests)


def test_a_shard_is_written_whole_and_under_its_name(shard: ShardWork):
    assert shard.run() == sum(tensor.nbytes for tensor in load_file(shard.base / shard.name).values())
    assert [path.name for path in shard.shards.iterdir()] == [shard.name]


def train_once_more(base: Path) -> None:
    """Another training of the model: one tensor has other numbers, everything else is the same."""
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})


def rename_in_the_configuration(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))


@pytest.mark.parametrize("change", [train_once_more, rename_in_the_configuration])
def test_another_model_at_the_same_path_is_refused(shard: ShardWork, change: Callable[[Path], None]):
    change(shard.base)
    error = shard.run()
    assert isinstance(error, ConflictError)
    assert "is another model on" in error.message
    assert socket.gethostname() not in error.outside
    assert not list(shard.shards.iterdir())


def test_a_folder_that_a_machine_lacks_is_named(shard: ShardWork):
    for lacking in (replace(shard, base=Path("/nowhere")), replace(shard, growing=Path("/nowhere"))):
        error = lacking.run()
        assert isinstance(error, NotFoundError)
        assert "has no /nowhere" in error.message


def test_a_shard_of_a_bake_that_was_given_up_never_gets_its_name(shard: ShardWork, tmp_path: Path):
    """Its folder is taken away by the next bake, whenever a worker that was thought dead goes on."""
    (tmp_path / "growing").rename(tmp_path / "gone")
    assert isinstance(shard.run(), NotFoundError)
    assert not list(shard.shards.iterdir())


def test_a_worker_with_another_loreg_refuses(shard: ShardWork):
    error = replace(shard, version="0.0.1").run()
    assert isinstance(error, ConflictError)
    assert "the command is of loreg 0.0.1" in error.message


@pytest.mark.parametrize("options", [MergeOptions(weights=[0.7, 0.3], rank=4), MergeOptions(method="ties")])
def test_a_merge_is_the_same_to_the_last_bit(local_registry: Registry, tmp_path: Path, options: MergeOptions):
    here = local_registry.merge([SCIENCE, HISTORY], options, folder=tmp_path / "here")
    there = local_registry.merge([SCIENCE, HISTORY], options, folder=tmp_path / "there", on="ray://head")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert (there.provenance, there.notes, there.spectra) == (here.provenance, here.notes, here.spectra)


def test_a_rerank_is_the_same_version(local_registry: Registry):
    local_registry.push(SCIENCE, "team/science")
    here = local_registry.rerank("team/science", 1, name="team/small")
    there = local_registry.rerank("team/science", 1, name="team/small", on="ray")
    assert (there.pushed.created, there.pushed.version.ref) == (False, here.pushed.version.ref)


def test_a_base_that_the_machine_lacks_is_named(tmp_path: Path):
    adapter = train(tmp_path / "a", 1, use_dora=True)
    structure = read_structure(adapter)
    work = carry_merge([MergeInput(structure, "a", "", None, Path("/nowhere"))], Recipe(()), "cpu", None)
    error = work.run()
    assert isinstance(error, NotFoundError)
    assert "has no /nowhere" in error.message


def test_another_place_is_refused(local_registry: Registry, tmp_path: Path):
    with pytest.raises(UsageError, match="no place where tasks run"):
        local_registry.merge([SCIENCE], folder=tmp_path / "a", on="dask")
    with pytest.raises(UsageError, match="no place where tasks run"):
        local_registry.bake([SCIENCE], tmp_path, tmp_path / "a", on="dask")
