"""Which modules a configuration selects, as PEFT 0.21 does (``tuners_utils.check_target_module_exists``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from loreg.adapters.patterns import PatternBudget, endings, fullmatch, match

_FIRST_NUMBER = re.compile(r".*?\.[^.]*\.(\d{1,9})\.")
_PART = re.compile(r"[\w-]+")


def target_selector(targets: object, budget: PatternBudget) -> Callable[[str], bool]:
    """Whether ``target_modules`` (a list of endings, or one pattern) selects a module.

    Of attention that is one module, out_proj inside it comes along. The function raises AdapterFormatError for a
    pattern that is none.
    """
    names = frozenset(map(str, targets)) if isinstance(targets, list) else frozenset()

    def selects(module: str) -> bool:
        module = module.removesuffix(".base_layer.out_proj")
        if isinstance(targets, str):
            return fullmatch(targets, module, budget)
        return not names.isdisjoint(endings(module))

    return selects


def why_skipped(document: Mapping[str, Any], patience: PatternBudget) -> Callable[[str], str]:
    """The field that keeps PEFT from putting LoRA on a module, in words; empty if it does.

    The function raises AdapterFormatError for a pattern that is none.
    """
    targets = document.get("target_modules")
    selects, excludes = target_selector(targets, patience), target_selector(document.get("exclude_modules"), patience)
    saved = document.get("modules_to_save")
    whole = [str(name) for name in saved] if isinstance(saved, list) else []
    parts = frozenset(name for name in whole if _PART.fullmatch(name))
    patterns = [name for name in whole if name not in parts]
    is_transformed = _transformed(document, patience)
    in_full = frozenset(map(str, targets)) if isinstance(targets, list) else None

    def reason(module: str) -> str:
        module = module.removesuffix(".base_layer.out_proj")
        if excludes(module):
            return "left out by exclude_modules"
        # What is saved whole, by the end of its name, is this module, or has it inside.
        if not parts.isdisjoint(module.split(".")) or any(
            match(rf"(^|.*\.){name}($|\..*)", module, patience) for name in patterns
        ):
            return "saved whole by modules_to_save"
        if not selects(module):
            return "not selected by target_modules"
        if in_full is None or module in in_full or is_transformed(module):
            return ""
        return "not in one of layers_to_transform"

    return reason


def _transformed(document: Mapping[str, Any], patience: PatternBudget) -> Callable[[str], bool]:
    """Whether ``layers_to_transform`` has the layer of a module, if it is set: the first number in its name."""
    layers, patterns = document.get("layers_to_transform"), document.get("layers_pattern")
    listed = layers if isinstance(layers, list) else [layers]
    numbers = frozenset(layer for layer in listed if isinstance(layer, int | float))

    def is_transformed(module: str) -> bool:
        if layers is None or layers == []:
            return True
        number = None
        if isinstance(patterns, str | list) and patterns:
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                found = match(rf"(?:^|.*?\.){pattern}\.(\d{{1,9}})\.", module, patience)
                if found is not None:
                    number = int(found[1])
                    break
        elif (first := _FIRST_NUMBER.match(module)) is not None:
            number = int(first[1])
        return number in numbers

    return is_transformed
