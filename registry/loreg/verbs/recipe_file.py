"""A merge that a person keeps in a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from loreg.errors import NotFoundError, UsageError, explain_os_errors

_KINDS: dict[str, tuple[type, ...]] = {
    "sources": (list,),
    "weights": (list,),
    "method": (str,),
    "parameters": (dict,),
    "weights_for": (dict,),
    "lambda": (int, float),
    "rank": (int, dict),
    "extras": (str,),
    "initial": (list,),
    "base": (str,),
}
_NUMBERS = ("weights",)
_TEXTS = ("sources", "initial")


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The arguments of ``merge`` in the TOML file ``path``, by name.

    ``sources`` must be there; ``weights``, ``method``, ``[parameters]``, ``[weights_for]``, ``lambda``, ``rank`` (a
    number, or a table such as ``{ energy = 0.99 }``), ``extras``, ``initial`` and ``base`` may. Raises NotFoundError,
    or UsageError that names what is wrong.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} does not exist", hint="--recipe names a TOML file: README.md shows one")
    with explain_os_errors(path, "check its permissions"):
        content = path.read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}", hint="mend it") from None
    for name, value in document.items():
        _check(path, name, value)
    if not document.get("sources"):
        raise UsageError(f"{path} names no sources", hint='sources = ["team/news", "./movies"]')
    if "lambda" in document:
        document["scale"] = document.pop("lambda")
    return document


def _check(path: Path, name: str, value: Any) -> None:
    if name not in _KINDS:
        raise UsageError(f"{path}: {name} is not known; there are {', '.join(_KINDS)}", hint="mend it")
    right = isinstance(value, _KINDS[name]) and not isinstance(value, bool)
    if right and name in _NUMBERS:
        right = _are_numbers(value)
    elif right and name in _TEXTS:
        right = all(isinstance(each, str) for each in value)
    elif right and name == "weights_for":
        right = all(_are_numbers(weights) for weights in value.values())
    if not right:
        raise UsageError(f"{path}: {name} = {str(value)[:60]} is of the wrong kind", hint=f"mend {name}")


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
