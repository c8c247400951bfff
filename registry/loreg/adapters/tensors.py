"""The numbers of an adapter: factors and extras between safetensors files and torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from loreg.adapters.config import CONFIG_NAME, dump_config
from loreg.adapters.keys import factor_name
from loreg.adapters.layout import WEIGHTS_NAME, Layout
from loreg.algebra.factors import Factors


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter whose tensors are read one at a time, when they are asked for."""

    layout: Layout
    _file: Any

    def factors(self, module: str) -> Factors:
        """The factors of one module in their own dtype: ``B (out, r)``, ``A (r, in)``, and the scale."""
        found = self.layout.modules[module]
        return Factors(
            b=self._file.get_tensor(found.parts["B"].name),
            a=self._file.get_tensor(found.parts["A"].name),
            scale=found.scale,
        )

    def extra(self, name: str) -> Tensor:
        """A whole tensor by its name in the file."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


@contextlib.contextmanager
def open_adapter(layout: Layout) -> Iterator[OpenAdapter]:
    """Map the weights of the adapter into memory; nothing is read yet."""
    with safe_open(layout.weights, framework="pt") as file:
        yield OpenAdapter(layout, file)


@dataclass(frozen=True)
class Written:
    """An adapter to write: factors by module with scale 1, whole tensors by name, configuration fields."""

    factors: Mapping[str, tuple[Tensor, Tensor]]
    extras: Mapping[str, Tensor]
    fields: Mapping[str, Any]


def write_adapter(folder: Path, adapter: Written) -> None:
    """Write a PEFT LoRA adapter into the existing ``folder``.

    Scales are in the factors already, so ``lora_alpha`` equals ``r`` and ``alpha_pattern`` equals
    ``rank_pattern``: every reader of the format, also one that knows no patterns' details, arrives at scale 1.
    """
    tensors = dict(adapter.extras)
    ranks = {}
    for module, (b, a) in adapter.factors.items():
        ranks[module] = a.shape[0]
        tensors[factor_name(module, "A")] = a.contiguous()
        tensors[factor_name(module, "B")] = b.contiguous()
    r = max(ranks.values())
    # The longest names first: a pattern also matches as the end of a name, and the first that matches wins.
    others = {m: ranks[m] for m in sorted(ranks, key=lambda m: (-len(m), m)) if ranks[m] != r}
    document = {
        "peft_type": "LORA",
        **adapter.fields,
        "r": r,
        "lora_alpha": r,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    save_file({name: tensors[name] for name in sorted(tensors)}, folder / WEIGHTS_NAME, {"format": "pt"})
    (folder / CONFIG_NAME).write_bytes(dump_config(document))
