"""Names of what a model was wrapped in: torch.compile, DDP, FSDP, activation checkpointing, and PEFT in PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from cases.building import (
    PREFIX,
    WEIGHTS,
    agree,
    codes,
    llama,
    of_adapter,
    refused_everywhere,
    renamed,
    save,
    trained,
    write,
)
from loreg.adapters.structure import read_structure
from loreg.errors import AdapterFormatError
from loreg.registry import Registry

Rename = Callable[[str], str]


def in_layers(wrapper: str) -> Rename:
    return lambda name: name.replace("layers.0.", f"layers.0.{wrapper}").replace("layers.1.", f"layers.1.{wrapper}")


WRAPPED: dict[str, tuple[str, Rename]] = {
    "a compiled PeftModel": ("_orig_mod.", lambda n: f"_orig_mod.{n}"),
    "a compiled base": ("_orig_mod.", lambda n: n.replace(PREFIX, f"{PREFIX}_orig_mod.")),
    "compiled attention": ("_orig_mod.", lambda n: n.replace(".self_attn.", ".self_attn._orig_mod.")),
    "compiled layers": ("_orig_mod.", in_layers("_orig_mod.")),
    "FSDP": ("_fsdp_wrapped_module.", lambda n: f"_fsdp_wrapped_module.{in_layers('_fsdp_wrapped_module.')(n)}"),
    "FSDP around the base": (
        "_fsdp_wrapped_module.",
        lambda n: in_layers("_fsdp_wrapped_module.")(n).replace(PREFIX, f"{PREFIX}_fsdp_wrapped_module."),
    ),
    "checkpointed layers": ("_checkpoint_wrapped_module.", in_layers("_checkpoint_wrapped_module.")),
    "both": ("_checkpoint_wrapped_module.", in_layers("_fsdp_wrapped_module._checkpoint_wrapped_module.")),
    "Lightning": ("_forward_module.", lambda n: f"_forward_module.{n}"),
    "a base in DDP": ("module.", lambda n: n.replace(PREFIX, f"{PREFIX}module.")),
    "DDP": ("module.", lambda n: f"module.{n}"),
    "DDP of a compiled model": ("module.", lambda n: f"module._orig_mod.{n}"),
    "an attribute of a trainer": ("policy.model.", lambda n: f"policy.model.{n}"),
    "PEFT in PEFT": (PREFIX, lambda n: PREFIX + n),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    peft = trained(llama(), modules_to_save=["lm_head"])
    return save(peft, tmp_path_factory.mktemp("adapters") / "plain")


def wrapped(plain: Path, folder: Path, rename: Rename) -> Path:
    folder.mkdir()
    for path in plain.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return renamed(folder, rename)


@pytest.mark.parametrize("name", WRAPPED)
def test_is_refused_by_the_wrappers_name_and_exported_as_it_was_trained(
    local_registry: Registry, tmp_path: Path, base: Path, plain: Path, name: str
):
    wrapper, rename = WRAPPED[name]
    adapter = wrapped(plain, tmp_path / "a", rename)
    (report,) = local_registry.check([str(adapter)])
    assert {finding.code for finding in report.findings} == {"LR019"}
    assert wrapper in report.findings[0].message
    refused_everywhere(
        local_registry, adapter, base, tmp_path / "out", "LR019", "loreg export DIR --profile peft --to NEW"
    )
    local_registry.export(str(adapter), "peft", tmp_path / "new")
    assert load_file(tmp_path / "new" / WEIGHTS).keys() == load_file(plain / WEIGHTS).keys()
    agree(of_adapter(llama(), tmp_path / "new"), of_adapter(llama(), plain))
    assert codes(local_registry, tmp_path / "new", base=str(base)) == ["LB003"]
    local_registry.push(str(tmp_path / "new"), "team/a", base=str(base))


@pytest.mark.parametrize("name", WRAPPED)
def test_is_read_under_the_names_that_peft_gives(tmp_path: Path, plain: Path, name: str):
    structure, expected = read_structure(wrapped(plain, tmp_path / "a", WRAPPED[name][1])), read_structure(plain)
    assert structure.modules.keys() == expected.modules.keys()
    assert structure.full_tensors.keys() == expected.full_tensors.keys()
    assert structure.unexpected_keys == ()


@pytest.mark.parametrize("profile", ["vllm", "sglang"])
def test_is_exported_for_a_server_in_one_step(local_registry: Registry, tmp_path: Path, profile: str):
    adapter = renamed(save(trained(llama()), tmp_path / "a"), lambda n: f"_orig_mod.{n}")
    local_registry.export(str(adapter), profile, tmp_path / "new")
    assert read_structure(tmp_path / "new").naming.plain


def test_magnitudes_of_dora_are_exported_too(local_registry: Registry, tmp_path: Path):
    plain = save(trained(llama(), use_dora=True), tmp_path / "plain")
    adapter = wrapped(plain, tmp_path / "a", lambda n: n.replace(PREFIX, f"{PREFIX}_orig_mod."))
    local_registry.export(str(adapter), "peft", tmp_path / "new")
    agree(of_adapter(llama(), tmp_path / "new"), of_adapter(llama(), plain))


def test_two_names_that_mean_one_tensor_are_refused(local_registry: Registry, tmp_path: Path, base: Path, plain: Path):
    tensors = load_file(plain / WEIGHTS)
    twice = {name.replace(PREFIX, f"{PREFIX}_orig_mod."): tensor for name, tensor in tensors.items()}
    adapter = write(wrapped(plain, tmp_path / "a", lambda n: n), {**tensors, **twice})
    refused_everywhere(local_registry, adapter, base, tmp_path / "out", "mean one tensor", "remove one of the two")
    with pytest.raises(AdapterFormatError, match=r"_orig_mod\..*mean one tensor"):
        local_registry.export(str(adapter), "peft", tmp_path / "new")


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Own(nn.Module):
    """A model that calls a part of itself ``module``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.ModuleDict({"module": Inner()}) if name == "layers" else Inner())

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("name", "targets", "module"),
    [
        ("layers", ["proj"], "layers.module.proj"),
        ("module", ["proj"], "module.proj"),
        ("module", ["module.proj"], "module.proj"),
        ("module", r"module\.pr.j", "module.proj"),
    ],
)
def test_a_part_of_the_model_itself_keeps_its_name(
    local_registry: Registry, tmp_path: Path, name: str, targets: list[str] | str, module: str
):
    peft = get_peft_model(Own(name), LoraConfig(r=2, target_modules=targets))
    with torch.no_grad():
        for parameter in peft.parameters():
            parameter.normal_()
    peft.save_pretrained(tmp_path / "a")
    assert list(read_structure(tmp_path / "a").modules) == [module]
    assert codes(local_registry, tmp_path / "a") == []
