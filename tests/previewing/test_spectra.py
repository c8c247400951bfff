"""The spectra of a stored version are the singular values of its deltas as PEFT has them, and no torch is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import module_kinds
from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE
from factories import change_tensors, deltas_by_hand, deltas_by_peft, train
from loreg.entities import AdapterSpectra
from loreg.errors import MergeError, NotFoundError
from loreg.registry import Registry, connect
from previewing.conftest import ask_without_torch, home_settings


def assert_is_dense(spectra: AdapterSpectra, deltas: Mapping[str, Tensor]) -> None:
    """Compare with the decomposition of the dense deltas."""
    assert [spectrum.module for spectrum in spectra.modules] == sorted(deltas)
    whole, kept = 0.0, torch.zeros(len(spectra.retained), dtype=torch.float64)
    for spectrum in spectra.modules:
        delta = deltas[spectrum.module]
        s = torch.linalg.svdvals(delta)
        energy = float(s.square().sum())
        assert spectrum.shape == tuple(delta.shape)
        assert spectrum.sigmas == pytest.approx(s[: spectrum.rank].tolist(), rel=1e-9, abs=1e-12 * float(s[0]))
        assert spectrum.norm == pytest.approx(math.sqrt(energy), rel=1e-9)
        assert spectrum.stable_rank == pytest.approx(energy / float(s[0]) ** 2, rel=1e-9)
        shares = (s.square().cumsum(0) / energy).tolist()
        for share, rank in spectrum.ranks.items():
            assert rank == sum(kept_share < float(share) / 100 for kept_share in shares) + 1
        whole += energy
        kept += torch.cat([torch.zeros(1), s.square().cumsum(0)])[: len(kept)]
    assert spectra.norm == pytest.approx(math.sqrt(whole))
    assert spectra.retained == pytest.approx((kept / whole).tolist(), abs=1e-9)


@pytest.mark.parametrize("folder", [SCIENCE, HISTORY, NEWS, MOVIES], ids=lambda folder: folder.name)
def test_real_adapters(home: Registry, folder: Path):
    version = home.push(folder, "team/a").version
    spectra = home.spectra(version.ref)
    assert (spectra.ref, spectra.digest) == (version.ref, version.digest)
    assert_is_dense(spectra, deltas_by_hand(folder))


def test_every_deployment_answers_the_same(registry: Registry):
    registry.push(SCIENCE, "team/a", aliases=["prod"])
    spectra = registry.spectra("team/a:prod")
    assert_is_dense(spectra, deltas_by_hand(SCIENCE))
    with pytest.raises(NotFoundError):
        registry.spectra("team/nothing")


def test_scales_of_every_kind(home: Registry, tmp_path: Path):
    for i, options in enumerate(({"lora_alpha": 1}, {"use_rslora": True}, {"r": 5, "alpha_pattern": {"q_proj": 7}})):
        folder = train(tmp_path / str(i), i, **options)
        assert_is_dense(home.spectra(home.push(folder, "team/a").version.ref), deltas_by_peft(folder))


def test_experts_count_as_one_module(home: Registry, tmp_path: Path):
    """What is at one place of all experts adds up: of one block-diagonal delta the norms are the same."""
    targets, options = module_kinds.FORMS["experts"]
    folder = module_kinds.train(tmp_path / "a", 1, targets, **options)
    ref = home.push(folder, "team/a").version.ref
    spectra, merged = home.spectra(ref), home.merge([ref], device="cpu")
    certified = {module["module"]: module for module in merged.provenance.certificate["modules"]}
    assert {spectrum.module for spectrum in spectra.modules} == set(certified)
    for spectrum in spectra.modules:
        assert spectrum.norm == pytest.approx(certified[spectrum.module]["norm"])
        assert spectrum.sigmas[: len(merged.spectra[spectrum.module])] == pytest.approx(
            merged.spectra[spectrum.module][: len(spectrum.sigmas)]
        )


def test_of_a_large_rank_the_first_64_are_exact(home: Registry, tmp_path: Path):
    torch.manual_seed(5)
    model = module_kinds.new_model()
    model.plain = torch.nn.Linear(90, 100)
    folder = module_kinds.train(tmp_path / "a", 1, ["plain"], model, r=80)
    (spectrum,) = home.spectra(home.push(folder, "team/a").version.ref).modules
    (delta,) = deltas_by_hand(folder).values()
    s = torch.linalg.svdvals(delta)
    assert not spectrum.complete
    assert spectrum.sigmas == pytest.approx(s[:64].tolist(), rel=1e-5)
    assert spectrum.norm == pytest.approx(float(torch.linalg.matrix_norm(delta)), rel=1e-6)
    assert spectrum.ranks["90"] == int((s.square().cumsum(0) / s.square().sum() < 0.9).sum()) + 1
    assert spectrum.ranks["99.9"] is None


def test_an_adapter_that_was_not_trained_has_zeros(home: Registry, tmp_path: Path):
    folder = train(tmp_path / "a", 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    change_tensors(folder, {name: torch.zeros_like(x) for name, x in tensors.items() if "lora_B" in name})
    spectra = home.spectra(home.push(folder, "team/a").version.ref)
    assert spectra.norm == 0
    assert {(spectrum.norm, spectrum.stable_rank, max(spectrum.sigmas)) for spectrum in spectra.modules} == {(0, 0, 0)}
    assert set(spectra.retained) == {1.0}


def test_what_needs_more_than_the_adapter_is_refused_in_words(home: Registry):
    ref = home.push(DORA, "team/dora").version.ref
    with pytest.raises(MergeError, match=r"no singular values are known: .*use_dora") as refusal:
        home.spectra(ref)
    assert refusal.value.hint == f"loreg show {ref}"


def test_no_torch_is_needed(home: Registry, tmp_path: Path):
    home.push(SCIENCE, "team/a")
    assert ask_without_torch(home, "spectra('team/a').norm", tmp_path) == home.spectra("team/a").norm


def test_the_files_are_read_once(home: Registry, tmp_path: Path):
    home.push(SCIENCE, "team/a")
    first = home.spectra("team/a")
    for blob in [path for path in (tmp_path / "store").rglob("*") if path.is_file()]:
        blob.unlink()
    assert home.spectra("team/a") == first
    with connect(**home_settings(home), home=tmp_path / "home") as another:
        assert another.spectra("team/a") == first
