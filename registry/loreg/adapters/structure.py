"""What an adapter consists of, from its header and configuration alone: modules, ranks, scales, extras.

The tensors are the truth; the configuration gives what tensors cannot say: alpha, and how the scale is made.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME, LoraConfig, read_config, read_document
from loreg.adapters.header import Header, ReadRange, Tensor, parse_header, read_header
from loreg.adapters.keys import PREFIX, TOKENS, foreign_format, parse_key
from loreg.adapters.module_shape import ModuleShape, are_stacked, infer_shape, is_convolution
from loreg.adapters.naming import KeyNaming, plain_names
from loreg.adapters.parameters import owner_of, parameter_name, parameter_of
from loreg.entities import Facts, ModuleType
from loreg.errors import AdapterFormatError

WEIGHTS_NAME = "adapter_model.safetensors"
#: Why tensors are missing or have no numbers, and how they are saved whole (peft#2450, peft#2892, accelerate#3508).
NOT_GATHERED = "DeepSpeed ZeRO-3 (or FSDP) had the weights in pieces on several GPUs when they were saved"
GATHER_HINT = (
    'gather them first: "stage3_gather_16bit_weights_on_model_save": true in the configuration of DeepSpeed, '
    "model.save_pretrained(DIR, state_dict=accelerator.get_state_dict(model)), or zero_to_fp32.py in the checkpoint"
)
_MAX_TYPE_LENGTH = 128
_MAX_NAME_LENGTH = 1024
_MAX_EMPTY = 10_000
_MAX_PAIRS = 1_000_000
_FIRST_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 32 * 1024 * 1024  # a quarter of a million tensors


@dataclass
class Module:
    """One module and the tensors that act on it, by part: ``A`` (r, in), ``B`` (out, r), ``magnitude``, ….

    ``rank``, ``alpha`` and ``scale`` are what PEFT applies when it loads the adapter, whose ``config`` is beside them.
    LoRA on a ``parameter`` (``target_parameters``) counts as a module that is called as the parameter.
    Not frozen, for there are hundreds in an adapter, and a frozen one takes thrice as long to make. Nobody changes it.
    """

    name: str
    tensors: Mapping[str, Tensor]
    rank: int
    alpha: float
    scale: float
    config: LoraConfig = field(repr=False)
    parameter: str = ""

    @cached_property
    def shape(self) -> ModuleShape | None:
        """Which matrices the tensors are; None if they do not fit together."""
        return infer_shape(self.tensors, self.rank, self.parameter)

    @property
    def why_unreadable(self) -> str:
        """Why the tensors are not factors that loreg carries out, in words; empty if they are."""
        if self.shape is not None:
            return ""
        a, b = (self.tensors[part].shape if part in self.tensors else () for part in ("A", "B"))
        if len(a) > 2 and len(a) == len(b) and b[1] and a[0] % b[1] == 0 and b[1] < a[0]:
            return f"module {self.name} is a convolution in {a[0] // b[1]} groups (A {a}, B {b})"
        told = ", ".join(f"{part} {tensor.shape}" for part, tensor in sorted(self.tensors.items()))
        return f"module {self.name} has {told}, expected A (r, in) and B (out, r)"

    @property
    def weight(self) -> str:
        """The name of the tensor of the base that the factors change."""
        return f"{owner_of(self.name, self.parameter)}.{self.parameter or 'weight'}"

    @property
    def type(self) -> str:
        """The last part of the name, e.g. ``q_proj``."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class TokenRows:
    """Rows for single tokens (``trainable_token_indices``): row i of ``tensor`` (n, dim) takes the place of the row
    ``indices[i]`` of the module's weight. The configuration says the indices; none if it says nothing of the module."""

    tensor: Tensor
    indices: tuple[int, ...]


@dataclass(frozen=True)
class AdapterStructure:
    """An adapter without its numbers. ``extras`` are whole tensors; ``strangers`` nobody would load.

    Modules, extras and ``tokens`` have the names that PEFT would have written, each tensor the one that it has in the
    file; ``naming`` says what these have besides. ``tensors`` are all by their names in the file.
    """

    weights: Path
    config: LoraConfig
    modules: Mapping[str, Module]
    full_tensors: Mapping[str, Tensor]
    unexpected_keys: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    token_rows: Mapping[str, TokenRows] = field(default_factory=dict)
    naming: KeyNaming = field(default_factory=KeyNaming)

    @property
    def token_row_tensors(self) -> dict[str, Tensor]:
        """The rows for single tokens by the names that PEFT gives them."""
        return {f"{PREFIX}{module}{TOKENS}": tokens.tensor for module, tokens in self.token_rows.items()}

    @property
    def full_tensors_and_token_rows(self) -> dict[str, Tensor]:
        """What a merge takes from one source, by the names that PEFT gives it: whole tensors, and rows of tokens."""
        return {**self.full_tensors, **self.token_row_tensors}

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
            task_type=_fit_column(self.config.task_type, 64),
            rank_min=min(every),
            rank_max=max(every),
            alpha=self.config.lora_alpha,
            parameters=dtypes.total(),
            dtype=max(dtypes, key=lambda name: dtypes[name]),
            module_types=tuple(ModuleType(n, len(r), min(r), max(r)) for n, r in sorted(ranks.items())),
            base_hint=_fit_column(self.config.base_hint or base_hint, 1024),
        )


def _fit_column(value: str, most_bytes: int) -> str:
    """What of a stranger's text a database takes: no NUL, and no more than a column and its index hold."""
    return value.replace("\x00", "").encode()[:most_bytes].decode(errors="ignore")


def read_structure(folder: Path) -> AdapterStructure:
    """Read what is in the PEFT LoRA adapter in ``folder``; no weights are read and torch is not needed.

    Raises NotFoundError, IntegrityError or AdapterFormatError. Contradictions between tensors and configuration
    are not errors here: ``checking`` finds them.
    """
    weights = folder / WEIGHTS_NAME
    return _build_structure(weights, read_config(folder), read_header(weights))


def read_remote_structure(where: Path, config: bytes, size: int, read: ReadRange) -> AdapterStructure:
    """The same of an adapter that lies elsewhere: its configuration, and ``read``, which gives parts of its weights.

    The first 64 KiB of the ``size`` bytes are asked for at once: most headers are smaller. ``where`` is what errors
    call it. Raises what :func:`read_layout` raises, and AdapterFormatError for a header over 32 MiB.
    """
    begin = read(0, min(size, _FIRST_BYTES))

    def buffered(start: int, count: int) -> bytes:
        end, rest = min(start + count, size), max(start, len(begin))
        return begin[start:end] + (read(rest, end - rest) if rest < end else b"")

    weights = where / WEIGHTS_NAME
    if (length := int.from_bytes(begin[:8], "little")) > _MAX_HEADER_BYTES and length <= size:
        raise AdapterFormatError(f"the header of {weights} has {length:,} bytes", hint="is this the right file?")
    return _build_structure(weights, read_document(where / CONFIG_NAME, config), parse_header(weights, size, buffered))


def _build_structure(weights: Path, config: LoraConfig, header: Header) -> AdapterStructure:
    if not header.tensors:
        raise AdapterFormatError(f"{weights} has no tensors: {NOT_GATHERED}", hint=GATHER_HINT)
    empty = sum(0 in tensor.shape for tensor in header.tensors.values())
    if empty > _MAX_EMPTY:  # fewer are a finding, beside others
        raise AdapterFormatError(
            f"{weights}: {empty} of {len(header.tensors)} tensors are empty: {NOT_GATHERED}", hint=GATHER_HINT
        )
    if longest := next((name for name in header.tensors if len(name) > _MAX_NAME_LENGTH), ""):
        raise AdapterFormatError(
            f"{weights}: the tensor name {longest[:40]!r}… is over {_MAX_NAME_LENGTH} characters", hint="rename it"
        )
    plain, naming = plain_names(weights, header.tensors, config)
    parts: dict[str, dict[str, Tensor]] = {}
    extras, rows, strangers = {}, {}, []
    for name, tensor in plain.items():
        key = parse_key(name)
        if key is None:
            strangers.append(tensor.name)
        elif key[1]:
            parts.setdefault(key[0], {})[key[1]] = tensor
        elif name.endswith(TOKENS):
            rows[name.removeprefix(PREFIX).removesuffix(TOKENS)] = tensor
        else:
            extras[name] = tensor
    if not parts:
        raise _no_lora(weights, list(header.tensors))
    _refuse_quadratic_lists(
        weights, config, modules_to_save=extras, trainable_token_indices=rows, target_parameters=parts
    )
    tokens = {module: TokenRows(tensor, _token_indices(module, config)) for module, tensor in rows.items()}
    modules = _modules(weights, parts, config)
    if longest := next((module.type for module in modules.values() if len(module.type) > _MAX_TYPE_LENGTH), ""):
        raise AdapterFormatError(
            f"{weights}: the module type {longest[:40]!r}… is over {_MAX_TYPE_LENGTH} characters", hint="rename it"
        )
    return AdapterStructure(weights, config, modules, extras, tuple(sorted(strangers)), header.tensors, tokens, naming)


def _refuse_quadratic_lists(weights: Path, config: LoraConfig, **there: Collection[str]) -> None:
    """Raise AdapterFormatError where so much is named, and so much is there, that to compare each with each is dear."""
    for name, tensors in there.items():
        given = config.raw.get(name)
        count = len(given) if isinstance(given, list | dict) else 0
        if count * len(tensors) > _MAX_PAIRS:
            raise AdapterFormatError(
                f"{weights}: {name} names {count:,} for {len(tensors):,} tensors: no model has so many of both",
                hint="save the adapter again with model.save_pretrained(DIR)",
            )


def _token_indices(module: str, config: LoraConfig) -> tuple[int, ...]:
    """The tokens whose rows the adapter has for the module: one list for the embedding, or one for each module."""
    given = config.raw.get("trainable_token_indices")
    if isinstance(given, dict):
        given = next((some for name, some in given.items() if f".{module}".endswith(f".{name}")), None)
    indices = given if isinstance(given, list) else []
    return tuple(index for index in indices if type(index) is int)


def _modules(weights: Path, parts: Mapping[str, Mapping[str, Tensor]], config: LoraConfig) -> dict[str, Module]:
    modules: dict[str, Module] = {}
    for name, found in sorted(parts.items()):
        module = _module(name, found, config, parts.keys())
        if module.name in modules:
            raise AdapterFormatError(
                f"{weights} has the factors of {module.name} twice, the second time at {name}",
                hint="save the adapter again with model.save_pretrained(DIR)",
            )
        modules[module.name] = module
    return dict(sorted(modules.items()))


def _module(name: str, parts: Mapping[str, Tensor], config: LoraConfig, names: Collection[str]) -> Module:
    """Resolve rank, alpha and scale of one module as PEFT does: the first pattern that matches wins."""
    parameter, of_stack = "", _rank_of_stack(name, parts)
    if of_stack:
        parameter, looked_up = name.rpartition(".")[2], name
    elif (targeted := parameter_of(name, config, names)) is not None:
        parameter, looked_up = targeted[1], ".".join(targeted)
        name = parameter_name(*targeted)
    else:
        looked_up = name
    promised = configured_rank(config, looked_up)
    # Experts lie side by side in one tensor: how many there are, only the configured rank can tell.
    rank = of_stack or (promised if parameter else _rank_of(parts) or promised)
    alpha = config.alpha_pattern.first(looked_up, config.lora_alpha)
    scale = alpha / (math.sqrt(rank) if config.use_rslora else rank)
    return Module(name, parts, rank, alpha, scale, config, parameter)


def configured_rank(config: LoraConfig, module: str) -> int:
    """The rank that the configuration promises for ``module``."""
    return config.rank_pattern.first(module, config.r)


def _rank_of_stack(module: str, parts: Mapping[str, Tensor]) -> int:
    """The rank of factors that are stacked, one pair for each expert (A (E, r, in), B (E, out, r)); else 0."""
    if "A" not in parts or "B" not in parts:
        return 0
    a, b = parts["A"].shape, parts["B"].shape
    if not are_stacked(a, b) or (is_convolution(a, b) and "expert" not in module):
        return 0
    return a[1]


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
