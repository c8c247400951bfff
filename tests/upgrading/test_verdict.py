"""What an upgrade means for one adapter: from digests, shapes and the change that it reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from factories import change_config, new_model, train, write_base
from loreg.adapters.structure import read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import identify, parse_tensor_digests
from loreg.bases.model import read_model
from loreg.entities import AdapterUpgrade, Facts, UpgradeVerdict, Version
from loreg.refs import AdapterName
from loreg.upgrading.base_pass import BaseWeights, ComparedAdapter, measure_bases
from loreg.upgrading.touched_tensors import touched_tensors
from loreg.upgrading.verdict import assess_upgrade

VERSION = Version(
    AdapterName("team", "a"), 1, "0" * 64, Facts("lora", "", 4, 4, 8.0, 0, "F32", (), ""), 0, "ada", "",
    datetime(2026, 1, 1, tzinfo=UTC), False, None, None, (), (), {}, (),
)  # fmt: skip
Q = "layers.0.q_proj.weight"


def open_base(folder: Path) -> BaseWeights:
    identity = identify(folder)
    tensors = BaseTensors(identity.base, parse_tensor_digests(identity.tensor_list, identity.base))
    return BaseWeights(tensors, read_model(folder))


def verdict(adapter: Path, old: Path, new: Path, *, weights: bool = True) -> AdapterUpgrade:
    before, after = open_base(old), open_base(new)
    structure = read_structure(adapter)
    tensors = touched_tensors(structure, before.tensors, after.tensors)
    compared = ComparedAdapter(structure, tensors)
    changes = measure_bases(before, after, [compared]).adapters[0] if weights else None
    return assess_upgrade(VERSION, structure.config, tensors, changes)


def state(name: str) -> torch.Tensor:
    return new_model().state_dict()[name]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "old")


def test_an_adapter_moves_exactly_where_all_that_it_touches_is_the_same(tmp_path: Path, base: Path):
    new = write_base(tmp_path / "new", {"head.weight": state("head.weight") + 1})
    result = verdict(train(tmp_path / "a", 1), base, new)
    assert result.verdict == UpgradeVerdict.EXACT
    assert (result.tensors, result.changed, result.read) == (4, 0, None)


def test_the_same_numbers_in_a_wider_dtype_are_the_same(tmp_path: Path, base: Path):
    (tmp_path / "new").mkdir()
    wider = {name: tensor.double() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(wider, tmp_path / "new" / "model.safetensors")
    assert verdict(train(tmp_path / "a", 1), base, tmp_path / "new").verdict == UpgradeVerdict.EXACT


def test_a_small_change_is_to_be_copied_and_its_figure_is_that_of_all_modules(tmp_path: Path, base: Path):
    change = 0.01 * torch.randn(24, 20, generator=torch.Generator().manual_seed(3))
    adapter = train(tmp_path / "a", 1)
    result = verdict(adapter, base, write_base(tmp_path / "new", {Q: state(Q) + change}))
    tensors = load_file(adapter / "adapter_model.safetensors")
    deltas = {
        name: 2 * tensors[name.replace("lora_A", "lora_B")].double() @ a.double()
        for name, a in tensors.items()
        if "lora_A" in name
    }
    (q,) = (delta for name, delta in deltas.items() if "layers.0.q_proj" in name)
    read = torch.linalg.svd(q)[2][:4]
    expected = torch.linalg.norm(change.double() @ read.T) / sum((d**2).sum() for d in deltas.values()) ** 0.5
    assert result.verdict == UpgradeVerdict.COPY
    assert result.read == pytest.approx(float(expected), rel=1e-4)
    assert (result.tensors, result.changed) == (4, 1)
    assert [module.module for module in result.modules] == ["layers.0.q_proj"]


def test_a_change_as_large_as_the_adapter_calls_for_training(tmp_path: Path, base: Path):
    new = write_base(tmp_path / "new", {Q: state(Q) + 10 * torch.randn(24, 20)})
    result = verdict(train(tmp_path / "a", 1), base, new)
    assert result.verdict == UpgradeVerdict.RETRAIN
    assert result.read is not None
    assert result.read > 1


@pytest.mark.parametrize("changed", [{Q: torch.ones(24, 21)}, {Q: None}], ids=["another shape", "gone"])
def test_a_tensor_that_is_gone_or_has_another_shape_calls_for_training(tmp_path: Path, base: Path, changed: Any):
    new = write_base(tmp_path / "new", {name: t for name, t in changed.items() if t is not None})
    if changed[Q] is None:
        tensors = load_file(new / "model.safetensors")
        save_file({name: t for name, t in tensors.items() if name != Q}, new / "model.safetensors")
    result = verdict(train(tmp_path / "a", 1), base, new)
    assert result.verdict == UpgradeVerdict.RETRAIN
    assert "q_proj" in result.reason


def test_without_weights_a_change_is_told_and_not_its_size(tmp_path: Path, base: Path):
    new = write_base(tmp_path / "new", {Q: state(Q) + 1})
    result = verdict(train(tmp_path / "a", 1), base, new, weights=False)
    assert result.verdict == UpgradeVerdict.UNKNOWN
    assert result.reason == "1 of 4 tensors changed; by how much, the folders of both models tell"


def test_an_adapter_whose_training_began_by_changing_the_base_is_trained_again(tmp_path: Path, base: Path):
    adapter = change_config(train(tmp_path / "a", 1), init_lora_weights="pissa")
    new = write_base(tmp_path / "new", {Q: state(Q) + 1e-3})
    assert verdict(adapter, base, new).verdict == UpgradeVerdict.RETRAIN
    assert verdict(adapter, base, base).verdict == UpgradeVerdict.EXACT


def test_a_field_that_nobody_knows_leaves_the_verdict_open(tmp_path: Path, base: Path):
    adapter = change_config(train(tmp_path / "a", 1), use_new_trick=True)
    result = verdict(adapter, base, write_base(tmp_path / "new", {Q: state(Q) + 1e-3}))
    assert result.verdict == UpgradeVerdict.UNKNOWN
    assert "use_new_trick" in result.reason


def test_a_whole_head_beside_a_changed_one_is_copied_and_told(tmp_path: Path, base: Path):
    adapter = train(tmp_path / "a", 1, head=True)
    changed = write_base(tmp_path / "new", {"head.weight": state("head.weight") + 1})
    result = verdict(adapter, base, changed)
    assert result.verdict == UpgradeVerdict.COPY
    assert "it brings head.weight whole" in result.reason


def test_a_whole_head_of_another_shape_calls_for_training(tmp_path: Path, base: Path):
    adapter = train(tmp_path / "a", 1, head=True)
    wider = write_base(tmp_path / "new", {"head.weight": torch.ones(5, 20)})
    result = verdict(adapter, base, wider)
    assert result.verdict == UpgradeVerdict.RETRAIN
    assert result.reason == "head.weight is (3, 20) in the adapter, the new base has (5, 20)"


def test_a_weight_in_integers_cannot_be_compared(tmp_path: Path, base: Path):
    new = write_base(tmp_path / "new", {Q: torch.ones(24, 20, dtype=torch.int8)})
    result = verdict(train(tmp_path / "a", 1), base, new)
    assert result.verdict == UpgradeVerdict.UNKNOWN
    assert "stored as I8" in result.reason


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_leaves_the_verdict_open(tmp_path: Path, base: Path, number: float):
    broken = state(Q).clone()
    broken[0, 0] = number
    result = verdict(train(tmp_path / "a", 1), base, write_base(tmp_path / "new", {Q: broken}))
    assert (result.verdict, result.read, result.change) == (UpgradeVerdict.UNKNOWN, None, None)
    assert "not finite" in result.reason


def test_factors_that_cannot_be_computed_with_leave_the_verdict_open(tmp_path: Path, base: Path):
    adapter = train(tmp_path / "a", 1)
    tensors = load_file(adapter / "adapter_model.safetensors")
    small = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}
    save_file(small, adapter / "adapter_model.safetensors", {"format": "pt"})
    new = write_base(tmp_path / "new", {Q: state(Q) + 1e-3})
    result = verdict(adapter, base, new, weights=False)
    assert result.verdict == UpgradeVerdict.UNKNOWN
    assert "F8_E4M3" in result.reason


def test_an_adapter_that_was_taken_in_overlaps_by_one(tmp_path: Path, base: Path):
    adapter = train(tmp_path / "a", 1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    changed = {}
    for name, a in tensors.items():
        if "lora_A" in name:
            weight = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            b = tensors[name.replace("lora_A", "lora_B")]
            changed[weight] = state(weight) + config["lora_alpha"] / config["r"] * b @ a
    result = verdict(adapter, base, write_base(tmp_path / "new", changed))
    assert result.overlap == pytest.approx(1, rel=1e-4)
    assert result.verdict == UpgradeVerdict.RETRAIN
    assert result.reason == "the upgrade has 100 % of it in: on the new base it would count twice"


@pytest.mark.parametrize("broken", [torch.full((24, 20), float("nan")), torch.ones(24, 20, dtype=torch.int8)])
def test_the_change_of_the_base_is_not_said_where_it_cannot_be_measured(
    tmp_path: Path, base: Path, broken: torch.Tensor
):
    new = write_base(tmp_path / "new", {Q: broken})
    assert measure_bases(open_base(base), open_base(new), []).change is None
