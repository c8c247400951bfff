"""Every figure of a certificate against its definition on dense matrices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments import empty_home
from factories import deltas_by_peft, train, weighted_sum
from loreg.entities import MergeOptions
from loreg.registry import connect

RANK = 3
WEIGHTS = [0.8, -0.3]


@pytest.fixture
def merged(tmp_path: Path):
    folders = [train(tmp_path / "a", 1, r=5), train(tmp_path / "b", 2, r=2, use_rslora=True, target_modules=["q_proj"])]
    registry = connect(home=empty_home(tmp_path / "home"))
    result = registry.merge(
        [str(f) for f in folders], MergeOptions(weights=WEIGHTS, rank=RANK), folder=tmp_path / "merged"
    )
    deltas = [deltas_by_peft(folder) for folder in folders]
    return result.provenance.certificate, deltas, weighted_sum(deltas, WEIGHTS), tmp_path / "merged"


def test_each_module(merged):
    certificate, sources, exact, folder = merged
    stored = load_file(folder / "adapter_model.safetensors")
    assert [m["module"] for m in certificate["modules"]] == sorted(exact)
    for figures in certificate["modules"]:
        module, delta = figures["module"], exact[figures["module"]]
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        energy = s.square()
        best = u[:, :RANK] * s[:RANK] @ vh[:RANK]
        name = f"base_model.model.{module}"
        b, a = stored[f"{name}.lora_B.weight"].double(), stored[f"{name}.lora_A.weight"].double()
        assert figures["shape"] == list(delta.shape)
        assert figures["rank"] == RANK
        assert figures["rank_in"] == sum({5: 5, 2: 2}[r] for r, d in zip((5, 2), sources, strict=True) if module in d)
        assert figures["norm"] == pytest.approx(float(torch.linalg.norm(delta)))
        assert figures["epsilon"] == pytest.approx(float((energy[RANK:].sum() / energy.sum()).sqrt()))
        assert figures["epsilon"] == pytest.approx(float(torch.linalg.norm(delta - best) / torch.linalg.norm(delta)))
        assert figures["retained_energy"] == pytest.approx(1 - figures["epsilon"] ** 2)
        assert figures["sigma_next"] == pytest.approx(float(s[RANK]))
        assert figures["dtype_error"] == pytest.approx(
            float(torch.linalg.norm(b @ a - best) / torch.linalg.norm(best)), rel=1e-2
        )
        for share, rank in figures["ranks"].items():
            kept = torch.cumsum(energy, 0) / energy.sum()
            assert kept[rank - 1] >= float(share) / 100
            assert rank == 1 or kept[rank - 2] < float(share) / 100
        for source, kept in zip(sources, figures["retention"], strict=True):
            if module not in source:
                assert kept is None
                continue
            core = u[:, :RANK].T @ source[module] @ vh[:RANK].T
            assert kept == pytest.approx(float(core.square().sum() / source[module].square().sum()))


def test_the_total_is_that_of_all_modules_as_one_matrix(merged):
    certificate, sources, exact, _ = merged
    total, modules = certificate["total"], certificate["modules"]
    energy = sum(float(delta.square().sum()) for delta in exact.values())
    lost = sum((m["epsilon"] * m["norm"]) ** 2 for m in modules)
    assert total["norm"] == pytest.approx(energy**0.5)
    assert total["epsilon"] == pytest.approx((lost / energy) ** 0.5)
    assert total["sigma_next"] == max(m["sigma_next"] for m in modules)
    for position, source in enumerate(sources):
        kept = sum(
            m["retention"][position] * float(source[m["module"]].square().sum())
            for m in modules
            if m["module"] in source
        )
        assert total["retention"][position] == pytest.approx(
            kept / sum(float(d.square().sum()) for d in source.values())
        )


def test_it_is_stored_beside_the_weights(merged):
    certificate, _, _, folder = merged
    assert json.loads((folder / "loreg_merge.json").read_text())["certificate"] == certificate


def test_a_lossless_merge_says_so(tmp_path: Path):
    folders = [str(train(tmp_path / "a", 1)), str(train(tmp_path / "b", 2))]
    total = (
        connect(home=str(tmp_path / "home"))
        .merge(folders, MergeOptions(weights=[1, 1]))
        .provenance.certificate["total"]
    )
    assert total["epsilon"] < 1e-12
    assert total["sigma_next"] == 0
    assert total["retention"] == pytest.approx([1, 1])
    assert total["dtype_error"] < 1e-6


def test_a_source_that_is_wiped_out_is_a_warning(tmp_path: Path):
    folders = [str(train(tmp_path / "a", 1)), str(train(tmp_path / "b", 2))]
    registry = connect(home=empty_home(tmp_path / "home"))
    warnings = registry.merge(folders, MergeOptions(weights=[1, 0.001], rank=4)).provenance.certificate["warnings"]
    assert len(warnings) == 1
    assert warnings[0].startswith("b keeps ")
    assert "raise its weight or the rank" in warnings[0]


def test_a_sum_that_cancels_has_a_certificate_too(tmp_path: Path):
    folder = str(train(tmp_path / "a", 1))
    result = connect(home=str(tmp_path / "home")).merge(
        [folder, folder], MergeOptions(weights=[1, -1]), folder=tmp_path / "zero"
    )
    total = result.provenance.certificate["total"]
    assert total["epsilon"] == pytest.approx(0, abs=1e-6)
    deltas = deltas_by_peft(tmp_path / "zero")
    assert all(float(delta.abs().max()) < 1e-6 for delta in deltas.values())
