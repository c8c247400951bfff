"""Cross moments: what all adapters of a merge see of the text of each task, collected while a model runs.

RegMean (Jin et al. 2023, arXiv 2212.09849) needs ``E[xxᵀ]`` of every task, but only in the row space of the adapters:
with ``A_cat (k, in)``, the A's of all of them stacked, ``K = E[(A_cat x)(A_cat x)ᵀ] (k, k)`` says it all.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save
from torch import Tensor, nn

from loreg.adapters.keys import PREFIX
from loreg.errors import UsageError

CROSS_MOMENTS_SCHEMA: Final = "loreg.cross_moments/1"


@dataclass
class CrossMoments:
    """Sums of ``(A_cat x)(A_cat x)ᵀ`` (k, k) in float64 by (task, module), and how many inputs x were seen.

    A task has the name of its adapter; ``adapters`` says in which order their A's are stacked. A_cat has, of each
    module, the rows of those adapters alone that touch it, as they are in the file: without ``alpha / r``. ``grams``
    has ``A_cat A_catᵀ`` of each module, by which a merge tells whether the moments are of its sources.

    >>> moments = CrossMoments(["news", "chat"])
    >>> a_cat = torch.eye(3, 5)
    >>> moments.add("chat", "0", torch.ones(7, 5) @ a_cat.T, gram=a_cat @ a_cat.T)
    >>> moments.mean("chat", "0").tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    adapters: Sequence[str]
    sums: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    grams: dict[str, Tensor] = field(default_factory=dict)

    def add(self, task: str, module: str, activations: Tensor, *, gram: Tensor) -> None:
        """Add the rows of ``activations (…, k)``, ``A_cat x`` of inputs x of a task; ``gram`` is ``A_cat A_catᵀ``.

        Raises UsageError for a task that is none of the adapters.
        """
        if task not in self.adapters:
            raise UsageError(f"{task!r} is none of the adapters {', '.join(self.adapters)}", hint="name it among them")
        rows = activations.detach().flatten(0, -2).double()
        self.sums[task, module] = self.sums.get((task, module), 0) + (rows.T @ rows).cpu()
        self.counts[task, module] = self.counts.get((task, module), 0) + rows.shape[0]
        self.grams.setdefault(module, gram.detach().double().cpu())

    def mean(self, task: str, module: str) -> Tensor:
        """Return ``K = E[(A_cat x)(A_cat x)ᵀ]`` (k, k) over the inputs that the module had in that task."""
        return self.sums[task, module] / self.counts[task, module]

    def save(self, path: Path | str) -> None:
        """Write means, Gram matrices and the adapters' names to the file that ``loreg merge --calibration`` reads."""
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the content of that file."""
        tensors = {
            moments_key(self.adapters.index(task), module): self.mean(task, module) for task, module in self.sums
        }
        tensors |= {gram_key(module): gram for module, gram in self.grams.items()}
        return save(tensors, {"schema": CROSS_MOMENTS_SCHEMA, "adapters": json.dumps(list(self.adapters))})


def moments_key(position: int, module: str) -> str:
    """Return under which name a file has the moments of a module, of the task of the adapter at ``position``."""
    return f"moments.{position}.{module}"


def gram_key(module: str) -> str:
    """Return under which name a file has the Gram matrix of a module."""
    return f"gram.{module}"


@contextlib.contextmanager
def collect_cross(model: nn.Module, adapters: Sequence[str]) -> Iterator[CrossMoments]:
    """Collect cross moments while ``model``, a PEFT model with all ``adapters`` loaded, runs in the block.

    See :func:`loreg.merging.calibration.collect`, which calls it for several names.

    >>> from peft import LoraConfig, get_peft_model
    >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 3)), LoraConfig(r=2, target_modules=["0"]), "news")
    >>> model.add_adapter("chat", LoraConfig(r=3, target_modules=["0"]))
    >>> with collect_cross(model, ["news", "chat"]) as moments:
    ...     for task in ("news", "chat"):
    ...         model.set_adapter(task)
    ...         outputs = model(torch.ones(5, 4))
    >>> moments.mean("chat", "0").shape
    torch.Size([5, 5])
    """
    moments = CrossMoments(tuple(adapters))
    if repeated := [name for i, name in enumerate(adapters) if name in adapters[:i]]:
        raise UsageError(f"the adapter {repeated[0]!r} is named twice", hint="name each adapter once")
    hooks, touched = [], set()
    for path, layer in model.named_modules():
        factors = getattr(layer, "lora_A", None)
        if not isinstance(factors, nn.ModuleDict):
            continue
        if own := [name for name in adapters if name in factors and isinstance(factors[name], nn.Linear)]:
            touched |= set(own)
            hooks.append(layer.register_forward_pre_hook(_AddCrossMoments(moments, path.removeprefix(PREFIX), own)))
    try:
        for adapter in adapters:
            if adapter not in touched:
                raise UsageError(
                    f"the model has no LoRA adapter {adapter!r} on a linear layer",
                    hint="model.load_adapter(DIR, adapter_name=…) first",
                )
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


class _AddCrossMoments:
    """A hook before a LoRA layer that adds what its adapters see of the input to the moments of the active one."""

    def __init__(self, moments: CrossMoments, name: str, own: Sequence[str]) -> None:
        self.moments, self.name, self.own = moments, name, own
        self.stacked: Tensor | None = None
        self.gram: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.stacked is None or self.gram is None:
            rows = [layer.lora_A[adapter].weight.detach() for adapter in self.own]  # type: ignore[index, union-attr]
            self.stacked = torch.cat([row.to(torch.promote_types(row.dtype, torch.float32)) for row in rows])
            self.gram = self.stacked.double() @ self.stacked.double().T
        x = inputs[0].detach().to(self.stacked.dtype)
        self.moments.add(self._task(layer), self.name, x @ self.stacked.T, gram=self.gram)

    def _task(self, layer: nn.Module) -> str:
        """Return the adapter that is active. Raises UsageError unless it is one, and one of those named."""
        active: list[str] = [] if layer.disable_adapters else list(layer.active_adapters)  # type: ignore[arg-type]
        if len(active) != 1 or active[0] not in self.moments.adapters:
            raise UsageError(
                f"the active adapters are {', '.join(active) or 'none'}, expected one of "
                f"{', '.join(self.moments.adapters)}: moments are collected for the task whose adapter is active",
                hint=f"model.set_adapter({self.moments.adapters[0]!r}) before its text",
            )
        return active[0]
