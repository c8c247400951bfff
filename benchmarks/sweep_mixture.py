"""The real loss of weights: a model under the weighted sum of adapters, in its forward pass, with nothing merged.

Short and slow on purpose. It is what every surrogate and every merge of weighted sums is held against.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from sweep_classifiers import Examples, load_classifier
from sweep_setting import Setting
from sweep_texts import load_base, mean_loss
from transformers import PreTrainedModel

PREFIX = "base_model.model."
#: Weights in the order of the adapters -> for "dev" and "test" the loss of each task, in nats a token or an example.
TaskLosses = Callable[[Sequence[float]], dict[str, dict[str, float]]]


class Mixture:
    """A model whose linear layers add Σ weight · scale · B A x of the adapters that touch them."""

    def __init__(self, model: PreTrainedModel, adapters: Mapping[str, Path]) -> None:
        self.model = model
        self.weights = [0.0] * len(adapters)
        factors: dict[str, list[tuple[int, torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for place, folder in enumerate(adapters.values()):
            tensors = load_file(folder / "adapter_model.safetensors")
            config = json.loads((folder / "adapter_config.json").read_text())
            for key in tensors:
                if key.endswith(".lora_A.weight"):
                    name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
                    b = tensors[key.replace("lora_A", "lora_B")] * (config["lora_alpha"] / config["r"])
                    factors[name].append((place, b, tensors[key]))
        for name, parts in factors.items():
            model.get_submodule(name).register_forward_hook(self._hook(parts))

    def _hook(self, parts: list[tuple[int, torch.Tensor, torch.Tensor]]) -> Callable[..., torch.Tensor]:
        a = torch.cat([part_a for _, _, part_a in parts])

        def add_delta(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            b = torch.cat([self.weights[place] * part_b for place, part_b, _ in parts], 1)
            return output + (inputs[0] @ a.T) @ b.T

        return add_delta


def language_losses(setting: Setting, rows: int) -> TaskLosses:
    """The loss of a token of each task, on its first rows."""
    mixture = Mixture(load_base(setting.base), setting.adapters)

    def task_losses(held_out: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return {task: mean_loss(mixture.model, own[:rows]) for task, own in held_out.items()}

    def losses(weights: Sequence[float]) -> dict[str, dict[str, float]]:
        mixture.weights = [float(weight) for weight in weights]
        return {"dev": task_losses(setting.dev), "test": task_losses(setting.test)}

    return losses


def classification_losses(setting: Setting, examples: int) -> TaskLosses:
    """The loss of an example of each task, on its first ones, through that task's own head."""
    mixture = Mixture(load_classifier(setting.base, [""]), setting.adapters)
    heads = {task: read_head(folder) for task, folder in setting.adapters.items()}
    first = torch.arange(examples)
    batches = {
        split: {task: own.choose(first).batches() for task, own in held_out.items()}
        for split, held_out in (("dev", setting.dev), ("test", setting.test))
    }

    @torch.no_grad()
    def summed_loss(batch: Examples, head: tuple[torch.Tensor, torch.Tensor]) -> float:
        pooled = mixture.model.bert(input_ids=batch.tokens, attention_mask=batch.mask).pooler_output
        logits = torch.nn.functional.linear(pooled, *head)
        return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()

    def losses(weights: Sequence[float]) -> dict[str, dict[str, float]]:
        mixture.weights = [float(weight) for weight in weights]
        return {
            split: {
                task: sum(summed_loss(batch, heads[task]) for batch in own) / examples for task, own in tasks.items()
            }
            for split, tasks in batches.items()
        }

    return losses


def read_head(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (labels, 384) and bias (labels,) of the head that lies in an adapter's folder."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return tensors[f"{PREFIX}classifier.weight"], tensors[f"{PREFIX}classifier.bias"]
