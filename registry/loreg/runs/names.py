"""Make names of adapters from the folders that they lie in: short ones, each once."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

#: Names of folders that say nothing of the adapter in them.
_GENERIC = frozenset({
    "adapter", "adapters", "artifacts", "ckpt", "checkpoints", "default", "final", "final_checkpoint", "files", "lora",
    "lora-out", "lora_out", "mlruns", "model", "models", "out", "output", "outputs", "peft", "results", "run", "runs",
    "save", "saved", "saves", "sft", "train", "weights",
})  # fmt: skip
_MAX_LENGTH = 96  # characters


def name_adapters(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a name for each path, which is the names of its folders from the outermost to its own.

    Folders whose names say nothing are left out, as long as something is left; paths that would be called the same
    get the names of all their folders, and at last a number.
    """
    short = [_join([part for part in path if part.lower() not in _GENERIC] or path[-1:]) for path in paths]
    counts = Counter(short)
    names = [name if counts[name] == 1 else _join(path) for name, path in zip(short, paths, strict=True)]
    taken: set[str] = set()
    unique = []
    for name in names:
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = f"{name[: _MAX_LENGTH - 6]}-{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def to_name(text: str) -> str:
    """Return the text as the name of an adapter: letters, digits and ``._-``; ``adapter`` if nothing is left."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    name = re.sub(r"\.{2,}", ".", name)[:_MAX_LENGTH].strip("._-")
    return name or "adapter"


def to_text_path(path: Path | str) -> str:
    """Return a path as text that every file and protocol takes: a byte that is not UTF-8 is ``\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _join(parts: Sequence[str]) -> str:
    return to_name("-".join(part for part in parts if part not in ("", ".", "..", "/")))
