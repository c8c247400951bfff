"""GPT-2 keeps its layers as Conv1D and its head as Linear; PEFT writes one ``fan_in_fan_out`` for both (peft#3531)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases.building import agree, answers, codes, gpt2, of_baked, save, trained
from loreg.registry import Registry

CASES = {
    "c_attn": (True, {"target_modules": ["c_attn"]}),
    "square": (True, {"target_modules": ["attn.c_proj"]}),
    "c_attn and head": (True, {"target_modules": ["c_attn", "lm_head"]}),
    "square and head": (True, {"target_modules": ["attn.c_proj", "lm_head"]}),
    "square and a head of its own": (False, {"target_modules": ["attn.c_proj", "lm_head"]}),
    "all-linear": (True, {"target_modules": "all-linear"}),
    "square with DoRA": (True, {"target_modules": ["attn.c_proj"], "use_dora": True}),
    "c_attn with DoRA": (True, {"target_modules": ["c_attn"], "use_dora": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_bakes_to_what_was_trained(local_registry: Registry, tmp_path: Path, name: str):
    tied, options = CASES[name]
    peft = trained(gpt2(tied), **options)
    base, folder = save(gpt2(tied), tmp_path / "base"), save(peft, tmp_path / "a")
    assert not {"LB001", "LB002"} & set(codes(local_registry, folder, base=str(base)))
    local_registry.bake([str(folder)], base=str(base), folder=tmp_path / "baked")
    agree(of_baked(tmp_path / "baked", 60), answers(peft, 60))
