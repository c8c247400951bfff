"""The real loss of weights: a model under the weighted sum of adapters, in its forward pass, with nothing merged.

Short and slow on purpose. It is what every surrogate and every merge is held against.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from safetensors.torch import load_file
from sweep_classifiers import load_classifier
from sweep_setting import Setting
from sweep_texts import load_base

PREFIX = "base_model.model."
SPLITS = ("dev", "test")
#: By module, ``b (out, r)`` with the adapter's scale, and ``a (r, in)``.
Deltas = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


class Mixture:
    """A model whose linear layers add Σ weight · B A x of the adapters that touch them."""

    def __init__(self, model: torch.nn.Module, adapters: Sequence[Deltas]) -> None:
        self.model = model
        self.weights = [0.0] * len(adapters)
        parts: dict[str, list[tuple[int, torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for place, deltas in enumerate(adapters):
            for name, (b, a) in deltas.items():
                parts[name].append((place, b, a))
        self._hooks = [model.get_submodule(name).register_forward_hook(self._hook(own)) for name, own in parts.items()]

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, parts: list[tuple[int, torch.Tensor, torch.Tensor]]) -> Callable[..., torch.Tensor]:
        a = torch.cat([part_a for _, _, part_a in parts])

        def add_delta(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            b = torch.cat([self.weights[place] * part_b for place, part_b, _ in parts], 1)
            return output + (inputs[0] @ a.T) @ b.T

        return add_delta


def read_deltas(folder: Path) -> Deltas:
    """Read the factors of an adapter as PEFT writes it, with one rank and one alpha."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    deltas = {}
    for key in tensors:
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            b = tensors[key.replace("lora_A", "lora_B")] * (config["lora_alpha"] / config["r"])
            deltas[name] = b, tensors[key]
    return deltas


class Outputs(NamedTuple):
    """Logits (n, words), what was right (n,), and the text (n,) that each is of: a row of tokens, or an example."""

    logits: torch.Tensor
    labels: torch.Tensor
    texts: torch.Tensor


class Evaluator(Protocol):
    """A model, and texts of each task that it is judged by: of dev and of test so many of each."""

    model: torch.nn.Module
    tasks: tuple[str, ...]

    def outputs(self, split: str, task: str) -> Iterator[Outputs]:
        """Yield what the model says of a task's texts, as it is now, a batch at a time."""
        ...


class LanguageEvaluator:
    """SmolLM2, judged by rows of 128 tokens."""

    def __init__(self, setting: Setting, **counts: int) -> None:
        self.model, self.tasks = load_base(setting.base), tuple(setting.adapters)
        held_out = {"dev": setting.dev, "test": setting.test}
        self._rows = {split: {task: held_out[split][task][: counts[split]] for task in self.tasks} for split in SPLITS}

    @torch.no_grad()
    def outputs(self, split: str, task: str) -> Iterator[Outputs]:
        rows = self._rows[split][task]
        for start in range(0, len(rows), 4):
            batch = rows[start : start + 4]
            logits = self.model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1)
            texts = torch.arange(start, start + len(batch)).repeat_interleave(batch.shape[1] - 1)
            yield Outputs(logits, batch[:, 1:].flatten(), texts)


class ClassificationEvaluator:
    """MiniLM, judged by labelled examples, each task through its own head."""

    def __init__(self, setting: Setting, **counts: int) -> None:
        self.model, self.tasks = load_classifier(setting.base, [""]), tuple(setting.adapters)
        self._heads = {task: read_head(folder) for task, folder in setting.adapters.items()}
        held_out = {"dev": setting.dev, "test": setting.test}
        self._batches = {
            split: {task: held_out[split][task].choose(torch.arange(counts[split])).batches() for task in self.tasks}
            for split in SPLITS
        }

    @torch.no_grad()
    def outputs(self, split: str, task: str) -> Iterator[Outputs]:
        start = 0
        for batch in self._batches[split][task]:
            pooled = self.model.bert(input_ids=batch.tokens, attention_mask=batch.mask).pooler_output
            logits = torch.nn.functional.linear(pooled, *self._heads[task])
            yield Outputs(logits, batch.labels, torch.arange(start, start + len(batch.labels)))
            start += len(batch.labels)


def load_evaluator(setting: Setting, **counts: int) -> Evaluator:
    """Load the model of a setting with the first ``dev`` and ``test`` rows, or examples, of each task."""
    is_language = isinstance(next(iter(setting.dev.values())), torch.Tensor)
    return LanguageEvaluator(setting, **counts) if is_language else ClassificationEvaluator(setting, **counts)


def text_losses(evaluator: Evaluator, split: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The summed loss of each text in nats, and how many tokens, or labels, it has: two (texts,) of each task."""
    by_task = {}
    for task in evaluator.tasks:
        losses, texts = [], []
        for output in evaluator.outputs(split, task):
            losses.append(torch.nn.functional.cross_entropy(output.logits, output.labels, reduction="none").double())
            texts.append(output.texts)
        place = torch.cat(texts)
        by_task[task] = place.bincount(torch.cat(losses)), place.bincount().double()
    return by_task


def task_losses(evaluator: Evaluator, split: str) -> dict[str, float]:
    """The mean loss of each task, in nats a token or an example."""
    return {task: float(sums.sum() / counts.sum()) for task, (sums, counts) in text_losses(evaluator, split).items()}


def read_head(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (labels, 384) and bias (labels,) of the head that lies in an adapter's folder."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return tensors[f"{PREFIX}classifier.weight"], tensors[f"{PREFIX}classifier.bias"]
