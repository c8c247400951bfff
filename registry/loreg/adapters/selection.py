"""Which modules a configuration selects, as PEFT 0.21 does (``tuners_utils.check_target_module_exists``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from loreg.adapters.patterns import fullmatch, match

_FIRST_NUMBER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def selector(targets: object) -> Callable[[str], bool]:
    """Whether ``target_modules`` (a list of endings, or one pattern) selects a module.

    Of attention that is one module, out_proj inside it comes along. The function raises AdapterFormatError for a
    pattern that is none.
    """
    names = tuple(f".{name}" for name in targets) if isinstance(targets, list) else ()

    def selects(module: str) -> bool:
        module = module.removesuffix(".base_layer.out_proj")
        return fullmatch(targets, module) if isinstance(targets, str) else f".{module}".endswith(names)

    return selects


def passed_over(document: Mapping[str, Any]) -> Callable[[str], str]:
    """The field that keeps PEFT from putting LoRA on a module, in words; empty if it does.

    The function raises AdapterFormatError for a pattern that is none.
    """
    targets = document.get("target_modules")
    selects, excludes = selector(targets), selector(document.get("exclude_modules"))
    saved = document.get("modules_to_save")
    whole = [str(name) for name in saved] if isinstance(saved, list) else []

    def reason(module: str) -> str:
        module = module.removesuffix(".base_layer.out_proj")
        if excludes(module):
            return "left out by exclude_modules"
        if any(is_inside(module, name) for name in whole):
            return "saved whole by modules_to_save"
        if not selects(module):
            return "not selected by target_modules"
        in_full = not isinstance(targets, list) or module in targets
        return "" if in_full or _is_transformed(module, document) else "not in one of layers_to_transform"

    return reason


def is_inside(module: str, whole: str) -> bool:
    """Whether a module that is saved whole, by the end of its name, is this one or has it inside."""
    if re.fullmatch(r"[\w-]+", whole):
        return f".{whole}." in f".{module}."
    return match(rf"(^|.*\.){whole}($|\..*)", module) is not None


def _is_transformed(module: str, document: Mapping[str, Any]) -> bool:
    """Whether ``layers_to_transform`` has the layer of the module, if it is set: the first number in its name."""
    layers, patterns = document.get("layers_to_transform"), document.get("layers_pattern")
    if layers is None or layers == []:
        return True
    number = None
    if isinstance(patterns, str | list) and patterns:
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if number is None and (found := match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module)) is not None:
                number = int(found[1])
    elif (first := _FIRST_NUMBER.match(module)) is not None:
        number = int(first[1])
    return number is not None and number in (layers if isinstance(layers, list) else [layers])
