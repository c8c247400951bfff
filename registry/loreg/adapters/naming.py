"""Name the tensors of a file as PEFT would have written them, where training saved them under other names.

Training saved by other means than ``save_pretrained`` leaves the names of what a model was wrapped in (torch.compile,
DDP, FSDP, activation checkpointing, Lightning, a value head), the adapter's name, and PEFT's own copies of modules that
are trained whole. In this file a key is a tensor's name in the file, a name that which PEFT would have written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.config import LoraConfig
from loreg.adapters.header import Tensor
from loreg.adapters.keys import PREFIX
from loreg.adapters.selection import target_selector
from loreg.errors import AdapterFormatError

#: Modules in which others lie whole: torch.compile, FSDP of torch and of fairscale, checkpoint_wrapper, Lightning.
_WRAPPERS = frozenset({
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_fpw_module",
})  # fmt: skip
#: The same, if the whole model lies in it: DataParallel, DDP, DeepSpeed's engine, AveragedModel; Opacus.
_MODEL_PREFIXES = ("module.", "_module.")
_MAX_MODEL_PREFIXES = 8
_PARALLEL_CLASSES = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "AveragedModel", "GradSampleModule")
_KEYS_WITH_ADAPTER = (
    re.compile(r"(?P<before>.+\.lora_[AB])\.(?P<adapter>[^.]+)(?P<after>\.(?:weight|bias))"),
    re.compile(r"(?P<before>.+\.lora_embedding_[AB])\.(?P<adapter>[^.]+)(?P<after>)"),
    re.compile(r"(?P<before>.+\.lora_magnitude_vector)\.(?!weight$)(?P<adapter>[^.]+)(?P<after>(?:\.weight)?)"),
    re.compile(r"(?P<before>.+\.token_adapter\.trainable_tokens_(?:delta|original))\.(?P<adapter>[^.]+)(?P<after>)"),
)
_TRAINED_COPY, _ORIGINAL_COPY = ".modules_to_save.", ".original_module."
_ORIGINAL_ROWS = ".token_adapter.trainable_tokens_original"


@dataclass(frozen=True)
class KeyNaming:
    """What the keys of a file have besides PEFT's names: the ``wrappers``, and the name of the ``adapter``.

    ``wrapped`` are the keys of whole tensors of which the file has only the copy in PEFT's wrapper. ``dropped`` are
    those of copies that are not taken: the module before training, and what the file has under its plain name too.
    """

    wrappers: tuple[str, ...] = ()
    adapter: str = ""
    wrapped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether PEFT finds every tensor under its key."""
        return not (self.wrappers or self.adapter or self.wrapped)


def normalize_names(
    path: Path, tensors: Mapping[str, Tensor], config: LoraConfig
) -> tuple[dict[str, Tensor], KeyNaming]:
    """Return the tensors by the names that PEFT would have written; ``path`` is what errors call the file.

    Raises AdapterFormatError where the file holds several adapters, or where two keys mean one tensor.
    """
    wrappers: dict[str, None] = {}
    unwrapped = {key: _strip_wrappers(key, wrappers) for key in tensors}
    unwrapped = _strip_model_prefixes(unwrapped, config, wrappers)
    split = {key: _split_adapter_name(name) for key, name in unwrapped.items()}
    adapters = {adapter: key for key, (_, adapter) in split.items() if adapter}
    copies = _split_trained_copies(unwrapped, adapters.keys())
    adapters |= {adapter: key for key, (_, adapter) in copies.items() if adapter}
    if len(adapters) > 1:
        raise _several_adapters_error(path, adapters)
    split |= copies
    keys: dict[str, str] = {}
    dropped, wrapped = [], []
    for key in sorted(tensors, key=lambda key: key in copies):  # what is not a copy comes first
        name = split[key][0]
        has_plain_twin = key in copies and keys.get(name, key) not in copies
        if _ORIGINAL_COPY in name or name.endswith(_ORIGINAL_ROWS) or has_plain_twin:
            dropped.append(key)
        elif name in keys:
            raise AdapterFormatError(
                f"{path}: the names {keys[name]!r} and {key!r} mean one tensor, {name!r}",
                hint="remove one of the two, or save the adapter again with model.save_pretrained(DIR)",
            )
        else:
            keys[name] = key
            wrapped += [key] if key in copies else []
    adapter = next(filter(None, (split[key][1] for key in keys.values())), "")
    naming = KeyNaming(tuple(wrappers), adapter, tuple(wrapped), tuple(sorted(dropped)))
    return {name: tensors[key] for name, key in keys.items()}, naming


def _strip_wrappers(name: str, wrappers: dict[str, None]) -> str:
    """Return the name without modules that wrap others, and without what stands before PEFT's prefix or doubles it.

    What is taken out is added to ``wrappers``.
    """
    parts = name.split(".")
    if not _WRAPPERS.isdisjoint(parts):
        wrappers.update({f"{part}.": None for part in parts if part in _WRAPPERS})
        name = ".".join(part for part in parts if part not in _WRAPPERS)
    before, prefix, rest = f".{name}".partition(f".{PREFIX}")
    if not prefix:
        return name
    if before:
        wrappers[f"{before[1:]}."] = None
    while rest.startswith(PREFIX):
        wrappers[PREFIX] = None
        rest = rest.removeprefix(PREFIX)
    return PREFIX + rest


def _strip_model_prefixes(names: dict[str, str], config: LoraConfig, wrappers: dict[str, None]) -> dict[str, str]:
    """Return the names without ``module.`` after PEFT's, where that wraps the whole model and is no part of its own.

    What is taken out is added to ``wrappers``.
    """
    for _ in range(_MAX_MODEL_PREFIXES):
        prefix = next((prefix for prefix in _MODEL_PREFIXES if _all_start_with(names.values(), PREFIX + prefix)), "")
        if not prefix:
            break
        stripped = {key: PREFIX + name.removeprefix(PREFIX + prefix) for key, name in names.items()}
        if _belongs_to_model(prefix, stripped.values(), config):
            break
        names = stripped
        wrappers[prefix] = None
    return names


def _all_start_with(names: Iterable[str], prefix: str) -> bool:
    """Whether all names that are PEFT's start with ``prefix``, and there are some."""
    peft_names = [name for name in names if name.startswith(PREFIX)]
    return bool(peft_names) and all(name.startswith(prefix) for name in peft_names)


def _belongs_to_model(prefix: str, stripped: Iterable[str], config: LoraConfig) -> bool:
    """Whether the trained model itself has a part called ``prefix``: PEFT wrote the model's class, or selects by it."""
    mapping = config.raw.get("auto_mapping")
    model_class = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if model_class:
        return model_class not in _PARALLEL_CLASSES
    targets = config.raw.get("target_modules")
    if not targets or targets == "all-linear" or not isinstance(targets, list | str):
        return False
    try:
        selects = target_selector(targets, config.pattern_budget)
        modules = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in stripped if ".lora_" in name}
        return all(selects(prefix + module) and not selects(module) for module in modules)
    except AdapterFormatError:  # an invalid pattern: a rule reports it
        return False


def _split_adapter_name(name: str) -> tuple[str, str]:
    """Return the name without that of the adapter, and the adapter's."""
    for pattern in _KEYS_WITH_ADAPTER:
        if (match := pattern.fullmatch(name)) is not None:
            after = "" if match["before"].endswith("magnitude_vector") else match["after"]
            return match["before"] + after, match["adapter"]
    return name, ""


def _split_trained_copies(names: Mapping[str, str], adapters: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return the plain name and the adapter's name of what PEFT trains whole (``modules_to_save``), by key.

    In a state dict the adapter's name stands behind ``modules_to_save``; where embeddings are saved PEFT leaves it out.
    """
    # What the copies of the original modules would be called as trained ones, without an adapter's name.
    twins = {name.replace(_ORIGINAL_COPY, _TRAINED_COPY) for name in names.values() if _ORIGINAL_COPY in name}
    copies = {}
    for key, name in names.items():
        if _TRAINED_COPY not in name or ".lora_" in name.partition(_TRAINED_COPY)[2]:
            continue
        module, _, rest = name.partition(_TRAINED_COPY)
        adapter, _, tensor = rest.partition(".")
        is_named = bool(tensor) and (
            adapter in adapters
            or adapter == "default"
            or f"{module}{_TRAINED_COPY}{tensor}" in twins
            or name not in twins
        )
        copies[key] = (f"{module}.{tensor}", adapter) if is_named else (f"{module}.{rest}", "")
    return copies


def _several_adapters_error(path: Path, adapters: Mapping[str, str]) -> AdapterFormatError:
    listed = ", ".join(sorted(adapters))
    return AdapterFormatError(
        f"{path} holds the tensors of {len(adapters)} adapters: {listed} (e.g. {adapters[min(adapters)]!r})",
        hint=f"model.save_pretrained(DIR, selected_adapters=[{min(adapters)!r}]) writes one of them",
    )
