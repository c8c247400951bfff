"""What there is in a model to be adapted, by the names that PEFT matches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from zoo.models import embedding_of, head_of

_ATTENTION = ("attn", "attention", "mixer", "mamba", "time_mix", "rec", "temporal_block", "conv1d", "query", "attend")
#: What PEFT refuses to adapt: the kernels of these models use the weights without calling the modules.
_PAST_PEFT = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}, {"out_proj", "conv1d"}


@dataclass(frozen=True)
class Facts:
    """Names of modules and parameters as in ``target_modules``, ``modules_to_save`` and ``target_parameters``.

    ``attention`` are the types of the linear layers in attention or in what a model has instead. ``twins`` are
    further embeddings that share the parameter of ``embedding``. ``grouped`` are the convolutions in most ``groups``.
    ``experts`` are stacked weights with their owner.
    """

    attention: tuple[str, ...]
    embedding: str
    head: str
    twins: tuple[str, ...]
    classifier: str
    convolutions: tuple[str, ...]
    grouped: tuple[str, ...]
    groups: int
    experts: tuple[str, ...]
    biased: bool
    layers: int


def facts_of(model: Any) -> Facts:
    """Look at a model of transformers."""
    modules = dict(model.named_modules())
    embedding, head = embedding_of(model), head_of(model)
    linear = {n: m for n, m in modules.items() if isinstance(m, nn.Linear | Conv1D) and m is not head}
    inside = {n: m for n, m in linear.items() if any(word in n.lower().rpartition(".")[0] for word in _ATTENTION)}
    inside = inside or dict(list(linear.items())[:2])
    refused = _PAST_PEFT[1] if model.config.model_type in _PAST_PEFT[0] else set()
    attention = tuple(kind for kind in _types(inside) if kind not in refused)
    twins = [n for n, m in modules.items() if isinstance(m, nn.Embedding) and _same(m, embedding)]
    convolutions = {
        name: module.groups
        for name, module in modules.items()
        if isinstance(module, nn.Conv1d | nn.Conv2d) and name.rpartition(".")[2] not in refused
    }
    groups = max(convolutions.values(), default=1)
    stacked = [n for n, p in model.named_parameters() if p.ndim == 3 and "expert" in n and not n.endswith("bias")]
    return Facts(
        attention=attention,
        embedding=_short(_name(modules, embedding), modules),
        head=_short(_name(modules, head), modules),
        twins=tuple(twins[1:]),
        classifier=_classifier(model, modules, head),
        convolutions=tuple(sorted({_short(name, modules) for name, own in convolutions.items() if own == 1})),
        grouped=tuple(sorted({_short(name, modules) for name, own in convolutions.items() if own == groups > 1})),
        groups=groups,
        experts=tuple(sorted({".".join(name.split(".")[-2:]) for name in stacked})),
        biased=all(getattr(module, "bias", None) is not None for module in inside.values()),
        layers=getattr(model.config.get_text_config(), "num_hidden_layers", 0) or 0,
    )


def _types(names: Iterable[str]) -> tuple[str, ...]:
    """Return the last parts of names, those of numbered modules with the part before (``to_out.0``)."""
    last = [
        ".".join(name.split(".")[-2:]) if name.rpartition(".")[2].isdigit() else name.split(".")[-1] for name in names
    ]
    return tuple(dict.fromkeys(last))


def _same(module: nn.Module, embedding: nn.Module | None) -> bool:
    return embedding is not None and module.weight is embedding.weight


def _name(modules: dict[str, nn.Module], wanted: nn.Module | None) -> str:
    return next((name for name, module in modules.items() if module is wanted), "") if wanted is not None else ""


def _short(name: str, modules: dict[str, nn.Module]) -> str:
    """Return the last part of a name where it means this module alone, as people write it, else all of it."""
    last = name.rpartition(".")[2]
    return last if [n for n in modules if n.rpartition(".")[2] == last] == [name] else name


def _classifier(model: Any, modules: dict[str, nn.Module], head: nn.Module | None) -> str:
    """Return the module on top of the model proper that holds the head of a task."""
    if head is not None or "For" not in type(model).__name__:
        return ""
    own = [n for n, m in modules.items() if n and "." not in n and n != model.base_model_prefix]
    return next((n for n in own[::-1] if any(isinstance(m, nn.Linear) for m in modules[n].modules())), "")
