"""Read a merge from a TOML file: ``loreg merge --recipe FILE.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

from loreg.errors import NotFoundError, UsageError, explain_os_errors
from loreg.requests import read_request

#: The fields of a recipe file by the names of :class:`loreg.entities.MergeOptions`.
_FIELDS = {
    name: name
    for name in ("sources", "weights", "method", "parameters", "weights_for", "rank", "extras", "initial", "base")
} | {"lambda": "scale"}  # fmt: skip


def read_recipe_file(path: Path) -> dict[str, object]:
    """Return the document of a merge that the TOML file ``path`` describes.

    ``sources`` must be there; ``weights``, ``method``, ``[parameters]``, ``[weights_for]``, ``lambda``, ``rank`` (a
    number, or a table such as ``{ energy = 0.99 }``), ``extras``, ``initial`` and ``base`` may. Raises NotFoundError,
    or UsageError that names what is wrong.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} does not exist", hint="--recipe names a TOML file with sources = […]")
    with explain_os_errors(path, "check its permissions"):
        content = path.read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}", hint="mend it") from error
    if unknown := sorted(document.keys() - _FIELDS.keys()):
        raise UsageError(f"{path}: {unknown[0]} is not known; there are {', '.join(_FIELDS)}", hint="mend it")
    merge = {_FIELDS[name]: value for name, value in document.items()}
    read_request("merge", merge, where=str(path), hint="mend it")
    if not merge.get("sources"):
        raise UsageError(f"{path} names no sources", hint='sources = ["team/news", "./movies"]')
    return merge
