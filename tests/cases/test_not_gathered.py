"""What ZeRO-3 and FSDP leave where the weights were not gathered: peft#2450, peft#2892, accelerate#3508, trl#4416."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cases.building import WEIGHTS, codes, llama, refused_everywhere, renamed, save, trained, write
from loreg.registry import Registry

WAYS = ("stage3_gather_16bit_weights_on_model_save", "zero_to_fp32.py", "accelerator.get_state_dict(model)")


def adapter(folder: Path) -> Path:
    return save(trained(llama(), modules_to_save=["embed_tokens", "lm_head"]), folder)


def empty(part: str) -> object:
    return lambda name, tensor: torch.empty(0) if part in name else tensor


@pytest.mark.parametrize("part", ["lm_head", "embed_tokens", "weight", "lora_", "lora_B", "layers.1.self_attn.q_proj"])
def test_tensors_without_numbers_are_refused_with_the_way_to_gather_them(
    local_registry: Registry, tmp_path: Path, base: Path, part: str
):
    broken = renamed(adapter(tmp_path / "a"), lambda name: name, empty(part))
    assert codes(local_registry, broken) == codes(local_registry, broken, header_only=True) == ["LR018"]
    for way in WAYS:
        refused_everywhere(local_registry, broken, base, tmp_path / "out", "ZeRO-3", way)


def test_so_is_one_dimension_of_no_length(local_registry: Registry, tmp_path: Path):
    broken = renamed(adapter(tmp_path / "a"), lambda n: n, lambda n, t: t[:0] if "lora_A" in n else t)
    assert codes(local_registry, broken) == ["LR018"]


def test_so_are_pieces_that_lie_flat(local_registry: Registry, tmp_path: Path):
    broken = renamed(adapter(tmp_path / "a"), lambda n: n, lambda n, t: t.flatten()[:7] if "lora_" in n else t)
    assert codes(local_registry, broken) == ["LR018"]


def test_so_is_a_file_without_tensors(local_registry: Registry, tmp_path: Path, base: Path):
    broken = write(adapter(tmp_path / "a"), {})
    assert (broken / WEIGHTS).stat().st_size < 100
    (report,) = local_registry.check([str(broken)])
    (finding,) = report.findings
    assert finding.severity == "error"
    assert "ZeRO-3" in finding.message
    for way in WAYS:
        assert way in finding.remedy
        refused_everywhere(local_registry, broken, base, tmp_path / "out", "ZeRO-3", way)


def test_what_was_gathered_is_sound(local_registry: Registry, tmp_path: Path):
    assert codes(local_registry, adapter(tmp_path / "a")) == []
