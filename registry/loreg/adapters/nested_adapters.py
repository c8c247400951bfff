"""Find the adapters below a folder that is none itself: checkpoints of a run, or several with names."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from loreg.refs import source_text

_MAX_DEPTH = 2  # folders below the one that is searched
_MAX_SHOWN = 6
_CHECKPOINT = re.compile(r"(?:checkpoint|epoch|step|iter)[-_]?\d+")  # as runs name those of one adapter
_STEP_NUMBER = re.compile(r"\d+")


def find_adapters_below(folder: Path, needed: str) -> list[str]:
    """Return the folders below ``folder`` that have the file ``needed``, relative to it, latest checkpoint first."""
    adapters = []
    for parent, folders, files in os.walk(folder):
        path = Path(parent).relative_to(folder)
        folders[:] = [] if len(path.parts) == _MAX_DEPTH else [name for name in folders if not name.startswith(".")]
        if path.parts and needed in files:
            adapters.append(path.as_posix())
    return sorted(adapters, key=lambda name: ([-int(step) for step in _STEP_NUMBER.findall(name)] or [1], name))


def describe_other_folder(folder: Path) -> tuple[str, str]:
    """Return what a folder is that is no adapter, and what to do with it; both empty if nobody can tell."""
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not files:
        return ("an empty folder", "") if folder.is_dir() else ("", "")
    if any(name.endswith(".gguf") for name in files):
        return "a GGUF file, which no PEFT model is saved as", "push the folder that it was converted from"
    if "config.json" in files and any(name.endswith((".safetensors", ".safetensors.index.json")) for name in files):
        return "a whole model, not an adapter", f"loreg base add {shlex.quote(source_text(folder))}"
    return "", ""


def describe_adapters_below(folder: Path, adapters: list[str]) -> tuple[str, str]:
    """Return what an error says of the adapters below ``folder``, and the command that goes on.

    The checkpoints of a run are imported with what the run says of them; of other adapters the first is looked at.
    """
    more = f" and {len(adapters) - _MAX_SHOWN} more" if len(adapters) > _MAX_SHOWN else ""
    count = "1 adapter lies" if len(adapters) == 1 else f"{len(adapters)} adapters lie"
    is_run = all(_CHECKPOINT.fullmatch(name) for name in adapters)
    command = ("import", folder) if is_run else ("check", folder / adapters[0])
    shown = f"{count} in it: {', '.join(adapters[:_MAX_SHOWN])}{more}"
    return shown, f"loreg {command[0]} {shlex.quote(source_text(command[1]))}"
