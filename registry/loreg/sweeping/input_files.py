"""Digest the files that an evaluation reads beside adapters and base: what was measured with others is no answer."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from loreg.errors import explain_os_errors

_OPTION = "--include_path"
_TASKS = {".yaml", ".yml", ".py"}
_WORD = re.compile(r"[^\s\"'\[\]{},]+")
_TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
)  # fmt: skip


def digest_tokenizer(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the tokenizer beside a model, by name."""
    return {name: _digest(folder / name) for name in _TOKENIZER if (folder / name).is_file()}


def digest_tasks(evaluation: str) -> dict[str, str]:
    """Return the SHA-256 of each file that the tasks of ``lm-eval:TASKS OPTIONS`` are described in, by path.

    These are the YAML and Python files below ``--include_path``, tasks that are named by a path, and the data files
    that their YAML names. What the harness itself brings, or downloads, is not among them.
    """
    with contextlib.suppress(ValueError):  # which whoever runs the harness is told
        words = shlex.split(evaluation)
        return {str(file): _digest(file) for file in sorted({*_described(words)})}
    return {}


def _described(words: list[str]) -> Iterator[Path]:
    for place in _places(words):
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            if file.suffix in _TASKS and file.is_file():
                yield file
                yield from _named_in(file)


def _places(words: list[str]) -> Iterator[Path]:
    """Yield the folders and files in which tasks are described: values of the option, and tasks that are paths."""
    for before, word in zip(["", *words], words, strict=False):
        name, _, value = word.partition("=")
        if before == _OPTION:
            yield Path(word)
        elif name == _OPTION and value:
            yield Path(value)
        elif not before.startswith("-") and not word.startswith("-"):
            paths = (Path(task) for task in word.removeprefix("lm-eval:").split(","))
            yield from (path for path in paths if "/" in str(path) or path.suffix in _TASKS)


def _named_in(file: Path) -> Iterator[Path]:
    """Yield the files that a YAML file names, from here or from its folder: data, and what it includes."""
    if file.suffix == ".py":
        return
    for word in set(_WORD.findall(_read(file).decode("utf-8", "replace"))):
        for path in (Path(word), file.parent / word):
            with contextlib.suppress(OSError, ValueError):  # a word that can be no path
                if path.suffix and path.is_file():
                    yield path


def _digest(file: Path) -> str:
    return hashlib.sha256(_read(file)).hexdigest()


def _read(file: Path) -> bytes:
    with explain_os_errors(file, "check its permissions"):
        return file.read_bytes()
