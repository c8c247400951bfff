"""Tell a base's name from a path on one machine, and whether two names mean the same base.

Come here before a text that somebody's trainer wrote about his base is shown to somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SEPARATOR = re.compile(r"[/\\]+")
#: How a folder of the Hub's cache begins: ``models--org--name/snapshots/<commit>`` (huggingface_hub, repo_folder_name).
_CACHED = "models--"
#: Last parts of paths that say nothing of which model lies there.
_MEANINGLESS = frozenset({
    "base", "base-model", "base_model", "basemodel", "best", "checkpoint", "checkpoints", "ckpt", "current", "data",
    "final", "hf", "last", "latest", "llm", "local", "main", "merged", "model", "models", "out", "output", "outputs",
    "pretrained", "results", "save", "saved", "snapshot", "snapshots", "tmp", "weights",
})  # fmt: skip
_NUMBERED = re.compile(r"(?:checkpoint|step|epoch|ckpt|run|v)?[-_]?\d*|[0-9a-f]{40}", re.IGNORECASE)


def is_hub_name(text: str) -> bool:
    """Whether ``text`` reads like a model's name on the Hub (``org/model``), and not like a path on one machine."""
    return len(text) <= 200 and bool(_HUB_NAME.fullmatch(text)) and ".." not in text


def public_base_name(text: str) -> str:
    """Return what of ``text``, a name or path of a base, may be shown to everyone.

    A name on the Hub stays. Of a path only the last part is left, or the name on the Hub if it lies in the Hub's cache;
    empty where there is no such part.

    >>> public_base_name("org/model"), public_base_name("/home/ada/secret/llama/")
    ('org/model', 'llama')
    >>> public_base_name("/home/ada/.cache/huggingface/hub/models--org--model/snapshots/0123abc")
    'org/model'
    """
    if is_hub_name(text):
        return text
    parts = [part for part in _SEPARATOR.split(text) if part]
    for cached in (part.removeprefix(_CACHED).replace("--", "/") for part in parts if part.startswith(_CACHED)):
        if is_hub_name(cached):
            return cached
    last = parts[-1].strip() if parts else ""
    is_name = last not in (".", "..") and not last.startswith("~") and not re.fullmatch("[A-Za-z]:", last)
    return last if is_name else ""


def names_base(declared: str, names: Collection[str]) -> bool:
    """Return whether ``declared``, what an adapter calls its base, is one of the ``names`` of a base for people.

    Case does not matter, nor a revision (``@…``) of the base. Of a name without an organisation the last parts are
    compared. One that says nothing of the model (``model``, ``checkpoint-100``), declared or of the base, names none.

    >>> names_base("Llama-3-8B", ["meta-llama/llama-3-8b"]), names_base("other/Llama-3-8B", ["meta-llama/llama-3-8b"])
    (True, False)
    """
    name = public_base_name(declared).casefold()
    if is_meaningless(name):
        return False
    for other in _telling(names):
        if name == other:
            return True
        if ("/" not in name or "/" not in other) and _last(name) == _last(other):
            return True
    return False


def spellings(names: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return how a base of these names may be declared, in lower case: whole names, and the ends of longer ones.

    For a database to look for what :func:`names_base` then decides on.
    """
    telling = _telling(names)
    return (
        frozenset(spelling for name in telling for spelling in (name, _last(name))),
        frozenset(f"/{name}" for name in telling if "/" not in name),
    )


def is_meaningless(name: str) -> bool:
    """Return whether a name says nothing of which model it is of: empty, ``model``, ``checkpoint-100``, a commit."""
    last = _last(name.casefold())
    return "/" not in name and (last in _MEANINGLESS or _NUMBERED.fullmatch(last) is not None)


def _telling(names: Collection[str]) -> list[str]:
    """Return the names that say something of the model, in lower case and without a revision."""
    bare = (public_base_name(name.partition("@")[0]).casefold() for name in names)
    return [name for name in bare if not is_meaningless(name)]


def _last(name: str) -> str:
    return name.rpartition("/")[2]
