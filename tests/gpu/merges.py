"""Adapters for the GPU tests, written without PEFT, and what a merge of them came to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loreg.adapters.structure import read_structure
from loreg.entities import Source
from loreg.errors import LoregError
from loreg.merging.cross_moments import CrossMoments
from loreg.merging.execute import MergedAdapter, execute_recipe
from loreg.merging.inputs import MergeInput
from loreg.merging.method import Method, Parameter
from loreg.merging.methods import METHODS
from loreg.merging.ranks import LOSSLESS, RankRule
from loreg.merging.recipe import Recipe

Shapes = Mapping[str, tuple[int, int]]  # module -> (out, in)

SHAPES: Shapes = {
    f"layers.{layer}.{name}": shape
    for layer in range(3)
    for name, shape in (("q_proj", (48, 40)), ("up_proj", (96, 40)), ("down_proj", (40, 96)))
}
WEIGHTS = (0.7, 0.4, 1.1)


def write(folder: Path, shapes: Shapes, rank: int, seed: int, dtype: torch.dtype = torch.float64) -> Path:
    """A LoRA adapter of random factors whose singular values fall, as trained ones do."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    fall = torch.arange(1, rank + 1, dtype=torch.float64).rsqrt()
    tensors = {}
    for name, (out, in_) in shapes.items():
        b = torch.randn(out, rank, generator=generator, dtype=torch.float64) * fall
        a = torch.randn(rank, in_, generator=generator, dtype=torch.float64) / in_**0.5
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.to(dtype)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.to(dtype)
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
    return write_files(folder, tensors, config)


def write_files(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def several(folder: Path, ranks: Sequence[int] = (8, 8, 8), shapes: Shapes = SHAPES, **how: Any) -> list[Path]:
    """One adapter for each rank."""
    return [write(folder / f"source-{i}", shapes, rank, 100 + i, **how) for i, rank in enumerate(ranks)]


def inputs(folders: Sequence[Path]) -> list[MergeInput]:
    return [MergeInput(read_structure(folder), folder.name, f"{i:064x}") for i, folder in enumerate(folders)]


def merge(
    folders: Sequence[Path],
    device: str,
    method: str = "linear",
    parameters: Mapping[str, Any] | None = None,
    rank: RankRule = LOSSLESS,
    calibration: Path | None = None,
) -> MergedAdapter:
    sources = tuple(
        Source(folder.name, f"{i:064x}", weight)
        for i, (folder, weight) in enumerate(zip(folders, WEIGHTS[: len(folders)], strict=True))
    )
    recipe = Recipe(sources, method=method, parameters=parameters or {}, rank=rank)
    if METHODS[method].needs_moments and calibration is None:
        calibration = cross_moments(folders[0].parent / "cross.safetensors", folders)
    return execute_recipe(inputs(folders), recipe, device=device, calibration=calibration)


@dataclass(frozen=True)
class Outcome:
    """What came of it: the merged adapter, or the words in which it was refused."""

    merged: MergedAdapter | None
    refused: str = ""


def outcome(*args: Any, **how: Any) -> Outcome:
    try:
        return Outcome(merge(*args, **how))
    except LoregError as error:
        return Outcome(None, str(error))


def deltas(merged: MergedAdapter) -> dict[str, Tensor]:
    """The delta of every module in float64."""
    return {
        name: module.factors.b.double() @ module.factors.a.double() for name, module in merged.adapter.modules.items()
    }


def assert_alike(actual: Outcome, expected: Outcome, error: float = 1e-6) -> None:
    """Refused in the same words, or the same ranks, deltas and certificates up to ``error``, relatively.

    Where the last singular value that is kept equals the first that is not, which of their directions is kept is not
    determined: there only the sizes are the same.
    """
    assert actual.refused == expected.refused
    if actual.merged is None or expected.merged is None:
        assert actual.refused
        return
    ours, theirs = deltas(actual.merged), deltas(expected.merged)
    assert ours.keys() == theirs.keys()
    for name, delta in theirs.items():
        assert ours[name].device.type == "cpu"
        assert ours[name].shape == delta.shape
        apart, size = float(torch.linalg.norm(ours[name] - delta)), float(torch.linalg.norm(delta))
        if not _is_determined(expected.merged, name):
            apart = abs(float(torch.linalg.norm(ours[name])) - size)
        assert apart <= error * size, name
    for mine, other in zip(actual.merged.certificate["modules"], expected.merged.certificate["modules"], strict=True):
        assert mine["rank"] == other["rank"]
        assert [share is None for share in mine["retention"]] == [share is None for share in other["retention"]]
        determined = _is_determined(expected.merged, mine["module"])
        torch.testing.assert_close(_figures(mine, determined), _figures(other, determined), rtol=error, atol=error)


def _is_determined(merged: MergedAdapter, module: str) -> bool:
    sigmas, rank = merged.sigmas[module], merged.adapter.modules[module].factors.rank
    return rank >= len(sigmas) or sigmas[rank] == 0 or sigmas[rank - 1] - sigmas[rank] > 1e-6 * sigmas[0]


def _figures(certificate: Mapping[str, Any], determined: bool) -> Tensor:
    shares = [share for share in certificate["retention"] if share is not None and determined]
    return torch.tensor([certificate["norm"], certificate["retained_energy"], *shares], dtype=torch.float64)


def assert_equal_bits(actual: MergedAdapter, other: MergedAdapter) -> None:
    """The same factors to the last bit, and the same certificate."""
    assert actual.certificate == other.certificate
    assert actual.adapter.modules.keys() == other.adapter.modules.keys()
    for name, module in actual.adapter.modules.items():
        same = other.adapter.modules[name].factors
        assert torch.equal(module.factors.b, same.b), name
        assert torch.equal(module.factors.a, same.a), name


def variants(method: Method) -> list[dict[str, Any]]:
    """The defaults, every other choice, and another value of every number: each once."""
    combinations: list[dict[str, Any]] = [{}]
    for parameter in method.parameters:
        combinations += [{parameter.name: value} for value in _others(parameter)]
    return combinations


def _others(parameter: Parameter) -> list[Any]:
    if parameter.choices:
        return [choice for choice in parameter.choices if choice != parameter.default]
    if isinstance(parameter.default, int):
        return [parameter.default + 7]
    return [(parameter.low + parameter.high) / 2]


#: A value of every rule, for an adapter of rank 8.
RANKS = (
    LOSSLESS,
    RankRule("fixed", 3),
    RankRule("energy", 0.9),
    RankRule("tolerance", 0.3),
    RankRule("budget", 4000),
    RankRule("fit", 16, "vllm"),
    RankRule("fit", 4, "sglang"),
)


def moments(path: Path, rank: int, shapes: Shapes = SHAPES) -> Path:
    """Second moments as calibration data have them: some directions seen a hundred times as much as others."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.logspace(0, 2, rank, dtype=torch.float64)
    seen = {name: torch.randn(rank, 64, generator=generator, dtype=torch.float64) * spread[:, None] for name in shapes}
    save_file({name: x @ x.mT / 64 for name, x in seen.items()}, path)
    return path


def cross_moments(path: Path, folders: Sequence[Path]) -> Path:
    """What the adapters see of random inputs of each one's task, some features of which are ten times as large."""
    generator = torch.Generator().manual_seed(5)
    factors: dict[str, list[Tensor]] = {}
    for folder in folders:
        for name, tensor in load_file(folder / "adapter_model.safetensors").items():
            if ".lora_A." in name:
                module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
                factors.setdefault(module, []).append(tensor.double())
    seen = CrossMoments([f"task-{i}" for i in range(len(folders))])
    for task in seen.adapters:
        for module, parts in factors.items():
            a_cat = torch.cat([part.flatten(1) for part in parts])
            x = torch.randn(64, a_cat.shape[-1], generator=generator, dtype=torch.float64)
            x *= torch.logspace(0, 1, x.shape[-1], dtype=torch.float64)
            seen.add(task, module, x @ a_cat.T, gram=a_cat @ a_cat.T)
    seen.save(path)
    return path


def mixed(folder: Path) -> list[Path]:
    """Sources of three dtypes and three ranks; not every one has every module."""
    part = {name: shape for name, shape in SHAPES.items() if not name.endswith("up_proj")}
    return [
        write(folder / "float32", SHAPES, 8, 1, torch.float32),
        write(folder / "bfloat16", part, 5, 2, torch.bfloat16),
        write(folder / "float16", SHAPES, 11, 3, torch.float16),
    ]


def _twice(folder: Path) -> list[Path]:
    return [write(folder / name, SHAPES, 8, 1) for name in ("one", "same")]


def _zero(folder: Path) -> list[Path]:
    zeros = {
        f"base_model.model.{name}.lora_{part}.weight": torch.zeros(size, dtype=torch.float64)
        for name, (out, in_) in SHAPES.items()
        for part, size in (("A", (4, in_)), ("B", (out, 4)))
    }
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj", "down_proj"]}
    return [write(folder / "one", SHAPES, 8, 1), write_files(folder / "zero", zeros, config)]


def _not_finite(folder: Path) -> list[Path]:
    folders = several(folder, (8, 8))
    tensors = load_file(folders[1] / "adapter_model.safetensors")
    tensors["base_model.model.layers.1.q_proj.lora_B.weight"][3, 2] = torch.nan
    save_file(tensors, folders[1] / "adapter_model.safetensors", {"format": "pt"})
    return folders


def _too_large(folder: Path) -> list[Path]:
    folders = several(folder, (8, 8))
    tensors = {name: 1e200 * tensor for name, tensor in load_file(folders[1] / "adapter_model.safetensors").items()}
    save_file(tensors, folders[1] / "adapter_model.safetensors", {"format": "pt"})
    return folders


def _convolution(folder: Path) -> list[Path]:
    generator = torch.Generator().manual_seed(4)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["conv"]}
    return [
        write_files(
            folder / name,
            {
                "base_model.model.conv.lora_A.weight": torch.randn(4, 6, 3, 3, generator=generator),
                "base_model.model.conv.lora_B.weight": torch.randn(10, 4, 1, 1, generator=generator),
            },
            config,
        )
        for name in ("one", "two")
    ]


#: What takes another way through the mathematics: linearly dependent columns, zeros, numbers that are none.
UNUSUAL = {
    "the same twice": _twice,
    "a zero source": _zero,
    "not finite": _not_finite,
    "too large": _too_large,
    "a convolution": _convolution,
}
