"""Every method and every way to choose ranks on a GPU: what the CPU finds in float64, and the same every time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import loreg
from gpu.merges import (
    RANKS,
    UNUSUAL,
    assert_alike,
    assert_equal_bits,
    deltas,
    inputs,
    merge,
    mixed,
    moments,
    outcome,
    several,
    variants,
)
from loreg.algebra import counter_rng, decompositions
from loreg.algebra.order_statistics import kth_largest
from loreg.errors import MergeError
from loreg.merging import tiled_delta, work_items
from loreg.merging.compare import compare
from loreg.merging.methods import METHODS
from loreg.merging.ranks import RankRule
from loreg.merging.tiled_delta import Tiling
from loreg_cli.main import cli

CASES = [(name, parameters) for name, method in METHODS.items() for parameters in variants(method)]

#: Large enough for every way that depends on the size: QR on the GPU, several blocks, columns that are cut.
LARGE = {"layers.0.up_proj": (3072, 1024), "layers.0.down_proj": (1024, 3072)}


def ranks_for(name: str, rank: int = 8) -> tuple[int, ...]:
    return (rank,) * (METHODS[name].max_sources or 3)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_every_method_is_what_the_cpu_finds(name: str, parameters: dict[str, Any], device: str, tmp_path: Path):
    folders = several(tmp_path, ranks_for(name))
    # Of two numbers at a cut either may be kept in float32: which, its last bit says.
    error = 1e-3 if parameters.get("precision") == "single" else 1e-6
    assert_alike(outcome(folders, device, name, parameters), outcome(folders, "cpu", name, parameters), error)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_on_large_matrices(name: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = several(tmp_path, ranks_for(name, 48), LARGE)
    how = {"rank": RankRule("fixed", 48)}
    monkeypatch.setattr(tiled_delta, "_ON_GPU", Tiling(1 << 20, 256, 1 << 20))
    assert_alike(outcome(folders, device, name, **how), outcome(folders, "cpu", name, **how))


@pytest.mark.parametrize("name", METHODS)
def test_again_is_equal_to_the_last_bit(name: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With many tasks at once, so that what one stream does not wait for shows."""
    shapes = {f"layers.{i}.q_proj": (128, 96) for i in range(24)}
    folders = several(tmp_path, ranks_for(name), shapes)
    for limit in ("_BYTES_ON_GPU", "_BYTES_ON_CPU"):
        monkeypatch.setattr(work_items, limit, 1 << 17)
    how = {"threshold": "global"} if "threshold" in {p.name for p in METHODS[name].parameters} else {}
    first = merge(folders, device, name, how)
    for _ in range(3):
        assert_equal_bits(merge(folders, device, name, how), first)
    assert_alike(outcome(folders, device, name, how), outcome(folders, "cpu", name, how))


@pytest.mark.parametrize("rank", RANKS, ids=lambda rank: rank.kind)
def test_every_rank_rule_is_what_the_cpu_finds(rank: RankRule, device: str, tmp_path: Path):
    folders = several(tmp_path, (8,))
    actual = merge(folders, device, rank=rank)
    assert_equal_bits(actual, merge(folders, device, rank=rank))
    assert_alike(outcome(folders, device, rank=rank), outcome(folders, "cpu", rank=rank))


def test_a_budget_over_many_tasks(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shapes = {f"layers.{i}.q_proj": (256, 192) for i in range(40)}
    folders = several(tmp_path, (8, 8), shapes)
    monkeypatch.setattr(work_items, "_BYTES_ON_GPU", 1 << 18)
    how = {"rank": RankRule("budget", 60_000)}
    first = merge(folders, device, **how)
    for _ in range(3):
        assert_equal_bits(merge(folders, device, **how), first)
    assert_alike(outcome(folders, device, **how), outcome(folders, "cpu", **how))


def test_calibration_data(device: str, tmp_path: Path):
    folders, data = several(tmp_path, (8,)), moments(tmp_path / "moments.safetensors", 8)
    for rank in (RankRule("fixed", 3), RankRule("energy", 0.9), RankRule("budget", 4000)):
        how = {"rank": rank, "calibration": data}
        assert_alike(outcome(folders, device, **how), outcome(folders, "cpu", **how))


@pytest.mark.parametrize("name", METHODS)
def test_mixed_dtypes_and_ranks(name: str, device: str, tmp_path: Path):
    """Refused in the same words, or the same up to the float32 that is written."""
    folders = mixed(tmp_path)[: METHODS[name].max_sources]
    how = {"rank": RankRule("fixed", 6)}
    assert_alike(outcome(folders, device, name, **how), outcome(folders, "cpu", name, **how), 3e-6)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_sources(kind: str, device: str, tmp_path: Path):
    folders = UNUSUAL[kind](tmp_path)
    for name, method in METHODS.items():
        if method.max_sources is None or method.max_sources >= len(folders):
            rank = RankRule("fixed", 3)
            assert_alike(outcome(folders, device, name, rank=rank), outcome(folders, "cpu", name, rank=rank))


def test_comparing(device: str, tmp_path: Path):
    adapters = inputs(several(tmp_path))
    for ours, theirs in zip(compare(adapters, device=device), compare(adapters), strict=True):
        numbers = [(x.cosine, x.left_overlap, x.right_overlap, x.sign_conflict, x.norm_ratio) for x in (ours, theirs)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)


def test_draws_are_the_cpus_bit_for_bit(device: str):
    like = torch.zeros(700, 900)
    spread = torch.linspace(0, 1, 900, dtype=torch.float64).expand(700, 900)
    for key in (0, 1, counter_rng.derive_key("a", "b"), 2**64 - 1):
        for probability in (0.0, 1e-6, 0.37, 1.0):
            local_registry = counter_rng.bernoulli_mask(probability, key, 5, 2**20, like)
            assert torch.equal(
                counter_rng.bernoulli_mask(probability, key, 5, 2**20, like.to(device)).cpu(), local_registry
            )
        there = counter_rng.bernoulli_mask(spread.to(device), key, 0, 0, like.to(device)).cpu()
        assert torch.equal(there, counter_rng.bernoulli_mask(spread, key, 0, 0, like))


def test_a_cut_is_the_cpus(device: str):
    generator = torch.Generator().manual_seed(0)
    tiles = [torch.randn(300, 400, generator=generator, dtype=torch.float64).abs() for _ in range(5)]
    sample = torch.cat([tile.flatten()[:200] for tile in tiles])
    there = [tile.to(device) for tile in tiles]
    for k in (1, 1000, 300_000, 599_999):
        actual = kth_largest(lambda: there, sample.to(device), 600_000, k)
        assert float(actual) == float(kth_largest(lambda: tiles, sample, 600_000, k))


@pytest.mark.parametrize("shape", [(3, 40, 40), (5, 3, 200, 30), (2, 30, 200), (2, 4000, 64), (64, 4000)])
def test_decompositions_are_decompositions(shape: tuple[int, ...], device: str):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    u, s, vh = decompositions.svd(x)
    q, r = decompositions.qr(x)
    assert u.device == s.device == vh.device == q.device == r.device == x.device
    assert bool((s.diff(dim=-1) <= 0).all())
    torch.testing.assert_close((u * s.unsqueeze(-2)) @ vh, x, rtol=0, atol=1e-11)
    torch.testing.assert_close(q @ r, x, rtol=0, atol=1e-11)
    for orthonormal in (u, vh.mT, q):
        one = torch.eye(orthonormal.shape[-1], dtype=x.dtype, device=device).expand(*shape[:-2], -1, -1)
        torch.testing.assert_close(orthonormal.mT @ orthonormal, one, rtol=0, atol=1e-12)
    gram = x.mT @ x if shape[-2] > shape[-1] else x @ x.mT
    values, vectors = decompositions.eigh(gram)
    torch.testing.assert_close((vectors * values.unsqueeze(-2)) @ vectors.mT, gram, rtol=0, atol=1e-8)
    torch.testing.assert_close(x @ decompositions.pinv(x, 1e-12) @ x, x, rtol=0, atol=1e-9)


def test_the_command_line_merges_on_it(device: str, tmp_path: Path):
    folders = several(tmp_path)
    written = {}
    for where in ("there", "here"):
        words = ["merge", *folders, "--rank", "8", "--to", tmp_path / where]
        words += ["--device", device if where == "there" else "cpu"]
        done = CliRunner().invoke(cli, ["--home", str(tmp_path / "home"), *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        written[where] = load_file(tmp_path / where / "adapter_model.safetensors")
    for name, tensor in written["here"].items():
        torch.testing.assert_close(written["there"][name], tensor, rtol=1e-6, atol=1e-6)


def test_extracting(device: str, tmp_path: Path):
    """A fine-tune of known rank, in models of one linear layer and one embedding."""
    torch.manual_seed(0)
    old = {"layers.0.q_proj.weight": torch.randn(96, 64), "embed_tokens.weight": torch.randn(80, 64)}
    new = {name: weight + torch.randn(len(weight), 3) @ torch.randn(3, 64) for name, weight in old.items()}
    for label, tensors in (("old", old), ("new", new)):
        (tmp_path / label).mkdir()
        save_file(tensors, tmp_path / label / "model.safetensors")
    extracted = {}
    with loreg.connect(home=str(tmp_path / "home")) as registry:
        for label, where in (("there", device), ("here", "cpu")):
            target = tmp_path / label
            registry.extract(tmp_path / "old", tmp_path / "new", rank=3, device=where, folder=target)
            tensors = load_file(target / "adapter_model.safetensors")
            name = "base_model.model.layers.0.q_proj.lora_"
            extracted[label] = tensors[f"{name}B.weight"] @ tensors[f"{name}A.weight"]
    change = new["layers.0.q_proj.weight"] - old["layers.0.q_proj.weight"]
    for delta in extracted.values():
        torch.testing.assert_close(delta, change, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(extracted["there"], extracted["here"], rtol=1e-6, atol=1e-5)


class TestMemory:
    @pytest.fixture
    def little(self, gpu: torch.device) -> Iterator[torch.device]:
        """The GPU with 16 MiB of its memory for us."""
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info(gpu)
        torch.cuda.set_per_process_memory_fraction((16 << 20) / total, torch.cuda.current_device())
        yield gpu
        torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
        torch.cuda.empty_cache()

    def test_too_little_is_told_in_one_line_with_what_to_do(self, little: torch.device, tmp_path: Path):
        folders = several(
            tmp_path, (64, 64), {f"layers.{i}.q_proj": (8192, 8192) for i in range(4)}, dtype=torch.bfloat16
        )
        for call in (lambda: merge(folders, str(little)), lambda: compare(inputs(folders), device=str(little))):
            with pytest.raises(MergeError) as refusal:
                call()
            assert "not enough memory on the device 'cuda'" in str(refusal.value)
            assert "--device cpu" in refusal.value.hint
            assert "\n" not in str(refusal.value)

    def test_what_was_used_is_used_again(self, gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """Many tasks take no more memory than a few: none is kept for streams that are gone."""
        monkeypatch.setattr(work_items, "_BYTES_ON_GPU", 1 << 24)
        editable = []
        for modules in (32, 128):
            shapes = {f"layers.{i}.q_proj": (2048, 2048) for i in range(modules)}
            folders = several(tmp_path / str(modules), (32, 32), shapes, dtype=torch.bfloat16)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            merge(folders, str(gpu))
            editable.append(torch.cuda.max_memory_reserved())
        assert editable[1] <= 1.5 * editable[0]


def test_every_gpu_finds_the_same(gpu: torch.device, tmp_path: Path):
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip("there is one GPU here")
    folders = several(tmp_path)
    for name in METHODS:
        sources = folders[: METHODS[name].max_sources]
        first = merge(sources, "cuda:0", name)
        for number in range(1, count):
            assert_equal_bits(merge(sources, f"cuda:{number}", name), first)
    assert torch.cuda.current_device() == 0


def test_two_sources_one_by_hand(device: str, tmp_path: Path):
    """The weighted sum from the files alone: no part of the code under test."""
    folders = several(tmp_path, (5, 3), {"q_proj": (30, 20)})
    expected = torch.zeros(30, 20, dtype=torch.float64)
    for folder, weight in zip(folders, (0.7, 0.4), strict=True):
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        a, b = (tensors[f"base_model.model.q_proj.lora_{part}.weight"] for part in "AB")
        expected += weight * config["lora_alpha"] / config["r"] * b @ a
    torch.testing.assert_close(deltas(merge(folders, device))["q_proj"][0], expected, rtol=1e-10, atol=1e-10)
