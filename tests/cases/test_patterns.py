"""Patterns that match no module, which PEFT passes over in silence (peft#3582), and those that look so and do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases.building import PREFIX, codes, llama, save, trained
from loreg.adapters.structure import read_structure
from loreg.registry import Registry

Q = "layers.0.self_attn.q_proj"
DEAD = {
    "an anchor": ({"alpha_pattern": {"^q_proj": 100}}, "'^q_proj'"),
    "PEFT's prefix": ({"alpha_pattern": {f"{PREFIX}model.{Q}": 100}}, f"'{PREFIX}model.{Q}'"),
    "a typing error": ({"alpha_pattern": {"q_porj": 100}}, "'q_porj'"),
    "a module that was not trained": ({"rank_pattern": {"k_proj": 2}}, "'k_proj'"),
    "a part of a name": ({"rank_pattern": {"proj": 2}}, "'proj'"),
    "a layer that is not there": ({"rank_pattern": {r"layers\.2\..*": 2}}, r"'layers\\.2\\..*'"),
    "an expression in a list": ({"target_modules": ["q_proj", "v_proj", "k_proj$"]}, "'k_proj$'"),
    "layers that are not there": ({"layers_to_transform": [0, 1, 2, 3]}, "2, 3"),
}
ALIVE = {
    "an anchor of the whole name": {"alpha_pattern": {f"^model.{Q}": 100}, "rank_pattern": {"^model.layers.1.*": 2}},
    "an end": {"alpha_pattern": {"q_proj$": 100}},
    "an expression": {
        "alpha_pattern": {r"layers\.[1-9]\d*\.self_attn\.q_proj": 100},
        "rank_pattern": {r"(q_proj|v_proj)": 6, "layers.0.self_attn.v_proj": 2},
    },
    "more types than the model has": {"target_modules": ["q_proj", "query", "c_attn", "Wqkv"]},
    "every linear layer": {"target_modules": "all-linear"},
    "every linear layer but some": {"target_modules": "all-linear", "exclude_modules": ["layers.0.mlp.up_proj"]},
    "one layer": {"layers_to_transform": [1]},
}


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_pattern_is_named(local_registry: Registry, tmp_path: Path, name: str):
    options, message = DEAD[name]
    (report,) = local_registry.check([str(save(trained(llama(), **options), tmp_path / "a"))])
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("LR022", "warning")
    assert message in finding.message
    local_registry.push(str(tmp_path / "a"), "team/a")


@pytest.mark.parametrize("name", ALIVE)
def test_a_live_pattern_is_not(local_registry: Registry, tmp_path: Path, name: str):
    peft = trained(llama(), **ALIVE[name])
    folder = save(peft, tmp_path / "a")
    assert codes(local_registry, folder) == []
    for module, read_module in read_structure(folder).modules.items():
        layer = peft.base_model.model.get_submodule(module)
        assert (read_module.rank, read_module.scale) == (layer.r["default"], layer.scaling["default"])


def test_the_pattern_that_would_match_is_told(local_registry: Registry, tmp_path: Path):
    (report,) = local_registry.check([str(save(trained(llama(), alpha_pattern={"^q_proj": 100}), tmp_path / "a"))])
    assert report.findings[0].message.endswith("; 'q_proj' would")
