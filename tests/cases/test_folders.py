"""Folders that are no adapter and have some in them: runs with checkpoints, and adapters with names."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from peft import LoraConfig

from cases.building import llama, save, trained
from loreg.entities import MergeOptions
from loreg.errors import NotFoundError
from loreg.registry import Registry


def second() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def run(folder: Path) -> Path:
    peft = trained(llama())
    for step in (100, 900, 1000):
        save(peft, folder / f"checkpoint-{step}")
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
        (folder / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"\x80")
    (folder / "README.md").write_text("x")
    return folder


def named(folder: Path) -> Path:
    peft = trained(llama())
    peft.add_adapter("reference", second())
    peft.add_adapter("policy", second())
    return save(peft, folder, selected_adapters=["reference", "policy"])


def test_the_checkpoints_of_a_run_are_named_the_newest_first(local_registry: Registry, tmp_path: Path):
    folder = run(tmp_path / "run")
    with pytest.raises(
        NotFoundError, match="3 adapters lie in it: checkpoint-1000, checkpoint-900, checkpoint-100"
    ) as e:
        local_registry.push(str(folder), "team/a")
    assert e.value.hint == f"loreg import {folder}"
    (report,) = local_registry.check([str(folder)])
    assert [(f.code, f.remedy) for f in report.findings] == [("LR000", e.value.hint)]
    _, _, place = shlex.split(e.value.hint)
    report = local_registry.import_runs([place])
    assert (len(report.created) + len(report.present), report.failures) == (3, ())


def test_adapters_with_names_are_named(local_registry: Registry, tmp_path: Path):
    folder = named(tmp_path / "named")
    with pytest.raises(NotFoundError, match="2 adapters lie in it: policy, reference") as error:
        local_registry.merge([str(folder)], MergeOptions(weights=[1.0]), folder=tmp_path / "out")
    assert error.value.hint == f"loreg check {folder}/policy"
    local_registry.push(f"{folder}/policy", "team/a")


def test_a_run_of_several_adapters_is_looked_through(local_registry: Registry, tmp_path: Path):
    named(tmp_path / "run" / "checkpoint-20")
    named(tmp_path / "run" / "checkpoint-3")
    with pytest.raises(NotFoundError, match="4 adapters lie in it: checkpoint-20/policy, checkpoint-20/reference,"):
        local_registry.push(str(tmp_path / "run"), "team/a")


def test_an_adapter_beside_another_is_left_out_of_its_version(local_registry: Registry, tmp_path: Path):
    peft = trained(llama())
    peft.add_adapter("reference", second())
    done = local_registry.push(str(save(peft, tmp_path / "dpo")), "team/a")
    assert done.left_out == (("reference/", "another adapter"),)


def test_a_folder_with_nothing_in_it_is_told_as_before(local_registry: Registry, tmp_path: Path):
    (tmp_path / "empty" / "data").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="it is not a PEFT adapter"):
        local_registry.push(str(tmp_path / "empty"), "team/a")


def test_a_configuration_whose_weights_lie_below_names_them(local_registry: Registry, tmp_path: Path):
    folder = run(tmp_path / "run")
    (folder / "adapter_config.json").write_bytes((folder / "checkpoint-900" / "adapter_config.json").read_bytes())
    with pytest.raises(NotFoundError, match=r"no adapter_model\.safetensors itself; 3 adapters lie in it"):
        local_registry.push(str(folder), "team/a")
