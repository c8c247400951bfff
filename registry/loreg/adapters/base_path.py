"""Take the path of the base on the pusher's machine out of files before they are stored, and put it back on request."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from loreg.adapters.config import CONFIG_NAME, dump_config
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.base_names import is_hub_name
from loreg.errors import AdapterFormatError

_MAX_TEXT_BYTES = 16 * 1024 * 1024
_ABSOLUTE_PATH = re.compile(r"(/|~/|\\\\|[A-Za-z]:[\\/]|file:).*", re.DOTALL)


def remove_base_path(files: dict[str, Path], base_hint: str) -> dict[str, bytes]:
    """Return the new content of every file that names the base by a path of this machine.

    In ``adapter_config.json`` that field, and every other value that is an absolute path, becomes null; in other files
    of up to 16 MiB the path becomes its last part, also where it stands as JSON writes it.
    """
    changed = {}
    base_path = "" if is_hub_name(base_hint) else base_hint
    document = json.loads(files[CONFIG_NAME].read_bytes())
    cleaned_document = _remove_paths(document)
    if base_path:
        cleaned_document["base_model_name_or_path"] = None
    if cleaned_document != document:
        changed[CONFIG_NAME] = dump_config(cleaned_document)
    for name, path in files.items():
        if base_path and name not in (CONFIG_NAME, WEIGHTS_NAME) and path.stat().st_size <= _MAX_TEXT_BYTES:
            content = path.read_bytes()
            if (cleaned := _replace_path(content, base_path)) != content:
                changed[name] = cleaned
    return changed


def contains_local_path(value: object) -> bool:
    """Whether a value of a configuration is, or has in it, an absolute path."""
    return bool(_remove_paths(value) != value)


def _remove_paths(value: object) -> Any:
    """Return the JSON value with null for every text that is an absolute path."""
    if isinstance(value, dict):
        return {key: _remove_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_remove_paths(item) for item in value]
    return None if isinstance(value, str) and _ABSOLUTE_PATH.fullmatch(value) else value


def _replace_path(content: bytes, base_path: str) -> bytes:
    """Return the content with the last part of the path for the path, as it is and as JSON writes it."""
    path = base_path.rstrip("/\\")
    last_part = _last_part(path)
    if last_part == path:
        return content
    for spelling in (path, json.dumps(path, ensure_ascii=False)[1:-1], json.dumps(path)[1:-1]):
        content = content.replace(spelling.encode(), last_part.encode())
    return content


def differs_only_by_base_path(config: Path, sha256: str) -> bool:
    """Whether ``config`` is the stored file of that ``sha256``, but for the base's path that was written back."""
    try:
        document = json.loads(config.read_bytes())
        stored = dump_config({**document, "base_model_name_or_path": None})
    except (ValueError, TypeError, AdapterFormatError):
        return False
    return hashlib.sha256(stored).hexdigest() == sha256


def restore_base_path(config: Path, base_hint: str) -> None:
    """Write the path of the base back into the configuration at ``config``.

    Does nothing where ``base_hint`` is empty or a name on the Hub, which was never taken out.
    """
    if not base_hint or is_hub_name(base_hint):
        return
    document = json.loads(config.read_bytes())
    document["base_model_name_or_path"] = base_hint
    temporary = config.with_name(f".{config.name}.new")
    temporary.write_bytes(dump_config(document))
    temporary.replace(config)


def _last_part(path: str) -> str:
    """Return ``llama`` for ``/home/anna/llama``; a path too short to be told from other text stays as it is."""
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return pure.name if len(path) > 3 and len(pure.parts) > 1 else path
