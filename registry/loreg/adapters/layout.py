"""What an adapter consists of, from its header and configuration alone: modules, ranks, scales, extras.

The tensors are the truth; the configuration gives what tensors cannot say: alpha, and how the scale is made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME, LoraConfig, read_config, read_document
from loreg.adapters.forms import Form, form_of, targets_parameter
from loreg.adapters.header import Header, Read, Tensor, parse_header, read_header
from loreg.adapters.keys import foreign_format, parse_key
from loreg.errors import AdapterFormatError
from loreg.records import Facts, ModuleType

WEIGHTS_NAME = "adapter_model.safetensors"
_LONGEST_TYPE = 128
_FIRST_BYTES = 64 * 1024


@dataclass
class Module:
    """One module and the tensors that act on it, by part: ``A`` (r, in), ``B`` (out, r), ``magnitude``, ….

    ``rank``, ``alpha`` and ``scale`` are what PEFT applies when it loads the adapter, whose ``config`` is beside them.
    Not frozen, for there are hundreds in an adapter, and a frozen one takes thrice as long to make. Nobody changes it.
    """

    name: str
    parts: Mapping[str, Tensor]
    rank: int
    alpha: float
    scale: float
    config: LoraConfig = field(repr=False)

    @cached_property
    def form(self) -> Form | None:
        """Which matrices the tensors are; None if they do not fit together."""
        return form_of(self.name, self.parts, self.rank, self.config.raw)

    @property
    def type(self) -> str:
        """The last part of the name, e.g. ``q_proj``."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Layout:
    """An adapter without its numbers. ``extras`` are whole tensors; ``strangers`` nobody would load."""

    weights: Path
    config: LoraConfig
    modules: Mapping[str, Module]
    extras: Mapping[str, Tensor]
    strangers: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def facts(self, base_hint: str = "") -> Facts:
        """What the catalog records of it; ``base_hint`` is taken where the configuration names no base."""
        dtypes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            dtypes[tensor.dtype] += tensor.parameters
        ranks: dict[str, list[int]] = {}
        for module in self.modules.values():
            ranks.setdefault(module.type, []).append(module.rank)
        every = [rank for some in ranks.values() for rank in some]
        return Facts(
            variant=self.config.variant,
            task_type=_text(self.config.task_type, 64),
            rank_min=min(every),
            rank_max=max(every),
            alpha=self.config.lora_alpha,
            parameters=dtypes.total(),
            dtype=max(dtypes, key=lambda name: dtypes[name]),
            module_types=tuple(ModuleType(n, len(r), min(r), max(r)) for n, r in sorted(ranks.items())),
            base_hint=_text(self.config.base_hint or base_hint, 1024),
        )


def _text(value: str, most_bytes: int) -> str:
    """What of a stranger's text a database takes: no NUL, and no more than a column and its index hold."""
    return value.replace("\x00", "").encode()[:most_bytes].decode(errors="ignore")


def read_layout(folder: Path) -> Layout:
    """Read what is in the PEFT LoRA adapter in ``folder``; no weights are read and torch is not needed.

    Raises NotFoundError, IntegrityError or AdapterFormatError. Contradictions between tensors and configuration
    are not errors here: ``checking`` finds them.
    """
    weights = folder / WEIGHTS_NAME
    return _layout(weights, read_config(folder), read_header(weights))


def remote_layout(where: Path, config: bytes, size: int, read: Read) -> Layout:
    """The same of an adapter that lies elsewhere: its configuration, and ``read``, which gives parts of its weights.

    The first 64 KiB of the ``size`` bytes are asked for at once: most headers are smaller. ``where`` is what errors
    call it. Raises what :func:`read_layout` raises.
    """
    begin = read(0, min(size, _FIRST_BYTES))

    def buffered(start: int, count: int) -> bytes:
        end, rest = min(start + count, size), max(start, len(begin))
        return begin[start:end] + (read(rest, end - rest) if rest < end else b"")

    weights = where / WEIGHTS_NAME
    return _layout(weights, read_document(where / CONFIG_NAME, config), parse_header(weights, size, buffered))


def _layout(weights: Path, config: LoraConfig, header: Header) -> Layout:
    parts: dict[str, dict[str, Tensor]] = {}
    extras, strangers = {}, []
    for name, tensor in header.tensors.items():
        key = parse_key(name)
        if key is None:
            strangers.append(name)
        elif key[1]:
            parts.setdefault(key[0], {})[key[1]] = tensor
        else:
            extras[name] = tensor
    if not parts:
        raise _no_lora(weights, list(header.tensors))
    modules = {name: _module(name, found, config) for name, found in sorted(parts.items())}
    if longest := next((module.type for module in modules.values() if len(module.type) > _LONGEST_TYPE), ""):
        raise AdapterFormatError(
            f"{weights}: the module type {longest[:40]!r}… is over {_LONGEST_TYPE} characters", hint="rename it"
        )
    return Layout(weights, config, modules, extras, tuple(sorted(strangers)), header.tensors)


def _module(name: str, parts: Mapping[str, Tensor], config: LoraConfig) -> Module:
    """Resolve rank, alpha and scale of one module as PEFT does: the first pattern that matches wins."""
    promised = configured_rank(config, name)
    # Experts lie side by side in one tensor: how many there are, only the configured rank can tell.
    rank = promised if targets_parameter(name, config.raw) else _rank_of(parts) or promised
    alpha = config.alpha_pattern.first(name, config.lora_alpha)
    scale = alpha / (math.sqrt(rank) if config.use_rslora else rank)
    return Module(name, parts, rank, alpha, scale, config)


def configured_rank(config: LoraConfig, module: str) -> int:
    """The rank that the configuration promises for ``module``."""
    return config.rank_pattern.first(module, config.r)


def _rank_of(parts: Mapping[str, Tensor]) -> int:
    for part, axis in (("A", 0), ("B", 1), ("embedding_A", 0), ("embedding_B", 1)):
        if part in parts and len(parts[part].shape) > axis:
            return parts[part].shape[axis]
    return 0


def _no_lora(weights: Path, names: list[str]) -> AdapterFormatError:
    foreign = foreign_format(names)
    if foreign:
        return AdapterFormatError(
            f"{weights} is in {foreign}'s format, expected PEFT's", hint="convert it to PEFT first"
        )
    example = f", e.g. {names[0]!r}" if names else ""
    return AdapterFormatError(
        f"{weights} has no LoRA tensors: none of its {len(names)} names is base_model.model.….lora_A.weight{example}",
        hint="model.save_pretrained(DIR) of a PeftModel writes them",
    )
