"""Read the ``adapter_config.json`` of a PEFT LoRA: which fields there are, what each means for the weights.

Source: PEFT 0.21, ``peft/tuners/lora/config.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from loreg.adapters.header import is_unicode
from loreg.adapters.nested_adapters import describe_adapters_below, describe_other_folder, find_adapters_below
from loreg.adapters.patterns import PatternBudget, Patterns
from loreg.adapters.selection import target_selector
from loreg.errors import AdapterFormatError, NotFoundError
from loreg.strict_json import refuse_many_values

CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
_MAX_BRACKETS = 100_000  # lists and objects; patterns, however many, are in two of them
_MAX_VALUES = 1_000_000
_MAX_BARE_PARAMETERS = 100  # parameters that are targeted without naming their owner: each of these may have them all
V = TypeVar("V")

#: Fields without effect on what the saved weights mean: selectors (the tensors are the truth), training, hints.
_NEUTRAL_FIELDS = frozenset({
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform",
    "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules", "task_type", "lora_ga_config", "corda_config", "eva_config", "loftq_config",
})  # fmt: skip
#: Fields that are read and applied, per module or for the adapter.
_APPLIED_FIELDS = frozenset({
    "alpha_pattern", "bias", "ensure_weight_tying", "fan_in_fan_out", "init_lora_weights", "lora_alpha", "lora_bias",
    "modules_to_save", "r", "rank_pattern", "target_parameters", "trainable_token_indices", "use_dora", "use_rslora",
})  # fmt: skip
#: ``init_lora_weights`` that leave the base as it is: the saved factors are plain LoRA.
_PLAIN_INITS = (None, True, False, "true", "false", "gaussian", "orthogonal", "eva", "mica")
#: Initialisations that change the base: the delta needs the initial adapter (PiSSA, arXiv 2404.02948, and kin).
_MUTATING_INITS = ("pissa", "olora", "corda", "lora_ga")


@dataclass(frozen=True)
class LoraConfig:
    """The fields of a configuration that loreg applies; ``raw`` is the whole document.

    ``pattern_budget`` is for all patterns in it together.
    """

    r: int
    lora_alpha: float
    rank_pattern: Patterns[int]
    alpha_pattern: Patterns[float]
    use_rslora: bool
    use_dora: bool
    raw: Mapping[str, Any]
    pattern_budget: PatternBudget = field(default_factory=PatternBudget, compare=False, repr=False)

    @property
    def variant(self) -> str:
        """How the weights are to be read, in one word: lora, rslora, dora, pissa, loftq, …"""
        init = self.raw.get("init_lora_weights")
        if self.use_dora:
            return "dora"
        if isinstance(init, str) and init not in _PLAIN_INITS:
            return next((name for name in (*_MUTATING_INITS, "loftq") if init.startswith(name)), init[:32])
        return "rslora" if self.use_rslora else "lora"

    @property
    def base_hint(self) -> str:
        """``base_model_name_or_path``, empty where there is none."""
        return str(self.raw.get("base_model_name_or_path") or "")

    @property
    def task_type(self) -> str:
        """``task_type``, e.g. CAUSAL_LM; empty where there is none."""
        return str(self.raw.get("task_type") or "")

    @property
    def changes_the_base(self) -> bool:
        """Whether training started by moving a part of the base into the adapter."""
        init = self.raw.get("init_lora_weights")
        return isinstance(init, str) and init.startswith(_MUTATING_INITS)

    @cached_property
    def selects(self) -> Callable[[str], bool]:
        """A function that says whether ``target_modules`` selects a module, as PEFT does."""
        return target_selector(self.raw.get("target_modules"), self.pattern_budget)

    @cached_property
    def target_parameters(self) -> Mapping[str, frozenset[str]]:
        """The parameters that ``target_parameters`` names, by the end of their owner's name; empty if it has none."""
        targets = self.raw.get("target_parameters")
        parameters: dict[str, set[str]] = {}
        for target in targets if isinstance(targets, list) else ():
            owner, _, name = str(target).rpartition(".")
            parameters.setdefault(owner, set()).add(name)
        if len(parameters.get("", ())) > _MAX_BARE_PARAMETERS:
            raise AdapterFormatError(
                f"target_parameters has over {_MAX_BARE_PARAMETERS} names without an owner", hint="mend it"
            )
        return {owner: frozenset(names) for owner, names in parameters.items()}

    def unknown_fields(self) -> dict[str, object]:
        """Return the fields that are set and unknown to loreg, so that they may change what the weights mean."""
        known = _NEUTRAL_FIELDS | _APPLIED_FIELDS
        return {name: value for name, value in self.raw.items() if name not in known and value}


def read_config(folder: Path) -> LoraConfig:
    """Read the configuration of the adapter in ``folder``.

    Raises NotFoundError without the file, AdapterFormatError if it is not the JSON of a PEFT LoRA.
    """
    path = folder / CONFIG_NAME
    try:
        refuse_large_config(path, path.stat().st_size)
        return parse_config_bytes(path, path.read_bytes())
    except FileNotFoundError as error:
        raise no_adapter_error(folder, CONFIG_NAME, "model.save_pretrained(DIR) writes one") from error


def refuse_large_config(path: Path, size: int) -> None:
    """Raise AdapterFormatError if a configuration of ``size`` bytes is too large to be read whole."""
    if size > MAX_CONFIG_BYTES:
        raise AdapterFormatError(f"{path} is larger than 16 MiB", hint="is this the right file?")


def no_adapter_error(folder: Path, needed: str, hint: str) -> NotFoundError:
    """Return the error for a folder without the file ``needed`` of an adapter; it names adapters that lie below."""
    if adapters := find_adapters_below(folder, CONFIG_NAME):
        description, command = describe_adapters_below(folder, adapters)
        return NotFoundError(f"{folder} has no {needed} itself; {description}", hint=command)
    what, command = describe_other_folder(folder)
    return NotFoundError(f"{folder} has no {needed}: it is {what or 'not a PEFT adapter'}", hint=command or hint)


def parse_config_bytes(path: Path, content: bytes) -> LoraConfig:
    """Parse the bytes of a configuration; ``path`` is what errors call it.

    Raises AdapterFormatError if they are not the JSON of a PEFT LoRA.
    """
    if content.count(b"[") + content.count(b"{") > _MAX_BRACKETS:  # each takes more memory than all else
        raise AdapterFormatError(f"{path} has over {_MAX_BRACKETS:,} lists and objects", hint="save the adapter again")
    try:
        refuse_many_values(content, _MAX_VALUES)
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AdapterFormatError(
            f"{path} is not JSON, or too much of it: {error}", hint="save the adapter again"
        ) from error
    if not isinstance(document, dict):
        raise AdapterFormatError(f"{path} is not a JSON object", hint="save the adapter again")
    if not is_unicode(json.dumps(document, ensure_ascii=False)):
        raise AdapterFormatError(f"{path} holds half a character (a lone surrogate)", hint="save the adapter again")
    return parse_config(document, str(path))


def parse_config(document: Mapping[str, object], where: str) -> LoraConfig:
    """Make a LoraConfig of the JSON document. Raises AdapterFormatError, naming the field that is wrong."""
    peft_type = document.get("peft_type")
    if peft_type != "LORA":
        problem = f"peft_type is {peft_type!r}" if "peft_type" in document else "peft_type is missing"
        hint = (
            "an MLX adapter: convert it to PEFT first"
            if "fine_tune_type" in document
            else "loreg reads PEFT LoRA adapters"
        )
        raise AdapterFormatError(f"{where}: {problem}, expected 'LORA'", hint=hint)
    budget = PatternBudget()
    return LoraConfig(
        r=_read_rank(document, "r", 8, where),
        lora_alpha=_read_alpha(document, "lora_alpha", 8, where),
        rank_pattern=Patterns(_read_patterns(document, "rank_pattern", where, _read_rank), budget),
        alpha_pattern=Patterns(_read_patterns(document, "alpha_pattern", where, _read_alpha), budget),
        use_rslora=bool(document.get("use_rslora")),
        use_dora=bool(document.get("use_dora")),
        raw=document,
        pattern_budget=budget,
    )


def _read_alpha(document: Mapping[str, object], name: str, default: float, where: str) -> float:
    value = document.get(name, default)
    # At 0 the factors do nothing, and PEFT and the servers accept it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise _number_error(name, value, "a number from 0 on", where)
    return value


def _read_rank(document: Mapping[str, object], name: str, default: int, where: str) -> int:
    value = document.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise _number_error(name, value, "a positive number", where)
    if not isinstance(value, int):
        raise _number_error(name, value, "a whole number", where)
    return value


def _number_error(name: str, value: object, expected: str, where: str) -> AdapterFormatError:
    return AdapterFormatError(f"{where}: {name} is {value!r}, expected {expected}", hint=f"mend {name}")


def _read_patterns(
    document: Mapping[str, object], name: str, where: str, read: Callable[[Mapping[str, object], str, int, str], V]
) -> dict[str, V]:
    patterns = document.get(name) or {}
    if not isinstance(patterns, dict):
        raise AdapterFormatError(f"{where}: {name} is not an object", hint=f"mend {name}")
    return {pattern: read(patterns, pattern, 0, f"{where}: {name}") for pattern in patterns}


def why_not_mergeable(config: LoraConfig) -> str:
    """Return why an adapter cannot be merged by its factors: the first field that keeps it from that; empty if none."""
    init = config.raw.get("init_lora_weights")
    if init == "loftq":
        return "init_lora_weights is 'loftq': its base is a quantised one"
    if init not in _PLAIN_INITS and not config.changes_the_base:
        return f"init_lora_weights is {init!r}, which loreg does not know"
    for name, value in config.unknown_fields().items():
        return f"{name} is set to {json.dumps(value)[:80]}"
    return ""


def dump_config(document: Mapping[str, object]) -> bytes:
    """Return the bytes of an ``adapter_config.json``, as PEFT writes it: indented by two spaces, keys in their order.

    Raises AdapterFormatError for a number that is not finite.
    """
    try:
        return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise AdapterFormatError(f"{CONFIG_NAME} holds a number that is not finite: {error}", hint="mend it") from error
