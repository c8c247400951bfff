"""Where a base lay on the pusher's machine is nobody else's business: it leaves the files before they are stored."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from loreg.adapters.config import CONFIG_NAME, dump_config, is_hub_name
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.errors import AdapterFormatError

_MOST_TEXT_BYTES = 16 * 1024 * 1024
_ABSOLUTE = re.compile(r"(/|~/|\\\\|[A-Za-z]:[\\/]).*", re.DOTALL)


def without_base_path(files: dict[str, Path], base_hint: str) -> dict[str, bytes]:
    """The new content of every file that names the base by a path of this machine.

    In ``adapter_config.json`` that field, and every other value that is an absolute path, becomes null; in other
    files of text the path becomes its last part, also where it stands as JSON writes it.
    """
    changed = {}
    private = "" if is_hub_name(base_hint) else base_hint
    document = json.loads(files[CONFIG_NAME].read_bytes())
    clean = _without_paths(document)
    if private:
        clean["base_model_name_or_path"] = None
    if clean != document:
        changed[CONFIG_NAME] = dump_config(clean)
    for name, path in files.items():
        if private and name not in (CONFIG_NAME, WEIGHTS_NAME) and path.stat().st_size <= _MOST_TEXT_BYTES:
            content = path.read_bytes()
            if (without := _without(content, private)) != content:
                changed[name] = without
    return changed


def holds_a_path(value: Any) -> bool:
    """Whether a value of a configuration is, or has in it, a path of one machine."""
    return bool(_without_paths(value) != value)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return None if isinstance(value, str) and _ABSOLUTE.fullmatch(value) else value


def _without(content: bytes, private: str) -> bytes:
    path = private.rstrip("/\\")
    last = _last_part(path)
    if last == path:
        return content
    for form in (path, json.dumps(path, ensure_ascii=False)[1:-1], json.dumps(path)[1:-1]):
        content = content.replace(form.encode(), last.encode())
    return content


def has_base_path(config: Path, sha256: str) -> bool:
    """Whether ``config`` is the stored file of that digest but for the base's path that was written back."""
    try:
        document = json.loads(config.read_bytes())
        stored = dump_config({**document, "base_model_name_or_path": None})
    except (ValueError, TypeError, AdapterFormatError):
        return False
    return hashlib.sha256(stored).hexdigest() == sha256


def with_base_path(config: Path, base_hint: str) -> None:
    """Write the base's path back into the configuration at ``config``, for someone who asked for it.

    A name that others know is there already: nothing is changed then.
    """
    if not base_hint or is_hub_name(base_hint):
        return
    document = json.loads(config.read_bytes())
    document["base_model_name_or_path"] = base_hint
    temporary = config.with_name(f".{config.name}.new")
    temporary.write_bytes(dump_config(document))
    temporary.replace(config)


def _last_part(path: str) -> str:
    """``llama`` for ``/home/anna/llama``; a path too short to be told from other text stays as it is."""
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return pure.name if len(path) > 3 and len(pure.parts) > 1 else path
