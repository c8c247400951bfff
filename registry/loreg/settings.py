"""Settings, and where each comes from: flag > ``LOREG_*`` environment > user file > what ``loreg login`` left.

These alone, which are the person's own, decide where requests and secrets go. A project's ``loreg.toml`` comes with
files that anybody may have written: it says what is asked of adapters and who acts, and leads nowhere.
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
#: All that a project's file may set.
PROJECT_KEYS = (CHECK, "author")
_FLAG = "flag"
_ENVIRONMENT = "environment"
# What names a registry on this machine. Outside of flags, home is where caches lie too, of a server's clients as well.
_LOCAL = ("database_url", "storage_url")
_LOCAL_FLAGS = ("home", "database_url", "storage_url", "storage_endpoint")
# Userinfo without a password is a name for a database; for other servers it is as often a key.
_URL = re.compile(
    r"(?P<scheme>[\w+.-]+://)(?P<user>[^:/?#@]*(?::[^/?#@]*)?@)?(?P<place>[^?#@=]*)(?:[?#].*)?", re.DOTALL
)


@dataclass(frozen=True)
class Settings:
    """The settings in force; ``origin`` says where each was found, ``notes`` what was passed over.

    With ``endpoint`` a server is asked, with ``token``; else the catalog and store directly. A server tells its clients
    ``storage_public_endpoint`` where they reach its store elsewhere. ``check`` is that table as it lies in a file.
    """

    home: Path
    database_url: str = field(repr=False)
    storage_url: str = field(repr=False)
    storage_endpoint: str = field(repr=False)
    storage_public_endpoint: str = field(repr=False)
    endpoint: str = field(repr=False)
    token: str = field(repr=False)
    author: str
    check: Mapping[str, Any]
    origin: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layer:
    """Where settings were found, and which."""

    name: str
    values: Mapping[str, Any]

    def has(self, *keys: str) -> bool:
        return any(self.values.get(key) for key in keys)

    @property
    def is_said_now(self) -> bool:
        """Whether the person says it for this one command."""
        return self.name in (_FLAG, _ENVIRONMENT)

    @property
    def names_local(self) -> bool:
        """Whether it names a catalog and a store that this machine reaches itself."""
        return self.has(*(_LOCAL_FLAGS if self.name == _FLAG else _LOCAL))


def load(flags: Mapping[str, str | None], environment: Mapping[str, str], folder: Path | None = None) -> Settings:
    """Resolve every setting. ``folder`` is where the search for ``loreg.toml`` starts, upwards.

    Raises UsageError if a file is not valid TOML, has an unknown key or a value that is not text; if flags name both a
    server and a registry on this machine; and if a project's file would lead somewhere and the person names no place.
    """
    own = _own_layers(flags, environment)
    found, origin = _resolve(own)
    project, notes = _project_layer(folder or Path.cwd())
    if project is not None:
        notes += _passed_over(project, found, chosen=any(layer.has("endpoint", "home", *_LOCAL) for layer in own))
        above = [layer for layer in own if layer.is_said_now]  # a project knows better than a user's file
        for key in PROJECT_KEYS:
            if project.has(key) and not any(layer.has(key) for layer in above):
                found[key], origin[key] = project.values[key], project.name
    return Settings(
        **{key: found[key] for key in KEYS},
        check=found.get(CHECK) or {},
        origin={key: origin.get(key, "default") for key in (*KEYS, CHECK)},
        notes=tuple(notes),
    )


def masked(url: str) -> str:
    """A URL for people to read: without password and query, and without more where that is not plain to see."""
    if "://" not in url or url.startswith("sqlite:///"):
        return url
    match = _URL.fullmatch(url)
    if match is None:
        return f"{url.partition('://')[0]}://…"
    user, colon, _ = (match["user"] or "").rstrip("@").partition(":")
    if match["user"] and not match["scheme"].startswith("postgres"):
        user, colon = "***", ""
    shown = f"{user}{':***' if colon else ''}@" if match["user"] else ""
    return f"{match['scheme']}{shown}{match['place']}"


def _own_layers(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> list[_Layer]:
    """What the person says, the nearest first."""
    user_file = platformdirs.user_config_path("loreg") / "config.toml"
    logged_in, token = credentials.read()
    return [
        _Layer(_FLAG, flags),
        _Layer(_ENVIRONMENT, {key: environment.get(f"LOREG_{key.upper()}") for key in KEYS}),
        _Layer(str(user_file), _read(user_file) if user_file.is_file() else {}),
        _Layer(str(credentials.file()), {"endpoint": logged_in, "token": token}),
    ]


def _resolve(layers: Sequence[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Every setting of these layers and its origin."""
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key in (*KEYS, CHECK):
        layer = next((layer for layer in layers if layer.has(key) and _counts(layer, key, layers, found)), None)
        if layer is not None:
            found[key], origin[key] = layer.values[key], layer.name
    home = Path(found.get("home") or platformdirs.user_data_path("loreg")).expanduser().absolute()
    defaults = {"database_url": f"sqlite:///{home / 'catalog.db'}", "storage_url": str(home / "store")}
    author = (found.get("author") or _login()).encode(errors="replace").decode()[:128]
    endpoint = (found.get("endpoint") or "").rstrip("/")
    settings = {**dict.fromkeys(KEYS, ""), **defaults, **found, "home": home, "author": author, "endpoint": endpoint}
    return settings, origin


def _counts(layer: _Layer, key: str, layers: Sequence[_Layer], found: Mapping[str, Any]) -> bool:
    """Whether a value that no nearer layer has is in force, beside what else the person says."""
    nearer = layers[: layers.index(layer)]
    if key == "endpoint":
        if layer.name == _FLAG and layer.names_local:
            raise UsageError(
                "a server and a registry on this machine are named at once: an endpoint goes with no home, database or "
                "store",
                hint="loreg --endpoint URL …, or loreg --home DIR …",
            )
        return not any(other.names_local for other in nearer)
    if key in _LOCAL:  # with --home, catalog and store are those of that folder
        return layer.name == _FLAG or not layers[0].has("home")
    if key == "token":  # one that lies in a file was given for the endpoint beside it
        endpoint = found.get("endpoint", "").rstrip("/")
        return bool(endpoint) and (layer.is_said_now or (layer.values.get("endpoint") or "").rstrip("/") == endpoint)
    return True


def _project_layer(folder: Path) -> tuple[_Layer | None, list[str]]:
    """The nearest ``loreg.toml`` that is this person's, and a word on those that are not."""
    notes = []
    for parent in (folder, *folder.parents):
        path = parent / "loreg.toml"
        if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for folders that may not be searched
            continue
        if owner := _other_owner(path):
            notes.append(f"{path} is ignored, for it belongs to {owner}: chown it if what it asks for is to hold")
            continue
        return _Layer(str(path), _read(path)), notes
    return None, notes


def _other_owner(path: Path) -> str:
    """Who owns the file or the link to it, unless that is this person; root may do as he likes anyhow."""
    mine = {0, os.geteuid()}
    if os.geteuid() == 0 and (behind_sudo := os.environ.get("SUDO_UID", "")).isdecimal():
        mine.add(int(behind_sudo))
    for owner in (path.lstat().st_uid, path.stat().st_uid):
        if owner not in mine:
            try:
                return pwd.getpwuid(owner).pw_name
            except KeyError:
                return f"user {owner}"
    return ""


def _passed_over(project: _Layer, found: Mapping[str, Any], *, chosen: bool) -> list[str]:
    """A word on keys of a project's file that would lead elsewhere, if the person has ``chosen`` where to.

    Nobody who has may be led or stopped by files that he did not write. For who has chosen nothing the file may have
    been the only word on where his registry is: going on without it could push to another, so that is refused.
    """
    elsewhere = [key for key in KEYS if key not in PROJECT_KEYS and _differs(project, key, found)]
    if not elsewhere:
        return []
    keys = " and ".join(repr(key) for key in elsewhere)
    user_file = platformdirs.user_config_path("loreg") / "config.toml"
    if chosen:
        return [f"{project.name} sets {keys}, which is not obeyed: a project's file leads nowhere"]
    default = shlex.quote(str(found["home"]))
    raise UsageError(
        f"{project.name} sets {keys}, which only a flag, the environment or {user_file} may: a project's file leads "
        "nowhere",
        hint=f"export LOREG_HOME={default} goes on without it; to obey it, move that to {user_file}",
    )


def _differs(project: _Layer, key: str, found: Mapping[str, Any]) -> bool:
    value = project.values.get(key) or ""
    return bool(value) and value.rstrip("/") != str(found[key]).rstrip("/")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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
