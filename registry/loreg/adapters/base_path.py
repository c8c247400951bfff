"""Where a base lay on the pusher's machine is nobody else's business: it leaves the files before they are stored."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from loreg.adapters.config import CONFIG_NAME, dump_config, is_hub_name

_MOST_TEXT_BYTES = 16 * 1024 * 1024
_TEXT = (".json", ".md", ".txt", ".yaml", ".yml", ".toml", ".jinja")


def without_base_path(files: dict[str, Path], base_hint: str) -> dict[str, bytes]:
    """The new content of every file that names the base by a path of this machine; empty for a public name.

    In ``adapter_config.json`` the field becomes null; in other text files the path becomes its last part.
    """
    if not base_hint or is_hub_name(base_hint):
        return {}
    changed = {}
    for name, path in files.items():
        if name == CONFIG_NAME:
            document = json.loads(path.read_bytes())
            document["base_model_name_or_path"] = None
            changed[name] = dump_config(document)
        elif path.suffix in _TEXT and path.stat().st_size <= _MOST_TEXT_BYTES:
            content = path.read_bytes()
            if (clean := content.replace(base_hint.encode(), _last_part(base_hint).encode())) != content:
                changed[name] = clean
    return changed


def with_base_path(config: Path, base_hint: str) -> None:
    """Write the base's path back into the configuration at ``config``, for someone who asked for it."""
    document = json.loads(config.read_bytes())
    document["base_model_name_or_path"] = base_hint
    temporary = config.with_name(f".{config.name}.new")
    temporary.write_bytes(dump_config(document))
    temporary.replace(config)


def _last_part(path: str) -> str:
    """``llama`` for ``/home/anna/llama``; a path too short to be told from other text stays as it is."""
    pure = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return pure.name if len(path) > 3 and len(pure.parts) > 1 else path
