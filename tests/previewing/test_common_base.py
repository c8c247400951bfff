"""A preview refuses two bases exactly where the merge does, and takes them where the merge does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from factories import change_config, train, write_base
from loreg.errors import CheckFailedError
from loreg.registry import Registry
from previewing.test_merge_previews import assert_agrees, assert_refused_as_by_merge

TOUCHED, UNTOUCHED = "layers.0.q_proj.weight", "head.bias"


def push_on(registry: Registry, tmp_path: Path, changes: dict[str, dict[str, torch.Tensor]]) -> list[str]:
    """Push an adapter on each of the bases, which differ by these tensors."""
    refs = []
    for i, (name, changed) in enumerate(changes.items()):
        base = write_base(tmp_path / f"base-{name}", changed)
        refs.append(registry.push(train(tmp_path / name, i), f"team/{name}", base=str(base)).version.ref)
    return refs


def test_bases_that_differ_in_what_is_changed_are_refused(registry: Registry, tmp_path: Path):
    refs = push_on(registry, tmp_path, {"a": {}, "b": {TOUCHED: torch.zeros(24, 20)}})
    with pytest.raises(CheckFailedError, match="different bases"):
        registry.preview_merge(refs)
    assert_refused_as_by_merge(registry, refs)
    with pytest.raises(CheckFailedError) as by_compare:
        registry.compare(refs, device="cpu")
    with pytest.raises(CheckFailedError) as refusal:
        registry.compare_versions(refs)
    assert refusal.value.message == by_compare.value.message


def test_bases_that_differ_elsewhere_are_taken(registry: Registry, tmp_path: Path):
    refs = push_on(registry, tmp_path, {"a": {}, "b": {UNTOUCHED: torch.ones(3)}})
    assert_agrees(registry, refs, (0.7, 0.3), 3)


def test_one_that_is_only_known_to_come_from_the_other_is_compared_and_not_merged(registry: Registry, tmp_path: Path):
    refs = push_on(registry, tmp_path, {"a": {}, "b": {TOUCHED: torch.zeros(24, 20)}})
    bases = [registry.show(ref).version.base for ref in refs]
    assert all(bases)
    registry.bases.relate(bases[1].digest, bases[0].digest, "finetuned_from")
    assert_refused_as_by_merge(registry, refs)
    assert registry.compare_versions(refs)[0].cosine == pytest.approx(registry.compare(refs, device="cpu")[0].cosine)


def test_a_name_that_is_declared_is_the_known_base(registry: Registry, tmp_path: Path):
    """Without a module in common, adapters are of one base only if that is known."""
    base = write_base(tmp_path / "base")
    known = registry.push(train(tmp_path / "a", 1, target_modules=["q_proj"]), "team/a", base=str(base)).version
    folder = change_config(train(tmp_path / "b", 2, target_modules=["v_proj"]), base_model_name_or_path="org/tiny")
    refs = [known.ref, registry.push(folder, "team/b").version.ref]
    assert_refused_as_by_merge(registry, refs)
    registry.bases.add(base, ["org/tiny"], attach=False)
    assert_agrees(registry, refs, (0.7, 0.3), 3)
