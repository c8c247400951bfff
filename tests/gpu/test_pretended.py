"""The GPU's ways through the code, without a GPU: on a device that pretends to be one (``pretending``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu.merges import (
    RANKS,
    SHAPES,
    UNUSUAL,
    Outcome,
    assert_alike,
    inputs,
    merge,
    mixed,
    moments,
    outcome,
    several,
    variants,
)
from gpu.pretending import pretending
from loreg.algebra import decompositions
from loreg.algebra.factors import Factors
from loreg.errors import MergeError
from loreg.merging import tiled_delta
from loreg.merging.compare import compare
from loreg.merging.device import explain_out_of_memory
from loreg.merging.methods import METHODS
from loreg.merging.pruning import AT_RANDOM, BETWEEN, LARGE_AT_RANDOM, LARGEST, PruneRule
from loreg.merging.ranks import RankRule
from loreg.merging.tiled_delta import DeltaView, TiledDelta, Tiling

CASES = [(name, parameters) for name, method in METHODS.items() for parameters in variants(method)]
#: Two modules of one shape, which are worked on together, and one of each other shape.
FEW = {name: SHAPES[name] for name in ("layers.0.q_proj", "layers.1.q_proj", "layers.0.up_proj", "layers.0.down_proj")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """As many adapters as a method takes."""
    folders = several(tmp_path_factory.mktemp("sources"), (8, 8, 8), FEW)
    return lambda name: folders[: METHODS[name].max_sources or 3]


@pytest.fixture(scope="module")
def on_the_cpu(sources: Callable[[str], list[Path]]) -> Callable[[str, dict[str, Any]], Outcome]:
    """What a method comes to on the CPU, worked out once for all that is held to it."""
    outcomes: dict[tuple[str, str], Outcome] = {}

    def look_up(name: str, parameters: dict[str, Any]) -> Outcome:
        key = name, json.dumps(parameters, sort_keys=True)
        if key not in outcomes:
            outcomes[key] = outcome(sources(name), "cpu", name, parameters)
        return outcomes[key]

    return look_up


class TestPretending:
    """That the device finds what it is there to find."""

    def test_it_does_not_mix_with_the_cpu(self, monkeypatch: pytest.MonkeyPatch):
        with pretending(monkeypatch):
            there = torch.ones(2, 2, device="cuda")
            assert there.is_cuda
            assert there.device.type == (there @ there).device.type == torch.ones_like(there).device.type == "cuda"
            for mixed in (lambda: there @ torch.eye(2), lambda: torch.cat([there, torch.ones(1, 2)])):
                with pytest.raises(RuntimeError, match=r"on cuda, but of shape \(\d, 2\) on cpu"):
                    mixed()
            with pytest.raises(TypeError):
                there.numpy()
            assert not there.cpu().is_cuda
            assert torch.equal(there.cpu() @ torch.eye(2), torch.ones(2, 2))

    def test_it_counts_what_the_cpu_waits_for(self, monkeypatch: pytest.MonkeyPatch):
        with pretending(monkeypatch) as device:
            there = torch.ones(2, 2).to("cuda")
            there = there * 2 + there.sum()
            assert device.waits == []
            assert float(there[there > 1].max()) == 6
            assert there.cpu().tolist() == [[6, 6], [6, 6]]
            assert device.waits == ["__getitem__", "__float__", "cpu"]


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_every_method_merges_there_as_on_the_cpu(
    name: str, parameters: dict[str, Any], sources: Any, on_the_cpu: Any, monkeypatch: Any
):
    expected = on_the_cpu(name, parameters)
    with pretending(monkeypatch) as device:
        actual = outcome(sources(name), "cuda", name, parameters)
    assert device.waits
    assert_alike(actual, expected, 1e-3 if parameters.get("precision") == "single" else 1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_small_tiles_and_matrices_that_are_tall_for_the_host(
    name: str, sources: Any, on_the_cpu: Any, monkeypatch: Any
):
    expected = on_the_cpu(name, {})
    monkeypatch.setattr(decompositions, "_SMALL", 1)
    monkeypatch.setattr(tiled_delta, "_ON_GPU", Tiling(6000, 20, 0))
    with pretending(monkeypatch):
        assert_alike(outcome(sources(name), "cuda", name), expected, 1e-9)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.family in ("exact", "factors")])
def test_the_cpu_does_not_wait_for_every_module(name: str, tmp_path: Path, monkeypatch: Any):
    waits = []
    for modules in (2, 20):
        shapes = {f"layers.{i}.q_proj": (24, 20) for i in range(modules)}
        folders = several(tmp_path / str(modules), (4, 4, 4)[: METHODS[name].max_sources], shapes)
        with pretending(monkeypatch) as device:
            merge(folders, "cuda", name)
        waits.append(len(device.waits))
    assert waits[0] == waits[1]


@pytest.mark.parametrize("rule", [LARGEST, BETWEEN, AT_RANDOM, LARGE_AT_RANDOM])
def test_the_cpu_does_not_wait_for_a_block(rule: PruneRule, monkeypatch: Any):
    values = {"density": 0.5, "epsilon": 0.1, "rescale": "density"}
    monkeypatch.setattr(tiled_delta, "_ON_GPU", Tiling(400, 16, 1 << 20))
    with pretending(monkeypatch) as device:
        part = Factors(torch.ones(96, 2, device="cuda"), torch.ones(2, 40, device="cuda"))
        limits = [(torch.tensor(1.0, device="cuda"), torch.tensor(3.0, device="cuda"))[: 1 + (rule is BETWEEN)]]
        blocks = list(TiledDelta(DeltaView([part]), (7,), values, limits).pruned_blocks(rule))
        assert len(blocks) > 8
        assert device.waits == []


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_the_signs_that_a_decomposition_leaves_open_decide_nothing(
    name: str, parameters: dict[str, Any], sources: Any, on_the_cpu: Any, monkeypatch: Any
):
    """Two libraries need not choose the same."""
    expected = on_the_cpu(name, parameters)
    thin = decompositions._thin_svd

    def turned(x: Tensor) -> tuple[Tensor, ...]:
        u, s, vh = thin(x)
        sign = torch.where(torch.arange(s.shape[-1]) % 3 == 0, -1.0, 1.0).to(u)
        return u * sign, s, vh * sign.unsqueeze(-1)

    monkeypatch.setattr(decompositions, "_thin_svd", turned)
    actual = outcome(sources(name), "cpu", name, parameters)
    assert_alike(actual, expected, 1e-3 if parameters.get("precision") == "single" else 1e-9)


@pytest.mark.parametrize("rank", RANKS, ids=lambda rank: rank.kind)
def test_every_rank_rule_there_as_on_the_cpu(rank: RankRule, tmp_path: Path, monkeypatch: Any):
    folders = several(tmp_path, (8,))
    with pretending(monkeypatch):
        actual = outcome(folders, "cuda", rank=rank)
    assert_alike(actual, outcome(folders, "cpu", rank=rank), 1e-9)


def test_calibration_data_there_as_on_the_cpu(tmp_path: Path, monkeypatch: Any):
    folders, data = several(tmp_path, (8,)), moments(tmp_path / "moments.safetensors", 8)
    how = {"rank": RankRule("fixed", 3), "calibration": data}
    with pretending(monkeypatch):
        actual = outcome(folders, "cuda", **how)
    assert_alike(actual, outcome(folders, "cpu", **how), 1e-9)


def test_mixed_dtypes_and_ranks_there_as_on_the_cpu(tmp_path: Path, monkeypatch: Any):
    with pretending(monkeypatch):
        actual = outcome(mixed(tmp_path / "there"), "cuda", rank=RankRule("fixed", 6))
    assert_alike(actual, outcome(mixed(tmp_path / "here"), "cpu", rank=RankRule("fixed", 6)))


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_sources_there_as_on_the_cpu(kind: str, tmp_path: Path, monkeypatch: Any):
    folders = UNUSUAL[kind](tmp_path)
    with pretending(monkeypatch):
        actual = outcome(folders, "cuda")
    assert_alike(actual, outcome(folders, "cpu"), 1e-9)


def test_comparing_there_as_on_the_cpu(tmp_path: Path, monkeypatch: Any):
    adapters = inputs(several(tmp_path))
    with pretending(monkeypatch):
        actual = compare(adapters, device="cuda")
    for ours, theirs in zip(actual, compare(adapters), strict=True):
        numbers = [(x.cosine, x.left_overlap, x.right_overlap, x.sign_conflict, x.norm_ratio) for x in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


NO_ROOM = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB. GPU 0 has a capacity of 8 GiB (…)\nmore"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported at some other call"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`"),
)


class TestNoRoom:
    @pytest.mark.parametrize("error", NO_ROOM)
    def test_it_is_told_in_one_line_with_what_to_do(self, error: Exception):
        with pytest.raises(MergeError) as refusal, explain_out_of_memory(torch.device("cuda:1")):
            raise error
        assert str(refusal.value).startswith("there is not enough memory on the device 'cuda:1': ")
        assert "--device cpu" in refusal.value.hint
        assert "\n" not in str(refusal.value)

    def test_what_is_not_about_memory_stays_what_it_is(self):
        with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(torch.device("cuda")):
            raise RuntimeError("shapes do not match")
        with pytest.raises(RuntimeError, match="out of memory"), explain_out_of_memory(torch.device("cpu")):
            raise RuntimeError("out of memory")

    def test_a_merge_tells_it(self, tmp_path: Path, monkeypatch: Any):
        def full(*_: Any, **how: Any) -> Tensor:
            raise NO_ROOM[0]

        folders = several(tmp_path)
        with pretending(monkeypatch):
            monkeypatch.setattr(torch, "empty", full)
            assert "--device cpu" in outcome(folders, "cuda").refused
