"""What the names in a file have beside those that PEFT writes, and which name each tensor would have without.

Training saved by other means than ``save_pretrained`` leaves the names of what a model was wrapped in (torch.compile,
DDP, FSDP, activation checkpointing, Lightning, a value head), the adapter's name, and PEFT's own copies of modules that
are trained whole.
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
_AROUND_ALL = ("module.", "_module.")
_MOST_AROUND = 8
_PARALLEL = ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "AveragedModel", "GradSampleModule")
_NAMED = (
    re.compile(r"(?P<before>.+\.lora_[AB])\.(?P<name>[^.]+)(?P<after>\.(?:weight|bias))"),
    re.compile(r"(?P<before>.+\.lora_embedding_[AB])\.(?P<name>[^.]+)(?P<after>)"),
    re.compile(r"(?P<before>.+\.lora_magnitude_vector)\.(?!weight$)(?P<name>[^.]+)(?P<after>(?:\.weight)?)"),
    re.compile(r"(?P<before>.+\.token_adapter\.trainable_tokens_(?:delta|original))\.(?P<name>[^.]+)(?P<after>)"),
)
_SAVED, _ORIGINAL = ".modules_to_save.", ".original_module."
_TOKENS_BEFORE = ".token_adapter.trainable_tokens_original"


@dataclass(frozen=True)
class KeyNaming:
    """What the names in the file have beside PEFT's, ``wrappers`` and the name of the ``adapter``.

    ``wrapped`` are whole tensors of which the file has only the copy in PEFT's wrapper, ``dropped`` the copies that are
    not taken: what the module was before training, and what the file has under its plain name too.
    """

    wrappers: tuple[str, ...] = ()
    adapter: str = ""
    wrapped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether PEFT finds every tensor under the name that it has."""
        return not (self.wrappers or self.adapter or self.wrapped)


def plain_names(where: Path, tensors: Mapping[str, Tensor], config: LoraConfig) -> tuple[dict[str, Tensor], KeyNaming]:
    """The tensors by the names that PEFT would have written; ``where`` is what errors call the file.

    Raises AdapterFormatError where the file holds several adapters, or where two names mean one tensor.
    """
    wrappers: dict[str, None] = {}
    bare = {name: _without_wrappers(name, wrappers) for name in tensors}
    bare = _without_what_is_around_all(bare, config, wrappers)
    named = {name: _without_adapter(plain) for name, plain in bare.items()}
    adapters = {adapter: name for name, (_, adapter) in named.items() if adapter}
    copies = _saved_copies(bare, adapters.keys())
    adapters |= {adapter: name for name, (_, adapter) in copies.items() if adapter}
    if len(adapters) > 1:
        raise _several(where, adapters)
    plain = {name: copies.get(name, named[name])[0] for name in tensors}
    first: dict[str, str] = {}
    dropped, wrapped = [], []
    for name, new in sorted(plain.items(), key=lambda item: item[0] in copies):  # what is not a copy comes first
        if _ORIGINAL in new or new.endswith(_TOKENS_BEFORE) or (name in copies and first.get(new, name) not in copies):
            dropped.append(name)
        elif new in first:
            raise AdapterFormatError(
                f"{where}: the names {first[new]!r} and {name!r} mean one tensor, {new!r}",
                hint="remove one of the two, or save the adapter again with model.save_pretrained(DIR)",
            )
        else:
            first[new] = name
            wrapped += [name] if name in copies else []
    taken = (copies.get(name, named[name])[1] for name in first.values())
    naming = KeyNaming(tuple(wrappers), next(filter(None, taken), ""), tuple(wrapped), tuple(sorted(dropped)))
    return {new: tensors[name] for new, name in first.items()}, naming


def _without_wrappers(name: str, seen: dict[str, None]) -> str:
    """The name without the modules that wrap others, and without what stands before PEFT's prefix or doubles it."""
    parts = name.split(".")
    if not _WRAPPERS.isdisjoint(parts):
        seen.update({f"{part}.": None for part in parts if part in _WRAPPERS})
        name = ".".join(part for part in parts if part not in _WRAPPERS)
    before, prefix, rest = f".{name}".partition(f".{PREFIX}")
    if not prefix:
        return name
    if before:
        seen[f"{before[1:]}."] = None
    while rest.startswith(PREFIX):
        seen[PREFIX] = None
        rest = rest.removeprefix(PREFIX)
    return PREFIX + rest


def _without_what_is_around_all(names: dict[str, str], config: LoraConfig, seen: dict[str, None]) -> dict[str, str]:
    """The names without ``module.`` after the prefix, where the whole model lies in it and it is no part of its own."""
    for _ in range(_MOST_AROUND):
        around = next((w for w in _AROUND_ALL if _all_in(names.values(), PREFIX + w)), "")
        if not around:
            break
        inside = {name: PREFIX + plain.removeprefix(PREFIX + around) for name, plain in names.items()}
        if _is_the_models_own(around, inside.values(), config):
            break
        names = inside
        seen[around] = None
    return names


def _all_in(names: Iterable[str], prefix: str) -> bool:
    of_peft = [name for name in names if name.startswith(PREFIX)]
    return bool(of_peft) and all(name.startswith(prefix) for name in of_peft)


def _is_the_models_own(around: str, inside: Iterable[str], config: LoraConfig) -> bool:
    """Whether the model that was trained has a part of that name itself: PEFT wrote its class, or selects by it."""
    mapping = config.raw.get("auto_mapping")
    written = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    if written:
        return written not in _PARALLEL
    targets = config.raw.get("target_modules")
    if not targets or targets == "all-linear" or not isinstance(targets, list | str):
        return False
    try:
        selects = target_selector(targets, config.pattern_budget)
        modules = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in inside if ".lora_" in name}
        return all(selects(around + module) and not selects(module) for module in modules)
    except AdapterFormatError:  # a pattern that is none: a rule says so
        return False


def _without_adapter(name: str) -> tuple[str, str]:
    """The name without that of the adapter, and the adapter's."""
    for pattern in _NAMED:
        if (found := pattern.fullmatch(name)) is not None:
            after = "" if found["before"].endswith("magnitude_vector") else found["after"]
            return found["before"] + after, found["name"]
    return name, ""


def _saved_copies(names: Mapping[str, str], adapters: Collection[str]) -> dict[str, tuple[str, str]]:
    """What PEFT trains whole (``modules_to_save``), by its name in the file: the plain name, and the adapter's.

    In a state dict the adapter's name stands behind ``modules_to_save``; where embeddings are saved PEFT leaves it out.
    """
    beside = {plain.replace(_ORIGINAL, _SAVED) for plain in names.values() if _ORIGINAL in plain}
    found = {}
    for name, plain in names.items():
        if _SAVED not in plain or ".lora_" in plain.partition(_SAVED)[2]:
            continue
        module, _, rest = plain.partition(_SAVED)
        adapter, _, tensor = rest.partition(".")
        is_named = bool(tensor) and (
            adapter in adapters or adapter == "default" or f"{module}{_SAVED}{tensor}" in beside or plain not in beside
        )
        found[name] = (f"{module}.{tensor}", adapter) if is_named else (f"{module}.{rest}", "")
    return found


def _several(where: Path, adapters: Mapping[str, str]) -> AdapterFormatError:
    listed = ", ".join(sorted(adapters))
    return AdapterFormatError(
        f"{where} holds the tensors of {len(adapters)} adapters: {listed} (e.g. {adapters[min(adapters)]!r})",
        hint=f"model.save_pretrained(DIR, selected_adapters=[{min(adapters)!r}]) writes one of them",
    )
