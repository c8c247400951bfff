"""Settings, and where each comes from: flag > ``LOREG_*`` environment > ``loreg.toml`` > user file > default."""

from __future__ import annotations

import getpass
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from loreg import credentials
from loreg.errors import UsageError

#: The table that says what a team asks of adapters; ``checking.policy`` reads it.
CHECK = "check"
KEYS = (
    "home",
    "database_url",
    "storage_url",
    "storage_endpoint",
    "storage_public_endpoint",
    "endpoint",
    "token",
    "author",
)


@dataclass(frozen=True)
class Settings:
    """The settings in force; ``origin`` says where each was found.

    With ``endpoint`` a server is asked, with ``token``; else the catalog and store directly. A server tells its clients
    ``storage_public_endpoint`` where they reach its store elsewhere. ``check`` is that table as it lies in a file.
    """

    home: Path
    database_url: str
    storage_url: str
    storage_endpoint: str
    storage_public_endpoint: str
    endpoint: str
    token: str
    author: str
    check: Mapping[str, Any]
    origin: Mapping[str, str]


def load(flags: Mapping[str, str | None], environment: Mapping[str, str], folder: Path | None = None) -> Settings:
    """Resolve every setting. ``folder`` is where the search for ``loreg.toml`` starts, upwards.

    Raises UsageError if a file is not valid TOML, has an unknown key or a value that is not text.
    """
    user_file = platformdirs.user_config_path("loreg") / "config.toml"
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("flag", flags),
        ("environment", {key: environment.get(f"LOREG_{key.upper()}") for key in KEYS}),
    ]
    for path in (_project_file(folder or Path.cwd()), user_file):
        if path is not None and path.is_file():
            layers.append((str(path), _read(path)))
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        for key in (*KEYS, CHECK):
            if key not in found and (value := layer.get(key)):
                found[key], origin[key] = value, name
    # A token goes to the server that it was given for, and to no other.
    logged_in, token = credentials.read()
    if logged_in and found.setdefault("endpoint", logged_in).rstrip("/") == logged_in and "token" not in found:
        found["token"] = token
        origin["token"] = str(credentials.file())
        origin.setdefault("endpoint", str(credentials.file()))
    home = Path(found.get("home") or platformdirs.user_data_path("loreg")).expanduser().absolute()
    return Settings(
        home=home,
        database_url=found.get("database_url") or f"sqlite:///{home / 'catalog.db'}",
        storage_url=found.get("storage_url") or str(home / "store"),
        storage_endpoint=found.get("storage_endpoint") or "",
        storage_public_endpoint=found.get("storage_public_endpoint") or "",
        endpoint=(found.get("endpoint") or "").rstrip("/"),
        token=found.get("token") or "",
        author=(found.get("author") or _login()).encode(errors="replace").decode()[:128],
        check=found.get(CHECK) or {},
        origin={key: origin.get(key, "default") for key in (*KEYS, CHECK)},
    )


def masked(url: str) -> str:
    """A database's URL without its password, for people to read."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


def _project_file(folder: Path) -> Path | None:
    candidates = (parent / "loreg.toml" for parent in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint=f"mend {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=f"mend {path}") from None
    for key, value in document.items():
        if key == CHECK and isinstance(value, dict):
            continue
        if key not in KEYS or not isinstance(value, str) or "\x00" in value:
            raise UsageError(
                f"{path}: {key!r} is not a setting or not text; expected one of {', '.join(KEYS)}",
                hint="loreg doctor shows every setting and where it comes from",
            )
    return {key: _beside(path, value) if key in ("home", "storage_url") else value for key, value in document.items()}


def _beside(file: Path, value: str) -> str:
    """A relative path in a settings file is relative to that file, wherever the command is run."""
    return value if "://" in value else str(file.parent / Path(value).expanduser())


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
