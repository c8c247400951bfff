"""The server and token that ``loreg login`` keeps for later commands, in a file readable by this user alone."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import platformdirs
import tomli_w

from loreg.errors import explain_os_errors
from loreg.file_modes import make_folder


def file() -> Path:
    """Return the path of the credentials file."""
    return platformdirs.user_config_path("loreg") / "credentials.toml"


def read() -> tuple[str, str]:
    """Return the endpoint and its token; both empty if nobody logged in, or the file is not one of ours."""
    try:
        document = tomllib.loads(file().read_text(encoding="utf-8"))
        return str(document["endpoint"]), str(document["token"])
    except (OSError, ValueError, KeyError):
        return "", ""


def write(endpoint: str, token: str) -> Path:
    """Store the endpoint and its token; nobody else can read the file, from its first byte on. Returns its path."""
    path = file()
    with explain_os_errors(path, "export LOREG_ENDPOINT=… LOREG_TOKEN=… instead"):
        make_folder(path.parent)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            tomli_w.dump({"endpoint": endpoint, "token": token}, stream)
    return path


def remove() -> bool:
    """Remove the credentials file; False if there was none."""
    with explain_os_errors(file(), "remove the file"):
        existed = file().exists()
        file().unlink(missing_ok=True)
    return existed
