"""An adapter in hand, to be changed for a server: every module with its scale apart from its factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loreg.adapters.forms import Form
from loreg.adapters.keys import PREFIX, factor_name
from loreg.adapters.layout import Layout
from loreg.adapters.parameters import as_peft_targets, file_modules
from loreg.adapters.stacked import Stack, as_parameters
from loreg.adapters.tensors import open_adapter, tensors_of
from loreg.algebra.factors import Factors
from loreg.errors import CheckFailedError


@dataclass(frozen=True)
class HeldModule:
    """One module: its delta is ``scale · b @ a``, with ``b (E, out, r)`` and ``a (E, r, in)`` in the file's dtype.

    ``others`` are its further tensors by the end of their names; ``origin`` is what the module was called in the
    adapter that was read, empty if it was not there.
    """

    form: Form
    factors: Factors
    scale: float
    others: Mapping[str, Tensor]
    origin: str


@dataclass(frozen=True)
class Held:
    """The modules and whole tensors by name, and the document of ``adapter_config.json``."""

    modules: Mapping[str, HeldModule]
    extras: Mapping[str, Tensor]
    document: Mapping[str, Any]

    @property
    def types(self) -> list[str]:
        """The last parts of the names of its modules, sorted."""
        return sorted({name.rpartition(".")[2] for name in self.modules})

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the name that PEFT gives it."""
        found = dict(self.extras)
        files = file_modules({name: module.form for name, module in self.modules.items()})
        for name, module in self.modules.items():
            for part, tensor in tensors_of(module.form, module.factors).items():
                found[factor_name(files[name], part)] = tensor
            found |= {f"{PREFIX}{files[name]}{end}": tensor for end, tensor in module.others.items()}
        return found


def hold(layout: Layout) -> Held:
    """Read the whole adapter, with stacked experts as the parameters that PEFT targets.

    Raises CheckFailedError for factors that are of no form that loreg knows.
    """
    modules, stacks = {}, {}
    with open_adapter(layout) as adapter:
        for name, module in layout.modules.items():
            if module.form is None:
                raise CheckFailedError(f"it cannot be exported: {module.unreadable}", hint="serve it with PEFT itself")
            if module.form.stacked:
                stacks[name] = Stack(module.form, adapter.factors(name), module.scale)
                continue
            others = {
                factor_name("", part).removeprefix(PREFIX): adapter.extra(tensor.name)
                for part, tensor in module.parts.items()
                if part not in module.form.parts
            }
            modules[name] = HeldModule(module.form, adapter.factors(name), module.scale, others, origin=name)
        extras = {name: adapter.extra(name) for name in layout.kept_whole}
    for name, stack in as_parameters(stacks).items():
        modules[name] = HeldModule(stack.form, stack.factors, stack.scale, {}, origin=name)
    forms = {name: module.form for name, module in modules.items()}
    document = dict(layout.config.raw)
    if any(form.parameter for form in forms.values()):
        document = as_peft_targets(document, forms)
    return Held(dict(sorted(modules.items())), extras, document)


def commonest(values: Iterable[float]) -> float:
    """The value that is there most often, the first of several; values that differ by rounding are one."""
    counted: Counter[float] = Counter()
    first: dict[float, float] = {}
    for value in values:
        key = float(f"{value:.12g}")
        counted[key] += 1
        first.setdefault(key, value)
    return first[counted.most_common(1)[0][0]]


def zeros(like: HeldModule, out: int, in_: int, rank: int) -> Factors:
    """Factors (1, out, rank) and (1, rank, in) of the delta that is zero."""
    dtype = like.factors.b.dtype
    return Factors(torch.zeros(1, out, rank, dtype=dtype), torch.zeros(1, rank, in_, dtype=dtype))
