"""Read a merge from a TOML file: ``loreg merge --recipe FILE.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from loreg.decoding import decode
from loreg.errors import NotFoundError, UsageError, explain_os_errors
from loreg.requests import read_request


class _RecipeFile(msgspec.Struct, forbid_unknown_fields=True, rename={"scale": "lambda"}):
    """A recipe as people write it, by the names of :class:`loreg.entities.MergeOptions`."""

    sources: list[str] = []
    weights: list[float] | None = None
    method: str | None = None
    parameters: dict[str, object] | None = None
    weights_for: dict[str, list[float]] | None = None
    scale: float | None = None
    rank: int | dict[str, object] | None = None
    extras: str | None = None
    initial: list[str] | None = None
    base: str | None = None


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
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}", hint="mend it") from error
    try:
        table = decode(document, _RecipeFile)
    except ValueError as error:
        raise UsageError(f"{path}: {error}", hint="mend it") from error
    if not table.sources:
        raise UsageError(f"{path} names no sources", hint='sources = ["team/news", "./movies"]')
    merge = {"scale" if name == "lambda" else name: value for name, value in document.items()}
    read_request("merge", merge, where=str(path), hint="mend it")
    return merge
