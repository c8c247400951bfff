"""A preview says of every merge by weights and rank what the certificate of that merge then says, and reads no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import module_kinds
from deployments import DORA, HISTORY, NEWS, SCIENCE
from factories import change_tensors, deltas_by_peft, train, weighted_sum
from loreg.adapters.structure import read_structure
from loreg.entities import MergeOptions, MergePreview, PreviewFigures
from loreg.errors import LoregError, MergeError, NotFoundError, UsageError
from loreg.identity.factors import open_factors
from loreg.previewing.joint_frames import reduce_sources
from loreg.registry import Registry, connect
from previewing.conftest import ask_without_torch, home_settings

FIGURES = ("norm", "epsilon", "retained_energy", "sigma_next")


def push(registry: Registry, folders: Sequence[Path]) -> list[str]:
    return [registry.push(folder, f"team/a{i}").version.ref for i, folder in enumerate(folders)]


def assert_certified(figures: PreviewFigures, certified: Mapping[str, Any]) -> None:
    assert (figures.module, list(figures.shape)) == (certified["module"], certified["shape"])
    assert (figures.rank_in, figures.rank) == (certified["rank_in"], certified["rank"]), figures.module
    assert dict(figures.ranks) == certified["ranks"], figures.module
    size = certified["norm"]
    for name in FIGURES:
        # What is zero but for rounding is so to the digits of a float64.
        bound = 1e-12 * (size if name == "sigma_next" else 1)
        assert getattr(figures, name) == pytest.approx(certified[name], rel=1e-6, abs=bound), (figures.module, name)
    for kept, certified_kept in zip(figures.retention, certified["retention"], strict=True):
        assert kept == (None if certified_kept is None else pytest.approx(certified_kept, rel=1e-6, abs=1e-12))


def assert_agrees(
    registry: Registry, refs: Sequence[str], weights: Sequence[float], rank: int | None, method: str = "linear"
) -> MergePreview:
    """Compare with the certificate of the merge, which is made from the files by torch."""
    preview = registry.preview_merge(refs, weights, rank=rank, method=method)
    merged = registry.merge(refs, MergeOptions(method=method, weights=weights, rank=rank), device="cpu")
    certificate = merged.provenance.certificate
    assert preview.exact
    assert_certified(preview.total, certificate["total"])
    assert len(preview.modules) == len(certificate["modules"])
    for figures, certified in zip(preview.modules, certificate["modules"], strict=True):
        assert_certified(figures, certified)
    assert list(preview.warnings) == [w for w in certificate["warnings"] if "dtype" not in w]
    assert preview.sources == merged.provenance.sources
    assert set(preview.notes) <= set(merged.notes)
    return preview


def test_real_adapters_at_any_weights_and_rank(registry: Registry):
    refs = push(registry, [SCIENCE, HISTORY])
    for weights, rank in [((0.7, 0.3), 8), ((1, 1), None), ((1, -1), 3), ((1, 0), None), ((0, 1), 2), ((2, 0.01), 16)]:
        assert_agrees(registry, refs, weights, rank)


@pytest.mark.parametrize("method", ["slerp", "karcher", "model_stock"])
class TestOtherMethods:
    """Those that sum the deltas with coefficients which follow from their inner products."""

    def test_real_adapters(self, registry: Registry, method: str):
        refs = push(registry, [SCIENCE, HISTORY])
        for weights, rank in [((0.7, 0.3), 8), ((1, 1), None), ((1, 3), 2)]:
            assert assert_agrees(registry, refs, weights, rank, method).method == method

    def test_sources_of_different_ranks_modules_and_scales(self, home: Registry, tmp_path: Path, method: str):
        folders = [train(tmp_path / "a", 1, r=5), train(tmp_path / "b", 2, r=2, target_modules=["q_proj"])]
        if method != "slerp":
            folders.append(train(tmp_path / "c", 3, r=3, lora_alpha=1))
        refs = push(home, folders)
        for rank in (None, 4):
            assert_agrees(home, refs, (0.8, 0.3, 1.5)[: len(refs)], rank, method)

    def test_experts(self, home: Registry, tmp_path: Path, method: str):
        targets, options = module_kinds.FORMS["experts"]
        folders = [module_kinds.train(tmp_path / name, i, targets, **options) for i, name in enumerate("ab")]
        assert_agrees(home, push(home, folders), (0.6, 0.4), 2, method)

    def test_the_same_adapter_twice(self, home: Registry, method: str):
        assert_agrees(home, push(home, [NEWS, NEWS]), (0.5, 0.5), 4, method)


def test_one_adapter_is_a_rerank(home: Registry):
    refs = push(home, [NEWS])
    assert_agrees(home, refs, [1], 3)
    assert_agrees(home, refs, [1], 300)  # padded with zeros


def test_sources_of_different_ranks_modules_and_scales(home: Registry, tmp_path: Path):
    folders = [
        train(tmp_path / "a", 1, r=5),
        train(tmp_path / "b", 2, r=2, use_rslora=True, target_modules=["q_proj"]),
        train(tmp_path / "c", 3, r=3, lora_alpha=1),
    ]
    refs = push(home, folders)
    for rank in (None, 1, 4, 10):
        assert_agrees(home, refs, (0.8, -0.3, 1.5), rank)


@pytest.mark.parametrize("form", module_kinds.FORMS)
def test_every_kind_of_module(home: Registry, tmp_path: Path, form: str):
    targets, options = module_kinds.FORMS[form]
    folders = [module_kinds.train(tmp_path / name, i, targets, **options) for i, name in enumerate("ab")]
    refs = push(home, folders)
    for rank in (None, 2):
        preview = assert_agrees(home, refs, (0.6, 0.4), rank)
        merged = home.merge(refs, MergeOptions(weights=(0.6, 0.4), rank=rank), folder=tmp_path / f"merged-{rank}")
        assert merged.folder is not None
        assert preview.size == bytes_of_tensors(merged.folder)


def test_the_size_has_the_whole_tensors_that_come_along(home: Registry, tmp_path: Path):
    refs = push(home, [train(tmp_path / "a", 1, head=True), train(tmp_path / "b", 2)])
    preview = assert_agrees(home, refs, (1, 1), 2)
    home.merge(refs, MergeOptions(rank=2), folder=tmp_path / "merged")
    assert preview.size == bytes_of_tensors(tmp_path / "merged")


def bytes_of_tensors(folder: Path) -> int:
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118 (a safetensors file is no mapping)


def test_the_error_at_every_rank_is_that_of_the_dense_sum(home: Registry, tmp_path: Path):
    folders = [train(tmp_path / "a", 1, r=3), train(tmp_path / "b", 2, r=2)]
    preview = home.preview_merge(push(home, folders), (0.8, 0.5))
    exact = weighted_sum([deltas_by_peft(folder) for folder in folders], [0.8, 0.5])
    squares = [torch.linalg.svdvals(delta).square() for delta in exact.values()]
    whole = sum(float(s.sum()) for s in squares)
    assert len(preview.errors) == 6
    for rank, error in enumerate(preview.errors):
        lost = sum(float(s[rank:].sum()) for s in squares)
        assert error == pytest.approx(math.sqrt(lost / whole), rel=1e-6, abs=1e-7)


class TestBound:
    """Where the ranks add up to more than is decomposed in time, the answer says so, and is a bound."""

    @pytest.fixture
    def wide(self, tmp_path: Path) -> list[Path]:
        targets = ["words", "plain"]
        return [module_kinds.train(tmp_path / name, i, targets, wide_model(), r=24) for i, name in enumerate("ab")]

    def test_it_is_an_upper_one_and_near(self, home: Registry, wide: list[Path]):
        refs = push(home, wide)
        for rank in (1, 8, 40):
            preview = home.preview_merge(refs, (0.7, 0.3), rank=rank)
            merged = home.merge(refs, MergeOptions(weights=(0.7, 0.3), rank=rank), device="cpu")
            total = merged.provenance.certificate["total"]
            assert not preview.exact
            assert preview.total.norm == pytest.approx(total["norm"], rel=1e-9)
            assert total["epsilon"] <= preview.total.epsilon * (1 + 1e-9)
            assert preview.total.epsilon <= (1.2 if rank <= 8 else 3) * total["epsilon"]

    def test_nothing_is_lost_at_the_sum_of_the_ranks(self, home: Registry, wide: list[Path]):
        preview = home.preview_merge(push(home, wide), (0.7, 0.3), rank=48)
        assert preview.total.epsilon == 0
        assert preview.total.retention == pytest.approx((1.0, 1.0))


def wide_model() -> torch.nn.Module:
    """Modules that hold a rank of 48."""
    torch.manual_seed(5)
    model = module_kinds.new_model()
    model.words, model.plain = torch.nn.Embedding(70, 60), torch.nn.Linear(64, 72)
    return model


class TestRefusals:
    def test_of_what_needs_more_than_the_adapters(self, home: Registry):
        with pytest.raises(MergeError, match="use_dora") as refusal:
            home.preview_merge(push(home, [DORA]))
        assert "--base" in refusal.value.hint

    def test_of_other_bases(self, home: Registry):
        assert_refused_as_by_merge(home, push(home, [SCIENCE, NEWS]))

    def test_of_whole_tensors_that_differ(self, home: Registry, tmp_path: Path):
        folders = [train(tmp_path / name, i, head=True) for i, name in enumerate("ab")]
        assert_refused_as_by_merge(home, push(home, folders))

    def test_of_numbers_that_are_none(self, tmp_path: Path):
        folder = train(tmp_path / "a", 1)
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            name = next(n for n in file.keys() if "lora_A" in n)  # noqa: SIM118
            tensor = file.get_tensor(name)
        tensor[0, 0] = math.inf
        change_tensors(folder, {name: tensor})
        with open_factors(read_structure(folder)) as file, pytest.raises(MergeError, match=r"team/a .*NaN or infinite"):
            reduce_sources([file], ["team/a"])

    @pytest.mark.parametrize("weights", [(1,), (1, math.nan), (1, 1e7)])
    def test_of_weights_that_fit_no_sources(self, home: Registry, weights: tuple[float, ...]):
        with pytest.raises(UsageError, match="weights"):
            home.preview_merge(push(home, [SCIENCE, HISTORY]), weights)

    def test_of_biases_by_other_methods_than_linear(self, home: Registry, tmp_path: Path):
        targets, options = module_kinds.FORMS["with biases"]
        refs = push(home, [module_kinds.train(tmp_path / name, i, targets, **options) for i, name in enumerate("ab")])
        assert_refused_as_by_merge(home, refs, "slerp")

    def test_of_three_by_slerp(self, registry: Registry):
        (ref,) = push(registry, [SCIENCE])
        assert_refused_as_by_merge(registry, [ref] * 3, "slerp")

    def test_of_methods_that_need_more_than_inner_products(self, registry: Registry):
        refs = push(registry, [SCIENCE, HISTORY])
        with pytest.raises(UsageError, match="'ties' is not previewed") as refusal:
            registry.preview_merge(refs, method="ties")
        assert "linear, slerp, karcher, model_stock" in refusal.value.message

    def test_of_what_is_not_there(self, registry: Registry):
        with pytest.raises(NotFoundError):
            registry.preview_merge([*push(registry, [SCIENCE]), "team/nothing"])


def assert_refused_as_by_merge(registry: Registry, refs: Sequence[str], method: str = "linear") -> None:
    with pytest.raises(LoregError) as by_merge:
        registry.merge(refs, MergeOptions(method=method), device="cpu")
    with pytest.raises(type(by_merge.value)) as refusal:
        registry.preview_merge(refs, method=method)
    assert (refusal.value.message, refusal.value.hint) == (by_merge.value.message, by_merge.value.hint)


def test_no_torch_is_needed(home: Registry, tmp_path: Path):
    refs = push(home, [SCIENCE, HISTORY])
    assert (
        ask_without_torch(home, f"preview_merge({refs!r}, rank=4).total.epsilon", tmp_path)
        == home.preview_merge(refs, rank=4).total.epsilon
    )


class TestKept:
    """The files are read once for all previews of the same versions, also by a process that comes later."""

    def test_later_previews_read_no_file(self, home: Registry, tmp_path: Path):
        refs = push(home, [SCIENCE, HISTORY])
        first = home.preview_merge(refs, (0.7, 0.3), rank=4)
        for blob in [path for path in (tmp_path / "store").rglob("*") if path.is_file()]:
            blob.unlink()
        assert home.preview_merge(refs, (0.7, 0.3), rank=4) == first
        with connect(**home_settings(home), home=tmp_path / "home") as another:
            assert another.preview_merge(refs, (0.7, 0.3), rank=4) == first
            assert another.preview_merge(refs, (0.3, 0.7), rank=4) != first

    def test_what_is_kept_is_of_these_sources_in_this_order(self, home: Registry):
        a, b = push(home, [SCIENCE, HISTORY])
        for refs in ([a, b], [b, a], [b], [a]):
            assert_agrees(home, refs, (0.7, 0.3)[: len(refs)], 4)

    def test_a_file_that_is_damaged_is_made_again(self, home: Registry, tmp_path: Path):
        refs = push(home, [SCIENCE, HISTORY])
        first = home.preview_merge(refs, (0.7, 0.3), rank=4)
        (kept,) = (tmp_path / "home" / "cache" / "merges").iterdir()
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
        assert home.preview_merge(refs, (0.7, 0.3), rank=4) == first
        assert kept.read_bytes() != bytes(content)

    def test_a_folder_that_cannot_be_written_is_no_error(self, home: Registry, tmp_path: Path):
        (tmp_path / "home" / "cache").mkdir(parents=True)
        (tmp_path / "home" / "cache" / "merges").write_text("no folder")
        refs = push(home, [SCIENCE, HISTORY])
        assert home.preview_merge(refs, (0.7, 0.3)) == home.preview_merge(refs, (0.7, 0.3))
