"""What ``loreg login`` leaves for later commands: a server and the token for it, readable by this person alone."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import platformdirs

from loreg.errors import explain_os_errors
from loreg.file_modes import make_folder


def file() -> Path:
    """Where they lie."""
    return platformdirs.user_config_path("loreg") / "credentials.toml"


def read() -> tuple[str, str]:
    """The endpoint and the token for it; empty if nobody logged in, or the file is not one of ours."""
    try:
        document = tomllib.loads(file().read_text(encoding="utf-8"))
        return str(document["endpoint"]), str(document["token"])
    except (OSError, ValueError, KeyError):
        return "", ""


def write(endpoint: str, token: str) -> Path:
    """Remember them; the file is nobody else's to read, from its first byte on."""
    path = file()
    with explain_os_errors(path, "export LOREG_ENDPOINT=… LOREG_TOKEN=… instead"):
        make_folder(path.parent)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            for key, value in (("endpoint", endpoint), ("token", token)):
                stream.write(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")  # a string of JSON is one of TOML
    return path


def remove() -> bool:
    """Forget them; False if there was nothing."""
    with explain_os_errors(file(), "remove the file"):
        there = file().exists()
        file().unlink(missing_ok=True)
    return there
