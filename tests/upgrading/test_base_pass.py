"""Both bases read once: what each kind of module meets of the change, beside the dense delta that PEFT merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from loreg.adapters.structure import read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import identify, parse_tensor_digests
from loreg.bases.model import read_model
from loreg.upgrading.base_pass import BaseWeights, ComparedAdapter, measure_bases
from loreg.upgrading.touched_tensors import TensorState, touched_tensors
from module_kinds import FORMS, new_model, train, write_base

TRANSPOSED = ("words", "old")


def open_base(folder: Path) -> BaseWeights:
    identity = identify(folder)
    tensors = BaseTensors(identity.base, parse_tensor_digests(identity.tensor_list, identity.base))
    return BaseWeights(tensors, read_model(folder))


def compare(folder: Path, old: BaseWeights, new: BaseWeights) -> ComparedAdapter:
    structure = read_structure(folder)
    return ComparedAdapter(structure, touched_tensors(structure, old.tensors, new.tensors))


def upgrade(base: Path, folder: Path, *, only: tuple[str, ...] = ()) -> Path:
    """Write the base with noise on every tensor, or on those of the modules ``only``; returns ``folder``."""
    folder.mkdir()
    torch.manual_seed(99)
    tensors = {
        name: tensor + 0.1 * torch.randn_like(tensor) if not only or name.partition(".")[0] in only else tensor
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def merged_deltas(base: Path, adapter: Path) -> dict[str, Tensor]:
    """What PEFT's merging adds to each tensor of the base, in float64, as it is stored."""
    tensors = {name: tensor.double() for name, tensor in load_file(base / "model.safetensors").items()}
    model = new_model().double()
    model.load_state_dict(tensors)
    merged = PeftModel.from_pretrained(model, adapter).double().merge_and_unload().state_dict()
    deltas = {name: merged[name].detach() - tensors[name] for name in tensors}
    return {name: delta for name, delta in deltas.items() if delta.abs().max() > 0}


def dense_figures(change: Tensor, delta: Tensor) -> dict[str, float]:
    """Of one tensor: each of its matrices, experts or one, projected on the spaces of its delta."""
    stacked = delta.ndim == 3 and delta.shape[0] == 3  # the experts; the kernel of a sound has no axis of three
    figures = {"delta": 0.0, "change": 0.0, "read": 0.0, "written": 0.0, "inner": 0.0}
    for matrices in zip(change if stacked else change[None], delta if stacked else delta[None], strict=True):
        d, delta_ = (matrix.flatten(1) for matrix in matrices)
        u, s, vh = torch.linalg.svd(delta_)
        rank = int((s > 1e-9 * s[0]).sum())
        figures["delta"] += float((delta_**2).sum())
        figures["change"] += float((d**2).sum())
        figures["read"] += float(((d @ vh[:rank].T) ** 2).sum())
        figures["written"] += float(((u[:, :rank].T @ d) ** 2).sum())
        figures["inner"] += float((d * delta_).sum())
    return figures


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_module_is_measured_as_its_dense_delta(tmp_path: Path, form: str):
    targets, options = FORMS[form]
    adapter, base = train(tmp_path / "adapter", 1, targets, **options), write_base(tmp_path / "base")
    after = upgrade(base, tmp_path / "upgraded")
    old, new = open_base(base), open_base(after)
    (modules,) = measure_bases(old, new, [compare(adapter, old, new)]).adapters
    before_tensors, after_tensors = (load_file(folder / "model.safetensors") for folder in (base, after))
    deltas = {name: delta for name, delta in merged_deltas(base, adapter).items() if not name.endswith("bias")}
    assert {module.removesuffix(".weight") for module in modules} == {n.removesuffix(".weight") for n in deltas}
    for name, delta in deltas.items():
        actual = modules[name.removesuffix(".weight")]
        expected = dense_figures(after_tensors[name].double() - before_tensors[name].double(), delta)
        if name.partition(".")[0] in TRANSPOSED:
            expected["read"], expected["written"] = expected["written"], expected["read"]
        if name.startswith("experts"):  # no class of a model says which way they lie
            assert sorted((actual.read, actual.written)) == pytest.approx(
                sorted((expected.pop("read"), expected.pop("written"))), rel=1e-4
            )
        for figure, value in expected.items():
            assert getattr(actual, figure) == pytest.approx(value, rel=1e-4, abs=1e-5), (name, figure)


def test_what_is_the_same_is_told_by_digests_and_its_weights_are_not_read(tmp_path: Path):
    base = write_base(tmp_path / "base")
    adapter = train(tmp_path / "adapter", 1, ["plain", "words"])
    old, new = open_base(base), open_base(upgrade(base, tmp_path / "upgraded", only=("image", "words")))
    compared = compare(adapter, old, new)
    assert {t.old_name: t.state for t in compared.tensors} == {
        "words.weight": TensorState.CHANGED,
        "plain.weight": TensorState.SAME,
    }
    read: list[str] = []
    watched = [Watched(weights.tensors, weights.model, read) for weights in (old, new)]
    (modules,) = measure_bases(*watched, [compared]).adapters
    assert sorted(read) == sorted(["image.bias", "image.weight", "words.weight"] * 2)
    assert modules["plain"].change == 0
    assert modules["plain"].delta == pytest.approx(float((merged_deltas(base, adapter)["plain.weight"] ** 2).sum()))


class Watched(BaseWeights):
    """A base that keeps the names of the tensors that were read."""

    def __init__(self, tensors: BaseTensors, model: Any, read: list[str]) -> None:
        super().__init__(tensors, model)
        object.__setattr__(self, "names", read)

    def read(self, name: str) -> Any:
        self.names.append(name)  # type: ignore[attr-defined]
        return super().read(name)


def test_each_tensor_is_read_once_however_many_adapters_touch_it(tmp_path: Path):
    base = write_base(tmp_path / "base")
    adapters = [train(tmp_path / str(seed), seed, ["plain"], r=1 + seed % 4) for seed in range(12)]
    old, new = open_base(base), open_base(upgrade(base, tmp_path / "upgraded"))
    read: list[str] = []
    watched = [Watched(weights.tensors, weights.model, read) for weights in (old, new)]
    compared = [compare(adapter, old, new) for adapter in adapters]
    of_all = measure_bases(*watched, compared)
    assert read.count("plain.weight") == 2
    for adapter, modules in zip(compared, of_all.adapters, strict=True):
        (alone,) = measure_bases(old, new, [adapter]).adapters
        assert modules["plain"].read == pytest.approx(alone["plain"].read)


def test_the_change_of_the_base_is_that_of_all_tensors_that_changed(tmp_path: Path):
    base = write_base(tmp_path / "base")
    after = upgrade(base, tmp_path / "upgraded", only=("plain", "image"))
    tensors = [load_file(folder / "model.safetensors") for folder in (base, after)]
    changed = [name for name in tensors[0] if not torch.equal(tensors[0][name], tensors[1][name])]
    change, whole = (
        sum(float((t[name].double() ** 2).sum()) for name in changed)
        for t in ({n: tensors[1][n] - tensors[0][n] for n in changed}, tensors[0])
    )
    actual = measure_bases(open_base(base), open_base(after), []).change
    assert actual == pytest.approx((change / whole) ** 0.5, rel=1e-5)
