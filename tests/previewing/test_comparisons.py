"""Stored versions are compared as ``loreg compare`` compares them, without torch, and their files are read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

import module_kinds
from deployments import DORA, HISTORY, NEWS, SCIENCE
from factories import change_tensors, copy, train
from loreg.entities import AdapterComparison
from loreg.errors import LoregError, MergeError, UsageError
from loreg.registry import Registry
from previewing.conftest import ask_without_torch

FIGURES = ("cosine", "left_overlap", "right_overlap")


def push(registry: Registry, folders: Sequence[Path]) -> list[str]:
    return [registry.push(folder, f"team/a{i}").version.ref for i, folder in enumerate(folders)]


def assert_is_that_of_compare(registry: Registry, refs: Sequence[str]) -> AdapterComparison:
    """Compare with what torch computes from the files."""
    pairs, expected = registry.compare_versions(refs), registry.compare(refs, device="cpu")
    assert pairs.labels == expected.labels
    for pair, by_torch in zip(pairs, expected, strict=True):
        assert (pair.a, pair.b, pair.modules) == (by_torch.a, by_torch.b, by_torch.modules)
        assert pair.near_duplicate == by_torch.near_duplicate
        for figure in FIGURES:
            assert getattr(pair, figure) == pytest.approx(getattr(by_torch, figure), rel=1e-9, abs=1e-12), figure
        assert pair.norm_ratio == pytest.approx(by_torch.norm_ratio, rel=1e-9)
        assert pair.sign_conflict == pytest.approx(by_torch.sign_conflict, abs=1e-5)
    return pairs


def test_real_adapters(registry: Registry):
    refs = push(registry, [SCIENCE, HISTORY])
    (pair,) = assert_is_that_of_compare(registry, refs)
    assert not pair.near_duplicate
    assert 0.4 < pair.sign_conflict < 0.6


def test_many_stand_beside_those_that_are_alike(home: Registry, tmp_path: Path):
    folders = [train(tmp_path / str(i), i, r=3, lora_alpha=1 + i) for i in range(3)]
    for folder in folders[:3]:
        tensors = load_file(folder / "adapter_model.safetensors")
        doubled = copy(folder, tmp_path / f"twice-{folder.name}")
        change_tensors(doubled, {name: 2 * x for name, x in tensors.items() if "lora_B" in name})
        folders.append(doubled)
    pairs = assert_is_that_of_compare(home, push(home, folders))
    alike = {(pair.a, pair.b) for pair in pairs if pair.near_duplicate}
    assert {frozenset(names) for names in alike} == {
        frozenset((f"team/a{i}:v1", f"team/a{i + 3}:v1")) for i in range(3)
    }
    places = {label: place for place, label in enumerate(pairs.labels)}
    assert all(abs(places[a] - places[b]) == 1 for a, b in alike)


@pytest.mark.parametrize("form", module_kinds.FORMS)
def test_every_kind_of_module(home: Registry, tmp_path: Path, form: str):
    targets, options = module_kinds.FORMS[form]
    folders = [module_kinds.train(tmp_path / name, i, targets, **options) for i, name in enumerate("abc")]
    assert_is_that_of_compare(home, push(home, folders))


def test_sources_of_different_ranks_modules_and_scales(home: Registry, tmp_path: Path):
    folders = [
        train(tmp_path / "a", 1, r=5),
        train(tmp_path / "b", 2, r=2, use_rslora=True, target_modules=["q_proj"]),
        train(tmp_path / "c", 3, r=3, lora_alpha=1),
    ]
    assert_is_that_of_compare(home, push(home, folders))


def test_the_same_files_have_the_name_that_they_are_asked_by(home: Registry, tmp_path: Path):
    refs = push(home, [SCIENCE, HISTORY, SCIENCE])
    first = home.compare_versions(refs[:2])
    for blob in [path for path in (tmp_path / "store").rglob("*") if path.is_file()]:
        blob.unlink()
    (again,) = home.compare_versions([refs[2], refs[1]])
    assert (again.a, again.b, again.cosine) == (refs[2], refs[1], first[0].cosine)


class TestRefusals:
    def test_are_those_of_compare(self, home: Registry, tmp_path: Path):
        folders = [SCIENCE, NEWS, DORA, train(tmp_path / "a", 1)]
        refs = push(home, folders)
        for pair in (refs[:2], [refs[0], refs[3]], [refs[0], refs[2]]):
            with pytest.raises(LoregError) as by_compare:
                home.compare(pair, device="cpu")
            with pytest.raises(type(by_compare.value)) as refusal:
                home.compare_versions(pair)
            assert refusal.value.message == by_compare.value.message

    @pytest.mark.parametrize("count", [0, 1, 17])
    def test_of_too_few_and_too_many(self, registry: Registry, count: int):
        (ref,) = push(registry, [SCIENCE])
        with pytest.raises((UsageError, LoregError)):
            registry.compare_versions([ref] * count)

    def test_of_numbers_that_are_none(self, tmp_path: Path):
        from loreg.adapters.structure import read_structure
        from loreg.identity.factors import open_factors
        from loreg.previewing.similarity import compare_files

        folder = train(tmp_path / "a", 1)
        tensors = load_file(folder / "adapter_model.safetensors")
        change_tensors(folder, {name: x * float("inf") for name, x in tensors.items() if "lora_A" in name})
        with open_factors(read_structure(folder)) as file, pytest.raises(MergeError, match="NaN or infinite"):
            compare_files([file, file], ["a", "b"])


def test_no_torch_is_needed(home: Registry, tmp_path: Path):
    refs = push(home, [SCIENCE, HISTORY])
    assert (
        ask_without_torch(home, f"compare_versions({refs!r})[0].cosine", tmp_path)
        == home.compare_versions(refs)[0].cosine
    )
