"""The output error of a merge from moments, held against the outputs themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from factories import new_model
from loreg.adapters.structure import read_structure
from loreg.algebra.factors import Factors
from loreg.errors import UsageError
from loreg.merging.inputs import MergeInput
from loreg.merging.output_error import OutputProducts
from merging.test_cross_moments import adapters, collect, inputs_by_hand, texts

PREFIX = "base_model.model."


def deltas(folder: Path) -> dict[str, Tensor]:
    """``BA · alpha / r`` (out, in) of each module, as PEFT adds it."""
    model = PeftModel.from_pretrained(new_model(), folder)
    by_module = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and "default" in layer.lora_A:
            by_module[name.removeprefix(PREFIX)] = layer.get_delta_weight("default").detach().double()
    return by_module


@pytest.fixture
def sources(tmp_path: Path) -> tuple[dict[str, Path], OutputProducts]:
    folders = adapters(tmp_path)
    collect(folders).save(tmp_path / "moments.safetensors")
    inputs = [MergeInput(read_structure(folder), name, "") for name, folder in folders.items()]
    return folders, OutputProducts(inputs, tmp_path / "moments.safetensors")


def outputs_by_hand(folders: dict[str, Path], task: str, delta: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a delta adds to the output of each module on the text of a task, (60, out)."""
    seen = inputs_by_hand(folders[task], texts()[task])
    return {module: seen[module].flatten(0, -2) @ delta[module].T for module in delta}


def product(x: dict[str, Tensor], y: dict[str, Tensor]) -> float:
    """The mean over the inputs of the inner product of two outputs, summed over the modules that both have."""
    return sum(float((x[module] * y[module]).sum(-1).mean()) for module in x.keys() & y.keys())


def test_products_are_those_of_the_outputs_of_each_task(sources: tuple[dict[str, Path], OutputProducts]):
    folders, outputs = sources
    products = outputs.products()
    for t, task in enumerate(folders):
        by_adapter = [outputs_by_hand(folders, task, deltas(folder)) for folder in folders.values()]
        expected = torch.tensor([[product(x, y) for y in by_adapter] for x in by_adapter])
        torch.testing.assert_close(products[t], expected.double(), rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


def test_a_merged_adapter_counts_as_the_sum_that_it_is(sources: tuple[dict[str, Path], OutputProducts]):
    folders, outputs = sources
    weights = dict(zip(folders, (0.5, -0.25, 2.0), strict=True))
    merged: dict[str, Factors] = {}
    for name, folder in folders.items():
        tensors = load_file(folder / "adapter_model.safetensors")
        for module, delta in deltas(folder).items():
            a = tensors[f"{PREFIX}{module}.lora_A.weight"].double()
            b = weights[name] * delta @ torch.linalg.pinv(a)
            if module in merged:
                a, b = torch.cat([merged[module].a, a]), torch.cat([merged[module].b, b], 1)
            merged[module] = Factors(b, a)
    products = outputs.products([merged])
    coefficients = torch.tensor([*weights.values()], dtype=torch.float64)
    torch.testing.assert_close(products[:, -1, :-1], torch.einsum("j,tjl->tl", coefficients, products[:, :-1, :-1]))
    torch.testing.assert_close(
        products[:, -1, -1], torch.einsum("j,tjl,l->t", coefficients, products[:, :-1, :-1], coefficients)
    )


def test_a_delta_outside_of_the_rows_is_refused_by_its_module(sources: tuple[dict[str, Path], OutputProducts]):
    folders, outputs = sources
    module, delta = next(iter(deltas(folders["news"]).items()))
    strange = {module: Factors(torch.ones(len(delta), 1), torch.linspace(-1, 1, delta.shape[1])[None])}
    with pytest.raises(UsageError, match=f"the delta of {module} is not in the rows of the adapters"):
        outputs.products([strange])
