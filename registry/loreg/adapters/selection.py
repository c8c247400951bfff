"""Tell which modules a configuration selects, as PEFT 0.21 does (``tuners_utils.check_target_module_exists``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from loreg.adapters.patterns import PatternBudget, endings, fullmatch, match

#: As PEFT finds the layer of a module: the first number from the third part of its name on.
_LAYER_NUMBER = re.compile(r".*?\.[^.]*\.(\d{1,9})\.")
_PLAIN_NAME = re.compile(r"[\w-]+")


def target_selector(targets: object, budget: PatternBudget) -> Callable[[str], bool]:
    """Return a function that says whether ``targets`` (a list of endings, or one pattern) select a module.

    Of attention that is one module, out_proj inside it comes along. The function raises AdapterFormatError for a
    pattern that is invalid or takes too long.
    """
    names = frozenset(map(str, targets)) if isinstance(targets, list) else frozenset()

    def selects(module: str) -> bool:
        module = module.removesuffix(".base_layer.out_proj")
        if isinstance(targets, str):
            return fullmatch(targets, module, budget)
        return not names.isdisjoint(endings(module))

    return selects


def why_skipped(document: Mapping[str, object], budget: PatternBudget) -> Callable[[str], str]:
    """Return a function that names the field which keeps PEFT from putting LoRA on a module; empty if it does.

    The function raises AdapterFormatError for a pattern that is invalid or takes too long.
    """
    targets = document.get("target_modules")
    selects, excludes = target_selector(targets, budget), target_selector(document.get("exclude_modules"), budget)
    modules_to_save = document.get("modules_to_save")
    saved = [str(name) for name in modules_to_save] if isinstance(modules_to_save, list) else []
    saved_names = frozenset(name for name in saved if _PLAIN_NAME.fullmatch(name))
    saved_patterns = [name for name in saved if name not in saved_names]
    is_transformed = _layer_selector(document, budget)
    full_names = frozenset(map(str, targets)) if isinstance(targets, list) else None

    def reason(module: str) -> str:
        module = module.removesuffix(".base_layer.out_proj")
        if excludes(module):
            return "left out by exclude_modules"
        # What is saved whole, by the end of its name, is this module, or has it inside.
        if not saved_names.isdisjoint(module.split(".")) or any(
            match(rf"(^|.*\.){name}($|\..*)", module, budget) for name in saved_patterns
        ):
            return "saved whole by modules_to_save"
        if not selects(module):
            return "not selected by target_modules"
        if full_names is None or module in full_names or is_transformed(module):
            return ""
        return "not in one of layers_to_transform"

    return reason


def _layer_selector(document: Mapping[str, object], budget: PatternBudget) -> Callable[[str], bool]:
    """Return a function that says whether ``layers_to_transform``, if it is set, has the layer of a module."""
    layers, patterns = document.get("layers_to_transform"), document.get("layers_pattern")
    layer_list = layers if isinstance(layers, list) else [layers]
    selected = frozenset(layer for layer in layer_list if isinstance(layer, int | float))

    def is_transformed(module: str) -> bool:
        if layers is None or layers == []:
            return True
        number = None
        if isinstance(patterns, str | list) and patterns:
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                layer = match(rf"(?:^|.*?\.){pattern}\.(\d{{1,9}})\.", module, budget)
                if layer is not None:
                    number = int(layer[1])
                    break
        elif (first := _LAYER_NUMBER.match(module)) is not None:
            number = int(first[1])
        return number in selected

    return is_transformed
