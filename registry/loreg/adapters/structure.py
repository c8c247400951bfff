"""Read what an adapter consists of from its header and configuration alone: modules, ranks, scales, full tensors.

The tensors are the truth; the configuration gives what tensors cannot say: alpha, and how the scale is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from loreg.adapters.config import CONFIG_NAME, LoraConfig, parse_config_bytes, read_config
from loreg.adapters.header import Header, ReadRange, Tensor, parse_header, read_header
from loreg.adapters.keys import PREFIX, TRAINED_ROWS_SUFFIX, detect_foreign_format, parse_key
from loreg.adapters.module import Module, build_modules
from loreg.adapters.naming import KeyNaming, normalize_names
from loreg.base_names import is_hub_name, public_base_name
from loreg.entities import Facts, ModuleType
from loreg.errors import AdapterFormatError

WEIGHTS_NAME = "adapter_model.safetensors"
#: Why tensors are missing or have no numbers, and how they are saved whole (peft#2450, peft#2892, accelerate#3508).
NOT_GATHERED = "DeepSpeed ZeRO-3 (or FSDP) had the weights in pieces on several GPUs when they were saved"
GATHER_HINT = (
    'gather them first: "stage3_gather_16bit_weights_on_model_save": true in the configuration of DeepSpeed, '
    "model.save_pretrained(DIR, state_dict=accelerator.get_state_dict(model)), or zero_to_fp32.py in the checkpoint"
)
_MAX_TYPE_LENGTH = 128  # characters of a module type
_MAX_NAME_LENGTH = 1024  # characters of a tensor name
_MAX_EMPTY_TENSORS = 10_000
_MAX_PAIRS = 1_000_000  # of names in a list of the configuration, and tensors that each is compared with
_FIRST_BYTES = 64 * 1024  # read at once of weights that are elsewhere
_MAX_HEADER_BYTES = 32 * 1024 * 1024  # a quarter of a million tensors


@dataclass(frozen=True)
class TokenRows:
    """Rows for single tokens (``trainable_token_indices``) of one module.

    Row i of ``tensor`` (n, dim) takes the place of the row ``indices[i]`` of the module's weight. The indices are those
    of the configuration; none if it says nothing of the module.
    """

    tensor: Tensor
    indices: tuple[int, ...]


@dataclass(frozen=True)
class AdapterStructure:
    """An adapter without its numbers: its ``modules`` and ``full_tensors``, and ``unexpected_keys`` that PEFT ignores.

    Modules, full tensors and ``token_rows`` are by the names that PEFT would have written; each tensor has its name in
    the file, and ``naming`` says what these have besides. ``tensors`` are all, by their names in the file.
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
        return {f"{PREFIX}{module}{TRAINED_ROWS_SUFFIX}": tokens.tensor for module, tokens in self.token_rows.items()}

    @property
    def full_tensors_and_token_rows(self) -> dict[str, Tensor]:
        """What a merge takes from one source, by the names that PEFT gives it: full tensors, and rows of tokens."""
        return {**self.full_tensors, **self.token_row_tensors}

    def facts(self, base_hint: str = "") -> Facts:
        """Return what the catalog records of it; ``base_hint`` is taken where the configuration names no base.

        Of a path of the base its last part alone is recorded.
        """
        dtypes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            dtypes[tensor.dtype] += tensor.parameters
        ranks: dict[str, list[int]] = {}
        for module in self.modules.values():
            ranks.setdefault(module.type, []).append(module.rank)
        all_ranks = [rank for type_ranks in ranks.values() for rank in type_ranks]
        return Facts(
            variant=_fit_column(self.config.variant, 64),
            task_type=_fit_column(self.config.task_type, 64),
            rank_min=min(all_ranks),
            rank_max=max(all_ranks),
            alpha=self.config.lora_alpha,
            parameters=dtypes.total(),
            dtype=max(dtypes, key=lambda name: dtypes[name]),
            module_types=tuple(ModuleType(n, len(r), min(r), max(r)) for n, r in sorted(ranks.items())),
            base_hint=_fit_column(public_base_name(self.config.base_hint or base_hint), 1024),
        )

    def base_path(self, base_hint: str = "") -> str:
        """Return the path of the base on the trainer's machine, which the catalog records for the author alone.

        Empty where it has a name instead; ``base_hint`` is as in :meth:`facts`.
        """
        declared = self.config.base_hint or base_hint
        return "" if is_hub_name(declared) else _fit_column(declared, 1024)


def _fit_column(value: str, max_bytes: int) -> str:
    """Return what a database takes of an untrusted text: no NUL, and no more than a column and its index hold."""
    return value.replace("\x00", "").encode()[:max_bytes].decode(errors="ignore")


def read_structure(folder: Path) -> AdapterStructure:
    """Read the structure of the PEFT LoRA adapter in ``folder``; no weights are read and torch is not needed.

    Raises NotFoundError, IntegrityError or AdapterFormatError. Contradictions between tensors and configuration
    are not errors here: ``checking`` finds them.

    >>> module = read_structure(Path("science")).modules["layers.0.q_proj"]
    >>> module.rank, module.alpha, module.scale, module.weight
    (2, 4, 2.0, 'layers.0.q_proj.weight')
    """
    weights = folder / WEIGHTS_NAME
    return _build_structure(weights, read_config(folder), read_header(weights))


def read_remote_structure(folder: Path, config: bytes, size: int, read: ReadRange) -> AdapterStructure:
    """Read the structure of an adapter elsewhere: ``config`` is the content of its configuration.

    ``read`` returns parts of its weights, which have ``size`` bytes. The first 64 KiB are read at once: most headers
    are smaller. ``folder`` is what errors call it. Raises what :func:`read_structure` raises, and AdapterFormatError
    for a header over 32 MiB.
    """
    first_bytes = read(0, min(size, _FIRST_BYTES))

    def buffered(start: int, count: int) -> bytes:
        end, rest = min(start + count, size), max(start, len(first_bytes))
        return first_bytes[start:end] + (read(rest, end - rest) if rest < end else b"")

    weights = folder / WEIGHTS_NAME
    if (length := int.from_bytes(first_bytes[:8], "little")) > _MAX_HEADER_BYTES and length <= size:
        raise AdapterFormatError(f"the header of {weights} has {length:,} bytes", hint="is this the right file?")
    return _build_structure(
        weights, parse_config_bytes(folder / CONFIG_NAME, config), parse_header(weights, size, buffered)
    )


def _build_structure(weights: Path, config: LoraConfig, header: Header) -> AdapterStructure:
    _refuse_unusable_header(weights, header)
    tensors, naming = normalize_names(weights, header.tensors, config)
    factors, full_tensors, rows, unexpected = _sort_tensors(tensors)
    if not factors:
        raise _no_lora_error(weights, list(header.tensors))
    _refuse_quadratic_lists(
        weights, config, modules_to_save=full_tensors, trainable_token_indices=rows, target_parameters=factors
    )
    token_rows = {module: TokenRows(tensor, _token_indices(module, config)) for module, tensor in rows.items()}
    modules = build_modules(weights, factors, config)
    if longest := next((module.type for module in modules.values() if len(module.type) > _MAX_TYPE_LENGTH), ""):
        raise AdapterFormatError(
            f"{weights}: the module type {longest[:40]!r}… is over {_MAX_TYPE_LENGTH} characters", hint="rename it"
        )
    return AdapterStructure(
        weights, config, modules, full_tensors, tuple(sorted(unexpected)), header.tensors, token_rows, naming
    )


def _refuse_unusable_header(weights: Path, header: Header) -> None:
    """Raise AdapterFormatError for weights that are missing or mostly empty, or have too long a name."""
    if not header.tensors:
        raise AdapterFormatError(f"{weights} has no tensors: {NOT_GATHERED}", hint=GATHER_HINT)
    empty = sum(0 in tensor.shape for tensor in header.tensors.values())
    if empty > _MAX_EMPTY_TENSORS:  # fewer are a finding, beside others
        raise AdapterFormatError(
            f"{weights}: {empty} of {len(header.tensors)} tensors are empty: {NOT_GATHERED}", hint=GATHER_HINT
        )
    if longest := next((name for name in header.tensors if len(name) > _MAX_NAME_LENGTH), ""):
        raise AdapterFormatError(
            f"{weights}: the tensor name {longest[:40]!r}… is over {_MAX_NAME_LENGTH} characters", hint="rename it"
        )


class _SortedTensors(NamedTuple):
    """The factors by module and part, full tensors by name, token rows by module, and keys that PEFT ignores."""

    factors: dict[str, dict[str, Tensor]]
    full_tensors: dict[str, Tensor]
    token_rows: dict[str, Tensor]
    unexpected_keys: list[str]


def _sort_tensors(tensors: Mapping[str, Tensor]) -> _SortedTensors:
    """Sort the tensors, by the names that PEFT gives them, into what they are."""
    sorted_tensors = _SortedTensors({}, {}, {}, [])
    for name, tensor in tensors.items():
        module_and_part = parse_key(name)
        if module_and_part is None:
            sorted_tensors.unexpected_keys.append(tensor.name)
        elif module_and_part[1]:
            module, part = module_and_part
            sorted_tensors.factors.setdefault(module, {})[part] = tensor
        elif name.endswith(TRAINED_ROWS_SUFFIX):
            sorted_tensors.token_rows[name.removeprefix(PREFIX).removesuffix(TRAINED_ROWS_SUFFIX)] = tensor
        else:
            sorted_tensors.full_tensors[name] = tensor
    return sorted_tensors


def _refuse_quadratic_lists(weights: Path, config: LoraConfig, **tensors_by_field: Collection[str]) -> None:
    """Raise AdapterFormatError where a field names so much, for so many tensors, that to compare all is too slow."""
    for name, tensors in tensors_by_field.items():
        value = config.raw.get(name)
        count = len(value) if isinstance(value, list | dict) else 0
        if count * len(tensors) > _MAX_PAIRS:
            raise AdapterFormatError(
                f"{weights}: {name} names {count:,} for {len(tensors):,} tensors: no model has so many of both",
                hint="save the adapter again with model.save_pretrained(DIR)",
            )


def _token_indices(module: str, config: LoraConfig) -> tuple[int, ...]:
    """Return the tokens whose rows the adapter has for the module: the field has one list, or one for each module."""
    value = config.raw.get("trainable_token_indices")
    if isinstance(value, dict):
        value = next((indices for name, indices in value.items() if f".{module}".endswith(f".{name}")), None)
    return tuple(index for index in value if type(index) is int) if isinstance(value, list) else ()


def _no_lora_error(weights: Path, names: list[str]) -> AdapterFormatError:
    foreign = detect_foreign_format(names)
    if foreign:
        return AdapterFormatError(
            f"{weights} is in {foreign}'s format, expected PEFT's", hint="convert it to PEFT first"
        )
    example = f", e.g. {names[0]!r}" if names else ""
    return AdapterFormatError(
        f"{weights} has no LoRA tensors: none of its {len(names)} names is base_model.model.….lora_A.weight{example}",
        hint="model.save_pretrained(DIR) of a PeftModel writes them",
    )
