"""diff: what differs between two adapters, compared with numpy on the factors themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from deployments import HISTORY, NEWS, SCIENCE, Loreg
from factories import change_config, change_tensors, copy
from loreg.registry import Registry

MODULE = "model.layers.0.self_attn.q_proj"


def delta(folder: Path, module: str) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    prefix = f"base_model.model.{module}"
    return tensors[f"{prefix}.lora_B.weight"].astype(float) @ tensors[f"{prefix}.lora_A.weight"].astype(float) * 2


def test_cosine_and_norms_are_those_of_the_deltas(registry: Registry):
    registry.push(SCIENCE, "science")
    difference = registry.diff("science", str(HISTORY))
    (module,) = [module for module in difference.modules if module.name == MODULE]
    x, y = delta(SCIENCE, MODULE), delta(HISTORY, MODULE)
    assert module.cosine == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))
    assert (module.norm_a, module.norm_b) == pytest.approx((np.linalg.norm(x), np.linalg.norm(y)))
    assert len(difference.modules) == 60


def test_metrics_configuration_and_card_are_named_where_they_differ(registry: Registry, tmp_path: Path):
    other = change_config(copy(SCIENCE, tmp_path / "other"), lora_dropout=0.25)
    (other / "README.md").write_text("# A better one\n")
    registry.push(SCIENCE, "science", metrics=["accuracy=0.8@arc", "loss=1.5"])
    registry.push(other, "science", metrics=["accuracy=0.9@arc", "loss=1.5"])
    difference = registry.diff("science:v1", "science:v2")
    assert [(f.name, f.a, f.b) for f in difference.metrics] == [("accuracy@arc", "0.8", "0.9")]
    assert [(f.name, f.b) for f in difference.configuration] == [("lora_dropout", "0.25")]
    assert "+# A better one" in difference.card
    assert all(module.cosine == pytest.approx(1) for module in difference.modules)


def test_a_module_that_only_one_has_is_named(registry: Registry, tmp_path: Path):
    other = copy(SCIENCE, tmp_path / "other")
    names = [name for name in load_file(other / "adapter_model.safetensors") if f".{MODULE}." in name]
    change_tensors(other, dict.fromkeys(names))
    (module,) = [m for m in registry.diff(str(SCIENCE), str(other)).modules if m.name == MODULE]
    assert (module.rank_a, module.rank_b, module.cosine) == (8, 0, None)


def test_adapters_of_different_bases_have_no_module_in_common(registry: Registry):
    difference = registry.diff(str(SCIENCE), str(NEWS))
    assert all(0 in (module.rank_a, module.rank_b) for module in difference.modules)


def test_the_command_shows_what_differs_and_says_how_much_is_the_same(local: Loreg, tmp_path: Path):
    other = change_config(copy(SCIENCE, tmp_path / "other"), lora_dropout=0.25)
    shown = local("diff", SCIENCE, other)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "lora_dropout" in shown.stdout
    assert "60 of 60 modules are the same" in shown.stdout
    assert local("diff", SCIENCE, other, "--format", "quiet").stdout == "lora_dropout\n"
    differing = local("diff", SCIENCE, HISTORY).stdout
    assert "0 of 60 modules are the same" in differing
    assert "and 48 more modules that differ less: --all-modules" in differing


def test_metrics_that_differ_in_the_seventh_digit_differ(registry: Registry, loreg: Loreg):
    registry.push(SCIENCE, "a", metrics=["accuracy=0.91234567", "loss=1.2345678901", "f1=0.5"])
    registry.push(HISTORY, "b", metrics=["accuracy=0.91234571", "loss=1.2345678901", "f1=0.25"])
    difference = registry.diff("a", "b")
    assert [(f.name, f.a, f.b) for f in difference.metrics] == [
        ("accuracy", "0.91234567", "0.91234571"),
        ("f1", "0.5", "0.25"),
    ]
    assert "0.91234567" in loreg("diff", "a", "b").stdout
    assert "accuracy=0.91234567" in loreg("show", "a").stdout
    assert "accuracy=0.91234568" in loreg("metric", "add", "a", "accuracy=0.91234568").stdout
    assert "measured accuracy=0.91234568, before 0.91234567" in loreg("log", "a", "--no-truncate").stdout


def test_a_module_that_differs_is_never_shown_with_the_same_numbers(local: Loreg, tmp_path: Path):
    name = f"base_model.model.{MODULE}.lora_B.weight"
    factor = load_file(SCIENCE / "adapter_model.safetensors")[name]
    scaled = change_tensors(copy(SCIENCE, tmp_path / "scaled"), {name: torch.from_numpy(factor * np.float32(1 + 1e-5))})
    turned = factor.copy()
    turned[0, 0] += 1e-3 * abs(factor).max()
    turned_by_little = change_tensors(copy(SCIENCE, tmp_path / "turned"), {name: torch.from_numpy(turned)})
    for folder in (scaled, turned_by_little):
        shown = local("diff", SCIENCE, folder).stdout
        assert "59 of 60 modules are the same" in shown
        (row,) = [line.split() for line in shown.splitlines() if line.startswith(MODULE)]
        assert row[4] != row[5] or row[3] != "1.000"
